"""Whole states of Ray, whatever was interrupted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuning import snapshots
from tuning.snapshots import Keeper, bring_back, kept


def write(staging: Path, folder: Path, text: str) -> None:
    staging.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    for name in ("experiment_state-1.json", "searcher-state-1.pkl"):
        (staging / name).write_text(text)
    os.utime(staging / "experiment_state-1.json", ns=(0, sum(text.encode())))
    (folder / "tuner.pkl").write_text("tuner")


def test_the_newest_whole_state_comes_back(tmp_path: Path) -> None:
    staging, folder = tmp_path / "staging", tmp_path / "ray"
    assert not bring_back(folder)
    keeper = Keeper()
    for text in ("a", "b", "b"):
        write(staging, folder, text)
        keeper.keep(staging, folder)
    assert [state.name for state in kept(folder)] == ["kept-00000002"]  # the same one is kept once
    (folder / "experiment_state-1.json").write_text('{"half')
    (folder / "experiment_state-2.json").write_text("newer, of another moment")
    (folder / "tuner.pkl").write_text("")
    assert bring_back(folder) and bring_back(folder)
    found = {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}
    assert found == {"experiment_state-1.json": "b", "searcher-state-1.pkl": "b", "tuner.pkl": "tuner"}


def test_an_interrupted_copy_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging, folder = tmp_path / "staging", tmp_path / "ray"
    write(staging, folder, "a")
    Keeper().keep(staging, folder)
    write(staging, folder, "b")
    copy = snapshots._copy

    def half(file: Path, target: Path) -> None:
        if file.suffix == ".pkl":
            raise OSError("No space left on device")
        copy(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "_copy", half)
        with pytest.raises(OSError, match="No space"):
            Keeper().keep(staging, folder)
    assert bring_back(folder)
    assert (folder / "searcher-state-1.pkl").read_text() == "a"
    Keeper().keep(staging, folder)
    assert bring_back(folder)
    assert (folder / "experiment_state-1.json").read_text() == "b"
