"""Schedulers: what they stop, and that a trial's bracket does not depend on when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.schedulers.early_stopping import SCHEDULER_FACTORIES, brackets, remember
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.settings.tune import ACCURACY, RECALIBRATED, SCHEDULERS, SEARCH_EPOCH, TuneConfig
from ddarts_tuning.store.study import Study, trial_dir
from ddarts_tuning.trial.trial_record import reports_of
from ray.tune.experiment import Trial

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.studies.study_files import write_json

SETTINGS = TuneConfig(scheduler="hyperband", grace_period=1, reduction_factor=3)


NO_CHECKPOINTS = SimpleNamespace(
    checkpoint_manager=SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
)


@dataclass(frozen=True)
class FakeTrial:
    trial_id: str
    config: dict[str, int] = field(hash=False)
    last_result: dict[str, float] | None = None
    latest_checkpoint_result: None = None
    experiment_tag: str = ""
    run_metadata: Any = field(default_factory=lambda: NO_CHECKPOINTS, hash=False)


def trial(number: int) -> Any:
    return FakeTrial(f"ray{number}", {"number": number})


def placed(scheduler: Any, numbers: list[int]) -> dict[int, int]:
    for number in numbers:
        scheduler.on_trial_add(None, trial(number))
    return {n: scheduler._brackets.index(scheduler._trial_info[f"ray{n}"]) for n in numbers}


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 1), (3, 2), (9, 3), (26, 3), (27, 4)])
def test_as_many_brackets_as_rungs(epochs: int, expected: int) -> None:
    assert brackets(SETTINGS, epochs) == expected
    scheduler = SCHEDULER_FACTORIES["hyperband"](SETTINGS, epochs, 0)
    assert all(bracket._rungs for bracket in scheduler._brackets)


def test_a_trials_bracket_follows_from_the_seed_and_its_number() -> None:
    numbers = list(range(60))
    first = placed(SCHEDULER_FACTORIES["hyperband"](SETTINGS, 27, 1), numbers)
    assert first == placed(SCHEDULER_FACTORIES["hyperband"](SETTINGS, 27, 1), numbers[::-1])
    assert first != placed(SCHEDULER_FACTORIES["hyperband"](SETTINGS, 27, 2), numbers)
    counts = [list(first.values()).count(bracket) for bracket in range(4)]
    assert counts[0] > counts[1] > counts[3]


def test_a_later_bracket_spares_a_trial_that_the_first_stops() -> None:
    """Two trials of each bracket report 0.9 and 0.1 after one epoch: only the first bracket stops the worse one."""
    scheduler = SCHEDULER_FACTORIES["hyperband"](SETTINGS, 9, 0)
    places = placed(scheduler, list(range(40)))
    for bracket in range(3):
        good, bad = [number for number, place in places.items() if place == bracket][:2]
        scheduler.on_trial_result(None, trial(good), {SEARCH_EPOCH: 1, ACCURACY: 0.9})
        action = scheduler.on_trial_result(None, trial(bad), {SEARCH_EPOCH: 1, ACCURACY: 0.1})
        assert action == ("STOP" if bracket == 0 else "CONTINUE")


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_trials_are_compared_by_the_metric_that_is_sought(name: str) -> None:
    settings = TuneConfig(scheduler=name, metric="balanced_accuracy", grace_period=1, reduction_factor=2)
    scheduler = SCHEDULER_FACTORIES[name](settings, 4, 0)
    assert scheduler.metric == "held_out/balanced_accuracy"
    records = [EpochRecord(0, "search", {ACCURACY: 0.9, scheduler.metric: 0.2}), EpochRecord(0, "retrain", {})]
    assert list(reports_of(records, scheduler.metric)) == [{scheduler.metric: 0.2, SEARCH_EPOCH: 1}] * 2


#: Accuracies of trials, epoch by epoch; the first four belong to a study that is extended.
CURVES = [[0.3, 0.5, 0.6], [0.4, 0.5, 0.7], [0.2, 0.3, 0.3], [0.5, 0.6, 0.7]]
CURVES += [[0.1, 0.2, 0.9], [0.35, 0.4, 0.4], [0.6, 0.9, 0.9], [0.45, 0.5, 0.65]]


def run_trials(scheduler: Any, numbers: range) -> dict[int, int]:
    """Epochs that each trial comes to, one after the other, as Ray tells a scheduler of them."""
    controller = SimpleNamespace(get_live_trials=list)
    epochs = {}
    for number in numbers:
        scheduler.on_trial_add(controller, trial(number))
        for epoch, accuracy in enumerate(CURVES[number], 1):
            report = {SEARCH_EPOCH: epoch, ACCURACY: accuracy}
            epochs[number] = epoch
            if epoch == len(CURVES[number]):
                scheduler.on_trial_complete(controller, trial(number), report)
            elif scheduler.on_trial_result(controller, trial(number), report) == "STOP":
                break
    return epochs


def write_end(study: Study, number: int, state: str) -> None:
    data = {"trial_id": f"{number:05d}", "number": number, "state": state, "params": {}, "config": {}, "seconds": 0.0}
    data["schema"] = 1
    write_json(trial_dir(study.path, number) / "trial.json", data | dict.fromkeys(("cost", "reason", "objectives")))


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_a_trial_that_goes_on_is_compared_as_if_nobody_had_been_killed(name: str, study_path: Path) -> None:
    """Three have ended and two have done an epoch when the sweep is killed; decisions are those without the kill."""
    config = TuneConfig(scheduler=name, grace_period=1, reduction_factor=2)
    study = create_study(study_path, {"config": {"tune": {"num_samples": 5}}, "objectives": []})
    curves = [[0.3, 0.5, 0.6], [0.4, 0.5, 0.7], [0.5, 0.6, 0.7], [0.45, 0.1, 0.1], [0.6, 0.9, 0.9]]
    controller = SimpleNamespace(get_live_trials=list)

    def report(scheduler: Any, number: int, epochs: int) -> str:
        told = {SEARCH_EPOCH: epochs, ACCURACY: curves[number][epochs - 1]}
        return str(scheduler.on_trial_result(controller, trial(number), told))

    calm, resumed = (SCHEDULER_FACTORIES[name](config, 3, 0) for _ in range(2))
    for number in range(5):
        calm.on_trial_add(controller, trial(number))
        for epochs in (1, 2) if number < 3 else (1,):
            report(calm, number, epochs)
        if number < 3:
            calm.on_trial_complete(controller, trial(number), {SEARCH_EPOCH: 3, ACCURACY: curves[number][2]})
        records = [
            EpochRecord(e, "search", {ACCURACY: curves[number][e], RECALIBRATED: 4.0})
            for e in range(3 if number < 3 else 1)
        ]
        write_end(study, number, "COMPLETED" if number < 3 else "RUNNING")
        write_jsonl(trial_dir(study.path, number) / "records.jsonl", records)
    remember(resumed, study)
    for number in (3, 4):
        resumed.on_trial_add(controller, trial(number))
    expected = [report(calm, number, epochs) for number in (3, 4) for epochs in (2, 3)]
    assert [report(resumed, number, epochs) for number in (3, 4) for epochs in (2, 3)] == expected
    assert "STOP" in expected


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_kill_before_a_trial_is_stopped_stops_it_when_the_sweep_goes_on(name: str, study_path: Path) -> None:
    """Three have ended and two have done an epoch of which nobody was told: the one that is behind is stopped."""
    study = create_study(study_path, {"config": {"tune": {"num_samples": 5}}, "objectives": []})
    for number, curve in enumerate([[0.3, 0.5], [0.4, 0.5], [0.5, 0.6], [0.1], [0.9]]):
        write_end(study, number, "COMPLETED" if number < 3 else "RUNNING")
        records = [
            EpochRecord(e, "search", {ACCURACY: accuracy, RECALIBRATED: 4.0}) for e, accuracy in enumerate(curve)
        ]
        write_jsonl(trial_dir(study.path, number) / "records.jsonl", records)
    config = TuneConfig(scheduler=name, grace_period=1, reduction_factor=2)
    assert remember(SCHEDULER_FACTORIES[name](config, 3, 0), study) == {3: 1}


@pytest.mark.parametrize("before", ["asha", "hyperband", "median", "fifo"])
@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "fifo"])
def test_trials_that_are_added_are_compared_with_those_of_before(name: str, before: str, study_path: Path) -> None:
    """As by a scheduler that saw all trials, whichever stopped the first ones; one that knows none stops fewer."""

    def make(name: str) -> Any:
        config = TuneConfig(scheduler=name, grace_period=1, reduction_factor=2)
        return SCHEDULER_FACTORIES[name](config, 3, 0)

    study = create_study(study_path, {"config": {"tune": {"num_samples": 8}}, "objectives": []})
    whole, extended = make(before), make(name)
    for number, epochs in run_trials(whole, range(4)).items():
        records = [
            EpochRecord(epoch, "search", {ACCURACY: CURVES[number][epoch], RECALIBRATED: 4.0})
            for epoch in range(epochs)
        ]
        write_end(study, number, "COMPLETED")
        write_jsonl(trial_dir(study.path, number) / "records.jsonl", records)
    remember(extended, study)
    found = run_trials(extended, range(4, 8))
    if name == before:
        assert found == run_trials(whole, range(4, 8))
    ignorant = run_trials(make(name), range(4, 8))
    assert found == ignorant if name == "fifo" else sum(found.values()) < sum(ignorant.values())


@pytest.mark.parametrize("number", [0.0, None], ids=["running", "before there was a choice"])
def test_trials_scored_by_running_statistics_are_no_measure(number: float | None, study_path: Path) -> None:
    """They lag: one that is scored by its weights' own statistics is not compared with them."""
    study = create_study(
        study_path,
        {"config": {"tune": {"num_samples": 8}}, "objectives": []},
    )
    metrics = {ACCURACY: 0.99} | ({} if number is None else {RECALIBRATED: number})
    write_end(study, 0, "COMPLETED")
    write_jsonl(trial_dir(study.path, 0) / "records.jsonl", [EpochRecord(0, "search", metrics)])
    scheduler = SCHEDULER_FACTORIES["asha"](TuneConfig(grace_period=1), 3, 0)
    remember(scheduler, study)
    scheduler.on_trial_add(None, trial(1))
    assert scheduler.on_trial_result(None, trial(1), {SEARCH_EPOCH: 1, ACCURACY: 0.5}) == "CONTINUE"


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize(
    "lagging",
    [
        {"search": {"recalibration_batches": 0}},
        {"space": {"search.recalibration_batches": {"type": "int", "low": 0, "high": 100}}},
        {"space": {"search.recalibration_batches": {"type": "categorical", "choices": [4, 0]}}},
    ],
)
def test_no_scheduler_ranks_by_running_statistics(scheduler: str, lagging: dict[str, Any]) -> None:
    settings = {"space": {"search.lr": {"type": "float", "low": 0.001, "high": 0.3}}, "tune": {"scheduler": scheduler}}
    if scheduler == "fifo":
        resolve_sweep(settings | lagging)
        return
    words = rf"search.recalibration_batches 0 scores by running .* tune.scheduler {scheduler} .* scheduler fifo"
    with pytest.raises(UserError, match=words):
        resolve_sweep(settings | lagging)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_no_scheduler_stops_the_only_trial(name: str) -> None:
    config = TuneConfig(scheduler=name)
    scheduler = SCHEDULER_FACTORIES[name](config, 5, 0)
    controller = SimpleNamespace(get_trials=lambda: [], get_live_trials=lambda: [], trial=None, search_alg=None)
    scheduler.on_trial_add(controller, trial(0))
    report = {SEARCH_EPOCH: 1, ACCURACY: 0.5, "time_total_s": 1.0}
    assert scheduler.on_trial_result(controller, trial(0), report) == "CONTINUE"


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "fifo"])
def test_no_trial_waits_for_others_to_begin(name: str) -> None:
    """With those that wait for a place, the first ones would pause and lose their processes."""
    scheduler = SCHEDULER_FACTORIES[name](TuneConfig(scheduler=name, grace_period=1), 5, 0)
    waiting = [SimpleNamespace(status=Trial.PENDING), SimpleNamespace(status=Trial.PAUSED)]
    controller = SimpleNamespace(get_live_trials=lambda: waiting)
    for number in range(3):
        scheduler.on_trial_add(controller, trial(number))
        for epoch in range(1, 4):
            report = {SEARCH_EPOCH: epoch, ACCURACY: 0.5}
            assert scheduler.on_trial_result(controller, trial(number), report) == "CONTINUE"
