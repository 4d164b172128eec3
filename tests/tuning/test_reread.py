"""A study that goes on with another space or other numbers of epochs: which earlier trials count, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver import extending
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.driver.sweep import run_again
from ddarts_tuning.schedulers.early_stopping import SCHEDULER_FACTORIES, Earlier, remember
from ddarts_tuning.schedulers.time_budget import TimeBudget
from ddarts_tuning.searchers.journal import JOURNAL, Journal, open_journal
from ddarts_tuning.searchers.searcher import StudySearch, points_of
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.settings.distributions import Distribution
from ddarts_tuning.settings.reread import apart_of, reread, unvisited
from ddarts_tuning.settings.space import base_settings, build_space
from ddarts_tuning.settings.tune import ACCURACY, RECALIBRATED, SEARCH_EPOCH
from ddarts_tuning.store.study import Held, Study, trial_dir
from ddarts_tuning.trial.trial_record import begin, new_record
from pydantic import TypeAdapter

from ddarts_cli.sweeping import print_ranking
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.studies.study_files import read_json, write_json

LR = {"type": "float", "low": 0.01, "high": 0.1}
RATES = {"type": "categorical", "choices": [1, 0.05, 2]}
LOSS = {"type": "categorical", "choices": ["none", "centered"]}


def sweep(path: Path, space: dict[str, Any], **groups: Any) -> SweepConfig:
    named = {"name": path.name, "storage": str(path.parent)}
    tune = {"searcher": "random", "num_samples": 3, "points_to_evaluate": [{next(iter(space)): 0.05}]}
    return resolve_sweep({**named, "search": {"epochs": 2}, "space": space, "tune": tune, **groups})


@pytest.fixture
def study(study_path: Path) -> Study:
    """Finished, with three trials: lr 0.02 and 0.08 with one loss, 0.05 with the other."""
    config = sweep(study_path, {"search.lr": LR, "ablation.loss": LOSS})
    objectives = [{"metric": metric, "mode": mode} for metric, mode in config.tune.objectives]
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config), "objectives": objectives}
    made = create_study(study_path, {**stored, "state": "FINISHED"})
    for number, (lr, loss) in enumerate([(0.02, "none"), (0.08, "none"), (0.05, "centered")]):
        record = begin(made, number, {"search.lr": lr, "ablation.loss": loss})
        folder = trial_dir(study_path, number)
        ended = {"state": "COMPLETED", "objectives": {f"derived/{ACCURACY}": 0.5 + lr}}
        write_json(folder / "trial.json", {**record, **ended})
        write_jsonl(folder / "records.jsonl", [EpochRecord(0, "search", {ACCURACY: lr, RECALIBRATED: 4})])
    Journal(made)
    return made


def counts(study: Study, config: SweepConfig) -> tuple[Study, dict[int, dict[str, Any]]]:
    """The study with a round more, and the parameters that the searcher learns from, by number."""
    extending.check_same(study, config)
    added = extending._add_round(study, config, 2)
    stored = extending.stored_config(added)
    searcher = StudySearch(Held(added), stored, stored.build_space(), TimeBudget(None))
    searcher._look()
    return added, {number: trial.params for number, trial in searcher._ended.items()}


def test_bounds_that_moved_leave_those_within(study: Study) -> None:
    moved = {**LR, "low": 0.04, "high": 0.2}
    added, known = counts(study, sweep(study.path, {"search.lr": moved, "ablation.loss": LOSS}))
    assert known == {k: read_json(trial_dir(study.path, k) / "trial.json")["params"] for k in (1, 2)}
    assert apart_of(added.data) == {"00000": ["search.lr"]}
    Journal(added)
    trials = open_journal(added.path / JOURNAL, added.name, {"directions": ["maximize"]}).get_trials()
    assert [trial.number for trial in trials if trial.state.is_finished() and trial.params] == [1, 2]
    assert trials[0].user_attrs["apart"] == ["search.lr"] and trials[0].state.name == "FAIL"
    assert trials[1].distributions["search.lr"].high == 0.2  # type: ignore[attr-defined]  # a float's
    back, known = counts(added, sweep(study.path, {"search.lr": LR, "ablation.loss": LOSS}))
    assert [*known] == [0, 1, 2] and apart_of(back.data) == {}


def test_a_parameter_that_is_dropped_leaves_those_with_its_value(study: Study) -> None:
    _, known = counts(study, sweep(study.path, {"search.lr": LR}, ablation={"loss": "none"}))
    assert known == {0: {"search.lr": 0.02}, 1: {"search.lr": 0.08}}


def test_a_parameter_that_is_added_has_the_value_that_all_had(study: Study) -> None:
    cells: dict[str, Any] = {"type": "int", "low": 4, "high": 20}
    space = {"search.lr": LR, "ablation.loss": LOSS, "search.num_cells": cells}
    added, known = counts(study, sweep(study.path, space))
    had = read_json(trial_dir(study.path, 0) / "trial.json")["config"]["search"]["num_cells"]
    assert known[0] == {"search.lr": 0.02, "ablation.loss": "none", "search.num_cells": had} and len(known) == 3
    stored = extending.stored_config(added)
    assert points_of(added, stored.build_space()) == {}, "the point of before was given before"
    cells["low"] = had + 1
    _, known = counts(study, sweep(study.path, space))
    assert known == {}


def test_a_trial_whose_settings_contradict_each_other_has_none_of_the_base(study: Study) -> None:
    """A grid has visited what was drawn; run again, the trial gets what its parameters mean today, or fails again."""
    rates = {"search.lr": {**RATES, "choices": [0.05, 0.01]}, "search.lr_min": {**RATES, "choices": [0.02, 0.001]}}
    grid = {"searcher": "grid", "scheduler": "fifo"}
    config = sweep(study.path, rates, search={"lr": 0.05, "lr_min": 0.001}, tune=grid)
    data = {**study.data, "base": base_settings(config), "config": config.model_dump(mode="json")}
    drawn = {"search.lr": 0.01, "search.lr_min": 0.02}
    trial = {**new_record(0, drawn, data), "state": "FAILED"}
    assert "lr_min" in trial["reason"] and trial["config"]["search"]["lr_min"] == 0.001
    space = config.build_space()
    found = reread(trial, space, config.tune, config.tune)
    assert found == {"params": drawn}
    left = unvisited(space, {"earlier": {"00000": found}}, [trial])
    assert len(left) == 3 and drawn not in left and {"search.lr": 0.05, "search.lr_min": 0.001} in left
    few = TypeAdapter(Distribution).validate_python({**RATES, "choices": [0.001]})
    narrower = build_space({**config.space, "search.lr_min": few}, base_settings(config))
    assert reread(trial, narrower, config.tune, config.tune) == {"apart": ["search.lr_min"]}

    write_json(trial_dir(study.path, 0) / "trial.json", trial)
    own = read_json(trial_dir(study.path, 1) / "trial.json")
    write_json(trial_dir(study.path, 1) / "trial.json", {**own, "state": "FAILED", "reason": "its process died"})
    wider = sweep(study.path, rates, search={"lr": 0.05, "lr_min": 0.001, "epochs": 7}, tune=grid)
    assert run_again(study.update(base=base_settings(wider), config=wider.model_dump(mode="json"))) == 2
    contradictory, other = (read_json(trial_dir(study.path, k) / "trial.json") for k in (0, 1))
    assert contradictory["reason"] == trial["reason"] and contradictory["config"]["search"]["epochs"] == 7
    assert other == {**own, "state": "RUNNING", "reason": None, "tracked": False}
    mended = study.update(base=base_settings(sweep(study.path, rates, search={"lr": 0.05, "lr_min": 0.001}, tune=grid)))
    study.change_trial(0, state="FAILED", params={"search.lr_min": 0.02})
    run_again(mended)
    again = read_json(trial_dir(study.path, 0) / "trial.json")
    assert again["reason"] is None and again["config"]["search"]["lr_min"] == 0.02


def test_a_trial_of_other_epochs_that_runs_again_is_compared_with_nothing(study: Study) -> None:
    longer = sweep(study.path, {"search.lr": LR, "ablation.loss": LOSS}, search={"epochs": 3})
    added, _ = counts(study, longer)
    study.change_trial(1, state="RUNNING")
    scheduler = SCHEDULER_FACTORIES["asha"](longer.tune.model_copy(update={"reduction_factor": 2.0}), 3, 0)
    remember(scheduler, added)
    own, others = Earlier("own", {"number": 1}), [Earlier(f"other {k}", {"number": k}) for k in (3, 4, 5)]
    for trial, accuracy in zip([*others, own], (0.7, 0.8, 0.9, 0.1), strict=True):
        scheduler.on_trial_add(None, trial)
        decision = scheduler.on_trial_result(None, trial, {SEARCH_EPOCH: 1, ACCURACY: accuracy})
    assert decision == "CONTINUE"
    late = Earlier("late", {"number": 6})
    scheduler.on_trial_add(None, late)
    assert scheduler.on_trial_result(None, late, {SEARCH_EPOCH: 1, ACCURACY: 0.2}) == "STOP"


def test_a_point_that_a_trial_has_is_not_given_again(study: Study) -> None:
    moved = {**LR, "high": 0.2}
    config = sweep(study.path, {"search.lr": moved, "ablation.loss": LOSS}, tune={"searcher": "random"})
    given = [{"search.lr": 0.02}, {"search.lr": 0.15}]
    config = config.model_copy(update={"tune": config.tune.model_copy(update={"points_to_evaluate": given})})
    added = extending._add_round(study, config, 1)
    assert added.rounds[-1]["points_to_evaluate"] == [{"search.lr": 0.15}]


def test_settings_are_compared_as_they_are_in_force(study: Study) -> None:
    """An earlier version left out of a study what its method implies; and a space may gain or lose the images."""
    lean = {"search": {"epochs": 2}, "data": {"root": study.data["config"]["data"]["root"]}}
    older = study.update(base={**lean, "name": study.name, "storage": str(study.path.parent)})
    said = {"epochs": 2, "w_zero_one": 1.0}
    extending.check_same(older, sweep(study.path, {"search.lr": LR, "ablation.loss": LOSS}, search=said))
    with pytest.raises(UserError, match=r"another search.w_zero_one \(1.0 there, 2.0 now\)"):
        other = sweep(study.path, {"search.lr": LR, "ablation.loss": LOSS}, search={**said, "w_zero_one": 2.0})
        extending.check_same(older, other)
    roots = {"type": "categorical", "choices": [str(study.path), str(study.path.parent)]}
    space = {"search.lr": LR, "ablation.loss": LOSS, "data.root": roots}
    extending.check_same(older, sweep(study.path, space, data={"root": str(study.path)}))


def test_other_epochs_are_compared_with_nothing_in_silence(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    longer = sweep(study.path, {"search.lr": LR, "ablation.loss": LOSS}, search={"epochs": 3}, retrain={"epochs": 7})
    added, known = counts(study, longer)
    assert known == {}
    assert apart_of(added.data) == {f"{k:05d}": ["retrain.epochs", "search.epochs"] for k in range(3)}
    scheduler = SCHEDULER_FACTORIES["median"](longer.tune, 3, 0)
    scheduler.on_trial_add = None  # it would be called for a trial that it is told of
    assert remember(scheduler, added) == {}
    with pytest.raises(TypeError):
        remember(scheduler, study)
    record = begin(added, 3, {"search.lr": 0.03, "ablation.loss": "none"})
    assert (record["config"]["search"]["epochs"], record["config"]["retrain"]["epochs"]) == (3, 7)
    ended = {"state": "COMPLETED", "objectives": {f"derived/{ACCURACY}": 0.9}}
    for had, text in (({}, "3+7"), ({"searched_epochs": 2}, "2+7")):  # one that stopped by itself, or spent its seconds
        write_json(trial_dir(added.path, 3) / "trial.json", {**record, **ended, **had})
        print_ranking(added.ranked(), added.objectives, added.limits, apart_of(added.data))
        shown = capsys.readouterr().out
        first, *others = [line for line in shown.splitlines() if "completed" in line]
        assert f"│ {text} │" in " ".join(first.split())
        assert all("retrain.epochs, search.epochs" in line for line in others)
    assert "Trials had different numbers of epochs" in shown and "3 of 4 trials could not be of today's" in shown
    print_ranking(study.ranked()[1:], study.objectives)
    assert "epochs" not in capsys.readouterr().out


def test_other_seconds_are_compared_with_nothing_in_silence(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings do not tell trials apart that were given other seconds: what each was given is in its file."""
    space = {"search.lr": LR, "ablation.loss": LOSS}

    def given(**tune: Any) -> SweepConfig:
        return sweep(study.path, space, tune={"searcher": "random", "scheduler": "fifo", **tune})

    minute = given(budget="seconds", budget_amount=60)
    added, known = counts(study, minute)
    assert known == {} and apart_of(added.data) == {f"{k:05d}": ["tune.budget_amount"] for k in range(3)}
    remembered = SCHEDULER_FACTORIES["median"](given(scheduler="median").tune, 2, 0)
    remembered.on_trial_add = None  # it would be called for a trial that it is told of
    assert remember(remembered, added) == {}
    record = begin(added, 3, {"search.lr": 0.03, "ablation.loss": "none"})
    ended = {"state": "COMPLETED", "objectives": {f"derived/{ACCURACY}": 0.9}}
    write_json(trial_dir(added.path, 3) / "trial.json", {**record, **ended})
    print_ranking(added.ranked(), added.objectives, added.limits, apart_of(added.data))
    assert "Trials were given different tune.budget_amount" in capsys.readouterr().out
    same = extending._add_round(added, minute, 2)
    assert len(apart_of(same.data)) == 3
    longer, known = counts(added, given(budget="seconds", budget_amount=90))
    assert known == {} and len(apart_of(longer.data)) == 4
    back, known = counts(longer, given())
    assert [*known] == [0, 1, 2] and apart_of(back.data) == {"00003": ["tune.budget_amount"]}


