"""Which checkpoints stay, whatever numbers Ray gives them."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuning.processes import Driver, epochs_of, faults, repeats
from tuning.callback import ACTIVE, Active, Ends, Session, StudyCallback
from tuning.checkpoints import superseded
from tuning.config import SweepConfig
from tuning.mirror import Mirror

Make = Callable[..., SweepConfig]


@pytest.mark.parametrize(
    ("written", "newest", "deleted"),
    [
        ({"c_1": 1, "c_2": 2, "c_3": 3}, "c_3", ["c_1"]),
        ({"c_1": 3, "c_7": 1, "c_8": 2}, "c_1", ["c_7"]),  # the numbers begin anew
        ({"c_1": 1, "c_7": 1, "c_8": 2}, "c_1", ["c_7"]),  # the clock was set back
        ({"c_1": 5, "c_2": 5, "c_3": 5, "c_9": 1}, "c_3", ["c_9", "c_1"]),  # a store's clock of whole seconds
        ({"c_1": 1, "c_2": 2}, "c_2", []),
        ({"c_1": 1}, "c_1", []),
    ],
)
def test_the_newest_and_the_one_before_it_stay(written: dict[str, int], newest: str, deleted: list[str]) -> None:
    assert superseded(written, newest, 2) == deleted


NUMBERS = (6, 7, 0, 1, 7, 2)
"""Of checkpoints as they are written: Ray counts on from an older state, and over one that there is."""

LEFT = [{6}, {6, 7}, {7, 0}, {0, 1}, {1, 7}, {7, 2}]


def write(callback: StudyCallback, path: str) -> None:
    callback.on_checkpoint(0, [], None, SimpleNamespace(path=path))


def test_in_a_folder(tmp_path: Path) -> None:
    callback = StudyCallback(str(tmp_path), 9, 2)
    trial = tmp_path / "ray" / "00000_x"
    for moment, number in enumerate(NUMBERS):
        folder = trial / f"checkpoint_{number:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trial.pt").write_text(str(moment))
        os.utime(folder / "trial.pt", (2e9 + moment, 2e9 + moment))
        write(callback, str(folder))
        assert {int(found.name[-6:]) for found in trial.iterdir()} == LEFT[moment]


def test_in_a_store(tmp_path: Path) -> None:
    mirror = Mirror(f"memory://{uuid.uuid4().hex}/study", tmp_path / "study")
    callback = StudyCallback(mirror.uri, 9, 2)
    for moment, number in enumerate(NUMBERS):
        name = f"ray/00000_x/checkpoint_{number:06d}"
        mirror.write(f"{name}/trial.pt", str(moment).encode())
        ends = Ends(None)
        study: Any = SimpleNamespace(mirror=mirror)
        ACTIVE[mirror.uri] = Active(study, Session(), ends)
        write(callback, mirror.path(name))
        del ACTIVE[mirror.uri]
        ends.close()
        assert {int(found.split("/")[-2][-6:]) for found in mirror.fs.find(mirror.root)} == LEFT[moment]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_kill_after_a_resume_costs_more_than_an_epoch(make_sweep: Make) -> None:
    """Ray's last state is up to ten checkpoints old: killed before, at and past the numbers that it began anew at."""
    tune = {"num_samples": 1, "searcher": "random", "max_failures": 9}
    config = make_sweep("again", search={"epochs": 20}, retrain={"epochs": 1}, tune=tune)
    path = config.study_dir
    driver = Driver("run", path, config)
    for epochs in (9, 15):
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs)  # type: ignore[misc]
        driver.kill()
        driver = Driver("resume", path)
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs + 2)  # type: ignore[misc]
        for worker in driver.workers():
            os.kill(worker, signal.SIGKILL)
    assert driver.finish().startswith("finished 0")
    assert max(repeats(path)) <= 1
    assert not any(faults(path, 1, (20, 1)).values())
