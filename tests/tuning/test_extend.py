"""More trials in a study that exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
from ddarts_tuning.driver.events import SweepEvent
from ddarts_tuning.driver.extending import check_same, extend_sweep
from ddarts_tuning.driver.new_study import new_study
from ddarts_tuning.driver.sweep import resume_sweep, run_sweep
from ddarts_tuning.searchers.journal import open_journal
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.tune import ACCURACY
from ddarts_tuning.store.study import Study, find_study, trial_dir
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.tracking.overview import show_study

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import read_jsonl

Make = Callable[..., SweepConfig]

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.filterwarnings("ignore")]

FAST: dict[str, Any] = {"search": {"epochs": 1}, "tune": {"num_samples": 4, "objective": "supernet"}}
WORDS: dict[str, Any] = {"ablation.loss": {"type": "categorical", "choices": ["none", "centered"]}}
RANDOM: dict[str, Any] = {"searcher": "random"}
HALVING: dict[str, Any] = {"scheduler": "asha", "grace_period": 1, "reduction_factor": 2}


def ends(trials: list[dict[str, Any]]) -> list[Any]:
    return [(trial["params"], trial["state"], trial["objectives"]) for trial in trials]


#: With a scheduler that compares trials after one epoch of two.
COMPARED: dict[str, Any] = {"search": {"epochs": 2}, "tune": {**FAST["tune"], **HALVING, "num_samples": 3}}


@pytest.fixture(scope="module")
def whole(make_sweep: Make, ray_cluster: None) -> Study:
    """Three trials in one sweep."""
    return run_sweep(make_sweep("whole", **COMPARED)).study


def test_two_and_one_are_the_three_of_an_undisturbed_sweep(make_sweep: Make, whole: Study) -> None:
    """The searcher goes on with what it knew: the same proposals and ends, every old trial untouched."""
    half = {**COMPARED, "tune": {**COMPARED["tune"], "num_samples": 2}}
    first = run_sweep(make_sweep("halves", **half))
    before = {trial["trial_id"]: trial for trial in first.trials}
    done = extend_sweep(make_sweep("halves", **half), 1)
    trials = done.study.trials()
    assert done.study.state == "FINISHED" and not done.interrupted and done.untracked == 0
    assert {trial["trial_id"]: trial for trial in trials if trial["trial_id"] in before} == before
    assert ends(trials) == ends(whole.trials()[:3])
    journal = open_journal(done.study.path / "optuna.log", "halves", {"directions": ["maximize"]}).get_trials()
    assert [trial.user_attrs["number"] for trial in journal] == [0, 1, 2]
    client = tracking.make_client(done.study.data["tracking_uri"])
    runs = client.search_runs([done.study.data["experiment_id"]])
    assert len(runs) == 4 and {run.info.status for run in runs} == {"FINISHED"}
    assert done.study.data["config"]["tune"]["num_samples"] == 3


def test_other_settings_are_refused_and_new_trials_are_compared_with_old(make_sweep: Make, whole: Study) -> None:
    tune = COMPARED["tune"]
    for groups, named in (
        ({**COMPARED, "alpha": {"lr": 0.2}}, r"another alpha\.lr \(0\.1 there, 0\.2 now\):"),
        ({**COMPARED, "tune": {**tune, "second_objective": "macs"}}, "tune.second_objective"),
    ):
        with pytest.raises(UserError, match=named):
            extend_sweep(make_sweep("whole", **groups))
    other = make_sweep("whole", **{**COMPARED, "tune": {**tune, "reduction_factor": 4, "num_samples": 9, **RANDOM}})
    check_same(whole, other)
    # Had the first trials been perfect after an epoch, the next one would be stopped there.
    for number in range(3):
        path = trial_dir(whole.path, number) / "records.jsonl"
        perfect = [record.to_dict() for record in read_jsonl(path)]
        for record in perfect:
            record["metrics"][ACCURACY] = 1.0
        path.write_text("".join(json.dumps(record) + "\n" for record in perfect))
    done = extend_sweep(other, num_samples=1)
    assert done.study.trials()[3]["state"] == "PRUNED"
    assert done.study.data["config"]["tune"]["searcher"] == "random", "another may propose the new ones"
    assert len(read_jsonl(trial_dir(whole.path, 3) / "records.jsonl")) == 1


NOWHERE: dict[str, Any] = {"resources": {"gpu": 1}}


def parent(study: Study) -> str:
    """Status of a study's run in MLflow."""
    client = tracking.make_client(study.data["tracking_uri"])
    return str(client.get_run(study.data["parent_run_id"]).info.status)