def test_a_study_that_was_stopped_is_brought_to_its_end_first(study: Study) -> None:
    longer = sweep(study.path, {"search.lr": LR, "ablation.loss": LOSS}, search={"epochs": 3})
    study.update(state="INTERRUPTED")
    with pytest.raises(UserError, match=r"was stopped, and the file has another search\.epochs \(2 there, 3 now\)"):
        extending.extend_sweep(longer)


def test_a_grid_visits_the_points_that_no_trial_has_visited(study: Study) -> None:
    """Trials of another searcher may have visited some. With other epochs the grid visits all."""

    def grid(rates: list[float], epochs: int = 2) -> SweepConfig:
        space = {"search.lr": {"type": "categorical", "choices": rates}, "ablation.loss": LOSS}
        return sweep(study.path, space, search={"epochs": epochs}, tune={"searcher": "grid"})

    def proposed(config: SweepConfig, more: int) -> list[tuple[int, float, str]]:
        added = extending._add_round(study, config, more)
        points = points_of(added, extending.stored_config(added).build_space())
        return [(number, point["search.lr"], point["ablation.loss"]) for number, point in points.items()]

    three = grid([0.02, 0.08, 0.05])
    extending.check_same(study, three)
    assert extending.num_more(study, three) == 3 and extending.num_more(study, three, 2) == 2
    assert proposed(three, 3) == [(3, 0.02, "centered"), (4, 0.08, "centered"), (5, 0.05, "none")]
    assert extending.num_more(study, grid([0.02, 0.08, 0.05, 0.01])) == 5
    assert extending.num_more(study, grid([0.02, 0.08, 0.05], epochs=3)) == 6
    assert [number for number, *_ in proposed(grid([0.02, 0.08, 0.05], epochs=3), 6)] == [3, 4, 5, 6, 7, 8]
    with pytest.raises(UserError, match="cannot get 4 trials more: its grid has 6 points, 3 of them visited"):
        extending.num_more(study, three, 4)
    stopped = extending._add_round(study, three, 2)  # two of the three points that are left
    assert extending.num_more(stopped, three) == 0 and extending.num_more(stopped, three, 1) == 1
    with pytest.raises(UserError, match="cannot get 2 trials more: its grid has 6 points, 5 of them visited"):
        extending.num_more(stopped, three, 2)
    study.update(state="INTERRUPTED")
    with pytest.raises(
        UserError, match=r"was stopped, .*tune\.searcher \(random there, grid now\): bring it to its end"
    ):
        extending.extend_sweep(three, 2)


