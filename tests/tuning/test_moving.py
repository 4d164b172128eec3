"""A study whose folder was moved or copied goes on where it is, and nothing is written where it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver.moving import LOCATIONS, settle_in
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.locks import await_workers
from ddarts_tuning.store.study import Study, find_study
from ddarts_tuning.tracking import study_run as tracking

from ddarts_core.ground.errors import UserError
from tests.tuning.processes import Driver, epochs_of, faults
from tests.tuning.test_population import POPULATION

Make = Callable[..., SweepConfig]

# --- whole studies; a copy is in test_resume.py ---------------------------------------------------------------------


def artifacts(study: Study) -> set[str]:
    client = tracking.make_client(study.data["tracking_uri"])
    return {run.info.artifact_uri for run in client.search_runs([study.data["experiment_id"]])}


def check_place(path: Path, num_trials: int) -> None:
    """A study that came to its end has its artifacts in its folder."""
    assert all(uri.startswith((path / "mlartifacts").as_uri()) for uri in artifacts(find_study(path)))
    assert len(list(path.glob("mlartifacts/*/artifacts/records.jsonl"))) == num_trials


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_moved_study_goes_on_and_can_be_moved_again(make_sweep: Make, tmp_path: Path) -> None:
    """First before its second trial, then when that one has begun."""
    config = make_sweep("killed", tune={"num_samples": 2, "searcher": "random"}, search={"epochs": 3})
    killed = config.study_dir
    driver = Driver("run", killed, config)
    driver.wait_for(lambda: epochs_of(killed, 0) >= 3)
    driver.kill()
    await_workers(killed, "trials")
    first, second = tmp_path / "first", tmp_path / "below" / "second"
    os.rename(killed, first)
    driver = Driver("resume", first)
    driver.wait_for(lambda: epochs_of(first, 1) >= 2)
    driver.kill()
    await_workers(first, "trials")
    second.parent.mkdir()
    os.rename(first, second)
    assert Driver("resume", second).finish().startswith("finished 0")
    assert not killed.exists() and not first.exists()
    assert not any(faults(second, 2, (3, 2)).values())
    check_place(second, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_moved_population_goes_on_from_the_states_that_were_exchanged(make_sweep: Make, tmp_path: Path) -> None:
    """A member's next state lies among another's checkpoints."""
    config = make_sweep("population", **POPULATION)
    path, place = config.study_dir, tmp_path / "moved"
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) >= 1)
    driver.wait_for(lambda: any(trial["lineage"] for trial in find_study(path).trials()))
    driver.kill()
    await_workers(path, "trials")
    os.rename(path, place)
    assert Driver("resume", place).finish().startswith("finished 0")
    assert not path.exists()
    assert [trial["state"] for trial in find_study(place).trials()] == ["COMPLETED"] * 3


# --- MLflow ---------------------------------------------------------------------------------------------------------

SERVER = "https://me:secret@host/mlflow"
BEGUN: dict[str, Any] = {"state": "INTERRUPTED", "objectives": [], "base": {}}
OF_ONE = {"num_samples": 1, "objective": "derived"}


def on_a_server(path: Path) -> Study:
    """A study that was run, tracked elsewhere."""
    data = {"tracking_uri": SERVER, "config": {"tracking": {"uri": SERVER}, "tune": OF_ONE}}
    study = create_study(path, {**BEGUN, **data, "parent_run_id": "run", "experiment_id": "1"})
    study = study.update(place=study.location)
    settle_in(study)
    return study


def test_a_copy_does_not_share_the_runs_on_a_server(tmp_path: Path) -> None:
    original = on_a_server(tmp_path / "one" / "s")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copy = find_study(tmp_path / "two" / "s")
    with pytest.raises(UserError, match=f"{copy.path} is a copy of {original.path} .* at https://host/mlflow: go on"):
        settle_in(copy)
    shutil.rmtree(original.path)
    settle_in(copy)  # it was moved


def test_the_same_folder_by_another_name_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_server(tmp_path / "one" / "s")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    settle_in(find_study(tmp_path / "link" / "s"))
    monkeypatch.chdir(tmp_path / "one")
    settle_in(find_study("s"))
    settle_in(find_study("../link/s"))


def test_a_database_in_the_studys_folder_goes_with_it(study_path: Path, tmp_path: Path) -> None:
    """Every place in it, and no other."""
    uri = tracking.tracking_uri(None, study_path)
    study_path.parent.mkdir(parents=True)
    study_path.mkdir()
    experiment, run = tracking.start_study(uri, "e", "study", {}, {})
    data = {"tracking_uri": uri, "experiment_id": experiment, "parent_run_id": run}
    create_study(study_path, {**BEGUN, **data, "config": {"tracking": {"uri": None}, "tune": OF_ONE}})
    other = tracking.make_client(uri).create_run("0").info
    moved = tmp_path / "moved_to"
    os.rename(study_path, moved)
    study = find_study(moved)
    assert study.data["tracking_uri"] == f"sqlite:///{moved}/mlflow.db"
    settle_in(study)
    client = tracking.make_client(study.data["tracking_uri"])
    assert client.get_run(run).info.artifact_uri == f"{(moved / 'mlartifacts').as_uri()}/{run}/artifacts"
    assert client.get_experiment(experiment).artifact_location == (moved / "mlartifacts").as_uri()
    assert client.get_run(other.run_id).info.artifact_uri == other.artifact_uri
    with sqlite3.connect(moved / "mlflow.db") as database:
        for table, column in LOCATIONS:
            assert column in [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
