"""Trials run by the ddarts of the sweep, and by Ray of one version; anything else is refused with both versions."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ddarts_tuning
import pytest
from ddarts_tuning.cluster.connection import start_ray
from ddarts_tuning.cluster.versions import OtherVersion, digest, own_version
from ddarts_tuning.driver.callback import _stop_if_hopeless
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.ground.errors import UserError
from ddarts_core.studies.study_files import read_json


def test_a_version_follows_from_the_files_and_not_from_their_place(tmp_path: Path) -> None:
    package = Path(ddarts_tuning.__file__).parent
    copy = tmp_path / "elsewhere" / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "left.pyc").write_bytes(b"x")
    same = digest(package)
    assert digest(copy) == same
    (copy / "settings" / "space.py").rename(copy / "settings" / "spaces.py")
    renamed = digest(copy)
    (copy / "settings" / "spaces.py").write_text("")
    assert len({same, renamed, digest(copy)}) == 3


def test_a_trial_notes_its_version_and_another_one_refuses_it(
    make_sweep: Callable[..., SweepConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ddarts_tuning.trial.trainable.Sender", lambda *_: SimpleNamespace(send=lambda _: None, close=lambda: None)
    )
    config = make_sweep("apart", storage=str(tmp_path))
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config), "tracking_uri": "", "state": ""}
    study = create_study(config.study_location, {**stored, "objectives": []})
    begin(study, 0, {"search.w_zero_one": 1.0, "ablation.loss": "none"})
    of_trial = {"study": str(study.path), "number": 0}
    SearchTrial(of_trial).cleanup()
    record = study.path / "trials" / "00000" / "trial.json"
    assert read_json(record)["code"] == study.data["code"] == own_version()
    before = record.read_bytes()
    study.update(code="9.9.9+0123456789ab")
    with pytest.raises(OtherVersion) as refused:
        SearchTrial(of_trial)
    said = str(refused.value)
    assert f"has ddarts {own_version()}, and the sweep has 9.9.9+0123456789ab: install the same" in said
    assert record.read_bytes() == before

    error = tmp_path / "error.txt"  # as Ray leaves it for the driver
    error.write_text(f"Traceback (most recent call last):\ntuning.versions.OtherVersion: {said}\n")
    with pytest.raises(OtherVersion) as told:
        _stop_if_hopeless(SimpleNamespace(error_file=str(error)))
    assert str(told.value) == said


def test_a_head_with_another_ray_is_told_by_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with advice about tokens."""
    import ray
    from ray._private.utils import check_version_info

    def init(address: str, **_: Any) -> None:
        check_version_info({"ray_version": "2.49.1", "python_version": "3.9.1"}, "10.0.0.1")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(ray, "init", init)
        with pytest.raises(UserError) as refused:
            start_ray(address=f"127.0.0.1:{listener.getsockname()[1]}")
    said = str(refused.value)
    assert f"install the same version (ours Ray {ray.__version__} under Python 3." in said
    assert said.endswith("theirs Ray 2.49.1 under Python 3.9.1)") and "TOKEN" not in said