def test_a_point_is_visited_however_its_numbers_are_written_but_not_if_the_time_was_spent(study: Study) -> None:
    space = build_space({"search.lr": TypeAdapter(Distribution).validate_python(RATES)}, {})
    trials = [
        {"trial_id": "00000", "params": {"search.lr": 1.0}, "reason": None},
        {"trial_id": "00001", "params": {"search.lr": 0.05}, "reason": "stopped by the scheduler after 1 epochs"},
        {"trial_id": "00002", "params": {"search.lr": 2.0}, "reason": "time budget of 4 s spent"},
    ]
    assert unvisited(space, {}, trials) == [{"search.lr": 2}]


def test_a_choice_is_read_however_it_is_written(study: Study) -> None:
    """YAML takes 5e-2 for a text; a trial has the number."""
    space = {"search.lr": {"type": "categorical", "choices": ["5e-2", 0.02]}, "ablation.loss": LOSS}
    config = sweep(study.path, space, tune={"searcher": "grid"})
    assert config.build_space().read({"search": {"lr": 0.05}, "ablation": {"loss": "none"}})[1] == []
    assert extending.num_more(study, config) == 2  # of four points two are those of trials 0 and 2
    added, known = counts(study, config)
    assert known[2]["search.lr"] == "5e-2" and apart_of(added.data) == {"00001": ["search.lr"]}