def test_what_cannot_run_is_refused_and_leaves_a_study_as_it_was(make_sweep: Make) -> None:
    """This machine has no GPU for Ray. A refusal before a study's first trial, and one after its last."""
    one: dict[str, Any] = {**FAST, "tune": {**FAST["tune"], "num_samples": 1}}
    wrong = make_sweep("refused", **{**one, "tune": {**one["tune"], **NOWHERE}})
    with pytest.raises(UserError, match="fits on none of those that are there"):
        run_sweep(wrong)
    assert not wrong.study_dir.exists()

    left = new_study(wrong)  # as by a sweep on a cluster with a GPU that is no more
    left.update(state="INTERRUPTED")
    show_study(left, "KILLED")
    for go_on in (lambda: resume_sweep(wrong.study_dir), lambda: extend_sweep(wrong)):
        with pytest.raises(UserError, match="fits on none of those that are there"):
            go_on()
        assert (find_study(wrong.study_dir).data["state"], parent(left)) == ("INTERRUPTED", "KILLED")

    done = extend_sweep(make_sweep("refused", **one))
    assert not done.interrupted and [trial["state"] for trial in done.trials] == ["COMPLETED"]
    assert parent(done.study) == "FINISHED" and done.study.data["config"]["tune"]["resources"]["gpu"] == 0
    before = (done.study.path / "study.json").read_bytes()
    with pytest.raises(UserError, match="fits on none of those that are there"):
        extend_sweep(wrong, 1)
    assert (done.study.path / "study.json").read_bytes() == before and parent(done.study) == "FINISHED"


def test_a_sweep_that_cannot_begin_is_not_left_running(make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise UserError("no")

    monkeypatch.setattr("ddarts_tuning.driver.sweep.fit", fit)
    config = make_sweep("stillborn", **FAST)
    with pytest.raises(UserError, match="no"):
        run_sweep(config)
    study = find_study(config.study_dir)
    assert (study.data["state"], parent(study)) == ("INTERRUPTED", "KILLED")


@pytest.mark.slow
def test_a_stopped_study_takes_over_how_its_trials_run(make_sweep: Make) -> None:
    """Stopped with one trial at a time, for want of cores; it goes on with two, the begun one among them."""
    tune = {**FAST["tune"], "num_samples": 2, "max_concurrent": None, "resources": {"cpu": 1.5}}
    settings: dict[str, Any] = {"search": {"epochs": 4}, "tracking": {"log_artifacts": False}}

    def stop(event: SweepEvent) -> None:
        assert event.kind != "epoch", "stopped"

    with pytest.raises(Exception, match="stopped"):
        run_sweep(make_sweep("freed", tune=tune, **settings), listener=stop)
    events: list[SweepEvent] = []
    corrected = make_sweep("freed", tune={**tune, "max_concurrent": 2, "resources": {"cpu": 1}}, **settings)
    done = extend_sweep(corrected, listener=events.append)
    assert [trial["state"] for trial in done.trials] == ["COMPLETED"] * 2
    assert done.study.data["config"]["tune"]["resources"]["cpu"] == 1
    steps = [1 if event.kind == "started" else -1 for event in events if event.kind in ("started", "finished")]
    assert max(accumulate(steps)) == 2
    [begun] = [event for event in events if event.kind == "started" and event.number == 0]
    assert (begun.epochs, begun.searched, begun.phase) == (1, 1, "search") and begun.accuracy is not None


@pytest.mark.parametrize("extended", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["ended", "extended"])
def test_a_time_budget_ends_a_study_that_can_be_extended(
    make_sweep: Make, monkeypatch: pytest.MonkeyPatch, extended: bool
) -> None:
    """It is spent after an epoch of the first trial, while the second waits for the cores; the third never begins."""
    now = [0.0]
    monkeypatch.setattr("ddarts_tuning.schedulers.time_budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("ddarts_tuning.searchers.searcher.may_wait", lambda config, cluster: True)
    tune = {**FAST["tune"], "num_samples": 3, "max_concurrent": 2, "resources": {"cpu": 1.5}}

    def pass_time(event: SweepEvent) -> None:
        now[0] += 100.0 * (event.kind == "epoch")

    name = f"timed-{extended}"
    budget = make_sweep(name, search={"epochs": 3}, tune={**tune, "time_budget_s": 100})
    study = run_sweep(budget, listener=pass_time).study
    trials = study.trials()
    assert study.state == "FINISHED" and [trial["state"] for trial in trials] == ["PRUNED"] * 2
    assert {trial["reason"] for trial in trials} == {"time budget of 100 s spent"}
    records = [read_jsonl(trial_dir(study.path, number) / "records.jsonl") for number in (0, 1)]
    assert [len(epochs) for epochs in records] == [2, 0]
    assert [added["num_samples"] for added in study.rounds] == [2]
    client = tracking.make_client(study.data["tracking_uri"])
    runs = client.search_runs([study.data["experiment_id"]])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED", "KILLED"]
    if not extended:
        return
    done = extend_sweep(make_sweep(name, search={"epochs": 3}, tune=tune), 1)
    assert not done.interrupted and done.study.trials()[:2] == trials
    assert [trial["state"] for trial in done.study.trials()] == ["PRUNED", "PRUNED", "COMPLETED"]
    journal = open_journal(study.path / "optuna.log", name, {"directions": ["maximize"]}).get_trials()
    assert [trial.state.name for trial in journal] == ["PRUNED", "PRUNED", "COMPLETE"]
