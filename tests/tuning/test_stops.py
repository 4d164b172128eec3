"""What ends a sweep from outside: its folder is deleted while it runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ddarts_tuning.driver import sweep
from ddarts_tuning.driver.callback import Session, StudyCallback
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.schedulers.time_budget import TimeBudget
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.store.study import Held, Study

from ddarts_core.ground.errors import UserError
from ddarts_core.studies import sqlite_uri

SPACE = {"search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0}}


@pytest.fixture
def study(study_path: Path) -> Study:
    config = resolve_sweep({"name": study_path.name, "storage": str(study_path.parent), "space": SPACE})
    uri = sqlite_uri.uri_of(study_path / "mlflow.db")
    stored = {"config": config.model_dump(mode="json"), "objectives": [], "tracking_uri": uri, "parent_run_id": "x"}
    return create_study(study_path, {**stored, "experiment_id": "1", "state": "RUNNING"})


def test_a_folder_that_is_deleted_under_a_sweep_is_one_sentence(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray says of it, and also if Ray says nothing; and nothing of the folder is made anew."""
    config: Any = None
    monkeypatch.setattr(sweep, "show_study", lambda *_: None)
    for error in (RuntimeError("Traceback ... cannot read trial.json"), None):

        def fit(*_: Any, error: BaseException | None = error, **__: Any) -> None:
            shutil.rmtree(study.path)
            study.path.mkdir()  # as Ray does for its own
            if error is not None:
                (study.path / "mlflow.db").touch()  # and then MLflow
                raise error

        monkeypatch.setattr(sweep, "fit", fit)
        with pytest.raises(
            UserError, match=r"folder \S+ of study 'study' is gone, .*: the sweep has ended; if .* resume"
        ):
            sweep.run(study, config, config, Session(), None)
        assert not study.path.exists()
        study.path.mkdir()


def test_the_next_epoch_of_a_trial_notices(study: Study) -> None:
    callback = StudyCallback(Held(study), Session(), TimeBudget(None), "held_out/accuracy", alone=True)
    trial = SimpleNamespace(config={"number": 0}, trial_id="a", last_result={})
    callback.on_trial_result(
        0, [], trial, {"epochs": 1, "search_epoch": 1, "held_out/accuracy": 0.5, "phase": "search"}
    )
    shutil.rmtree(study.path)
    with pytest.raises(FileNotFoundError):
        callback.on_trial_result(
            0, [], trial, {"epochs": 2, "search_epoch": 2, "held_out/accuracy": 0.5, "phase": "search"}
        )
    with pytest.raises(FileNotFoundError):
        callback.on_trial_recover(0, [], trial)
