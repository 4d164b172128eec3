"""More trials in a study that exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ddarts_core.errors import UserError
from ddarts_core.records import read_jsonl
from tuning import tracking
from tuning.config import ACCURACY, SweepConfig
from tuning.searcher import open_journal
from tuning.study import trial_dir
from tuning.sweep import check_same, extend_sweep, run_sweep

Make = Callable[..., SweepConfig]

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.filterwarnings("ignore")]

FAST: dict[str, Any] = {"search": {"epochs": 1}, "tune": {"num_samples": 4, "objective": "supernet"}}
HALVING: dict[str, Any] = {"scheduler": "asha", "grace_period": 1, "reduction_factor": 2}


def ends(trials: list[dict[str, Any]]) -> list[Any]:
    return [(trial["params"], trial["state"], trial["objectives"]) for trial in trials]


def test_two_and_two_are_the_four_of_an_undisturbed_sweep(make_sweep: Make) -> None:
    """The searcher goes on with what it knew: the same proposals and ends, every old trial untouched."""
    tune = {**FAST["tune"], **HALVING}
    whole = run_sweep(make_sweep("whole", search={"epochs": 2}, tune=tune))
    half = {"search": {"epochs": 2}, "tune": {**tune, "num_samples": 2}}
    first = run_sweep(make_sweep("halves", **half))
    before = {trial["trial_id"]: trial for trial in first.trials}
    done = extend_sweep(make_sweep("halves", **half))
    trials = done.study.trials()
    assert done.study.state == "FINISHED" and not done.interrupted and done.untracked == 0
    assert {trial["trial_id"]: trial for trial in trials if trial["trial_id"] in before} == before
    assert ends(trials) == ends(whole.study.trials())
    journal = open_journal(done.study.path / "optuna.log", "halves", {"directions": ["maximize"]}).get_trials()
    assert [trial.user_attrs["number"] for trial in journal] == [0, 1, 2, 3]
    client = tracking.make_client(done.study.data["tracking_uri"])
    runs = client.search_runs([done.study.data["experiment_id"]])
    assert len(runs) == 5 and {run.info.status for run in runs} == {"FINISHED"}
    assert done.study.data["config"]["tune"]["num_samples"] == 4


def test_other_settings_are_refused_and_new_trials_are_compared_with_old(make_sweep: Make) -> None:
    settings: dict[str, Any] = {"search": {"epochs": 2}, "tune": {**FAST["tune"], "num_samples": 1}}
    study = run_sweep(make_sweep("own", **settings)).study
    for groups, named in (
        ({**settings, "search": {"epochs": 3}}, "another search:"),
        ({**settings, "tune": {**settings["tune"], "second_objective": "macs"}}, "tune.second_objective"),
        ({**settings, "tune": {**settings["tune"], "searcher": "random"}}, "tune.searcher"),
        ({**settings, "space": {"alpha.lr": {"type": "float", "low": 0.1, "high": 0.2}}}, "space.ablation.loss, space"),
    ):
        with pytest.raises(UserError, match=named):
            extend_sweep(make_sweep("own", **groups))
    halving = make_sweep("own", **{**settings, "tune": {**settings["tune"], **HALVING, "num_samples": 9}})
    check_same(study, halving)
    # Had the first trial been perfect after an epoch, the second one would be stopped there.
    path = trial_dir(study.path, 0) / "records.jsonl"
    perfect = [record.to_dict() for record in read_jsonl(path)]
    for record in perfect:
        record["metrics"][ACCURACY] = 1.0
    path.write_text("".join(json.dumps(record) + "\n" for record in perfect))
    done = extend_sweep(halving, num_samples=1)
    assert [trial["state"] for trial in done.study.trials()] == ["COMPLETED", "PRUNED"]
    assert len(list(read_jsonl(trial_dir(study.path, 1) / "records.jsonl"))) == 1
