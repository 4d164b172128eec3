"""Optuna's journal and MLflow's runs are made again from a study's folder, whatever happened to them."""

from __future__ import annotations

import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ddarts_tuning.driver import extending, sweep
from ddarts_tuning.driver.stops import explained
from ddarts_tuning.driver.sweep import resume_sweep
from ddarts_tuning.schedulers.time_budget import TimeBudget
from ddarts_tuning.store.study import Study, find_study, trial_dir
from ddarts_tuning.tracking import study_run as tracking

from ddarts_cli.main import run
from ddarts_core.ground.errors import UserError
from ddarts_core.studies.study_files import read_json, write_json
from tests.tuning.processes import faults
from tests.tuning.test_earlier import DATA
from tests.tuning.test_moving import artifacts, on_a_server

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A study of two trials, without Ray."""
    with tarfile.open(DATA) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "finished"


def lose_the_study(database: Path) -> None:
    """Another experiment has its number now."""
    database.unlink()
    tracking.start_study(f"sqlite:///{database}", "another", "another", {}, {})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:50_000]), "is damaged: it is kept as mlflow-damaged-1.db"),
        (lambda file: file.write_bytes(b""), "is damaged"),  # begun and killed
        (Path.unlink, "is gone: it is made again"),
        (lose_the_study, "has the study no more: it gets all of it again"),
    ],
)
def test_a_store_that_lost_the_study_has_all_of_it_again(
    finished: Path, damage: Callable[[Path], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(finished / "mlflow.db")
    with caplog.at_level(logging.WARNING):
        assert resume_sweep(finished).untracked == 0
    assert [said in record.getMessage() for record in caplog.records] == [True]
    study = find_study(finished)
    assert all(trial["tracked"] and trial["run_id"] for trial in study.trials())
    assert not any(faults(finished, 2, (2, 2)).values())
    caplog.clear()
    assert resume_sweep(finished).untracked == 0 and not caplog.records


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run."""
    monkeypatch.setattr(sweep, "prepare", lambda config, *_: config)
    monkeypatch.setattr(sweep, "fit", lambda *_, **__: TimeBudget(None))


@pytest.mark.usefixtures("without_ray")
def test_a_trial_that_is_lost_does_not_hold_a_study_up(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = find_study(finished).update(state="INTERRUPTED")
    shutil.rmtree(trial_dir(finished, 0))
    with caplog.at_level(logging.WARNING):
        done = resume_sweep(finished)
    assert not done.interrupted and [trial["number"] for trial in done.trials] == [1]
    assert caplog.text.count("goes on without what it has lost: trial.json of 00000") == 1
    assert [added["num_samples"] for added in done.study.rounds] == [2]
    more = extending._add_round(done.study, sweep.stored_config(study), 1)
    assert more.data["config"]["tune"]["num_samples"] == 3, "the third has number 2"
    assert not any(trial["number"] > 1 for trial in more.trials()) and resume_sweep(finished).interrupted


@pytest.mark.usefixtures("without_ray")
def test_trials_for_which_there_was_no_time_are_not_begun_because_others_failed(finished: Path) -> None:
    study = find_study(finished)
    study.update(config={**study.data["config"], "tune": {**study.data["config"]["tune"], "num_samples": 5}})
    study.change_trial(0, state="FAILED", objectives=None, reason="its process died")
    resume_sweep(finished, failed=True)
    study = find_study(finished)
    assert [trial["state"] for trial in study.trials()] == ["RUNNING", "COMPLETED"]
    assert study.data["config"]["tune"]["num_samples"] == 2


def test_members_of_a_population_are_not_run_again_alone(finished: Path) -> None:
    study = find_study(finished)
    settings = {**study.data["config"], "tune": {**study.data["config"]["tune"], "scheduler": "pbt"}}
    study.update(config=settings)
    first = trial_dir(finished, 0) / "trial.json"
    write_json(first, {**read_json(first), "state": "FAILED"})
    before = first.read_bytes()
    with pytest.raises(UserError, match="is a population, which went on without the members that failed"):
        resume_sweep(finished, failed=True)
    assert first.read_bytes() == before and (finished / "optuna.log").exists()


def test_failed_trials_stay_as_they_are_if_none_can_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marked as running, they would never run: the study is finished. A sweep that they stopped says how to go on."""
    study = find_study(finished)
    first = trial_dir(finished, 0) / "trial.json"
    write_json(first, {**read_json(first), "state": "FAILED"})

    def refuse(*_: object) -> None:
        raise UserError("no trial fits")

    monkeypatch.setattr(sweep, "prepare", refuse)
    with pytest.raises(UserError, match="no trial fits"):
        resume_sweep(finished, failed=True)
    assert read_json(first)["state"] == "FAILED" and (finished / "optuna.log").exists()

    def killed(_: Study) -> None:
        assert find_study(finished).data["state"] == "INTERRUPTED", "else a trial that is marked would never run"
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "prepare", lambda config, *_: config)
    monkeypatch.setattr(sweep, "run_again", killed)
    with pytest.raises(KeyboardInterrupt):
        resume_sweep(finished, failed=True)
    sentence = explained(study, RuntimeError("3 trials failed for the same reason (the last: it diverged)"))
    assert f"mend the cause and go on with `ddarts resume {finished} --failed`" in str(sentence)


def test_the_command_does_no_harm_when_it_is_repeated(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "optuna.log").write_text("damaged\n")
    assert run(["rebuild", str(finished)]) == 2
    assert "name what to make again: --optuna, --mlflow" in capsys.readouterr().err
    for _ in range(2):
        assert run(["rebuild", str(finished), "--optuna", "--mlflow"]) == 0
        assert "MLflow has 2 trials" in capsys.readouterr().out
        assert not any(faults(finished, 2, (2, 2)).values())
        at = (finished / "mlartifacts").as_uri()
        assert all(uri.startswith(at) for uri in artifacts(find_study(finished))), "not where the folder was before"


def test_the_command_does_not_write_into_the_runs_of_the_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = on_a_server(tmp_path / "one" / "s")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert run(["rebuild", str(tmp_path / "two" / "s"), "--mlflow"]) == 2
    assert f"is a copy of {original.path}" in capsys.readouterr().err
