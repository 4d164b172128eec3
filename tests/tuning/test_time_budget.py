"""`tune.time_budget_s` without Ray: what the scheduler around the scheduler decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tuning.config import SCHEDULERS, TuneConfig, resolve_sweep
from tuning.schedulers import SCHEDULER_FACTORIES
from tuning.time_budget import SPENT, TimeBudget, was_spent

SPACE = resolve_sweep({"space": {"search.lr": {"type": "float", "low": 0.001, "high": 0.3}}}).build_space()
SETTINGS = TuneConfig(time_budget_s=10)


def settings() -> TuneConfig:
    return SETTINGS


class Controller:
    """Ray's, as far as a scheduler asks."""

    def __init__(self, scheduler: Any, **trials: str) -> None:
        self._scheduler = scheduler
        self.finished = False
        self.search_alg = SimpleNamespace(set_finished=self._finish)
        self.trials = {
            name: SimpleNamespace(
                trial_id=name, status=status, last_result={"epochs": 3}, run_metadata=SimpleNamespace(last_result=None)
            )
            for name, status in trials.items()
        }
        self.ended: list[str] = []

    def _finish(self) -> None:
        self.finished = True

    def get_live_trials(self) -> list[Any]:
        return list(self.trials.values())

    def get_trials(self) -> list[Any]:
        return []

    def stop_trial(self, trial: Any) -> None:
        self.ended.append(trial.trial_id)
        if trial.status == Trial.RUNNING:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
        else:
            self._scheduler.on_trial_remove(self, trial)

    def reason(self, name: str) -> Any:
        return (self.trials[name].run_metadata.last_result or {}).get("reason")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found = [1000.0]
    monkeypatch.setattr("tuning.time_budget.time", SimpleNamespace(monotonic=lambda: found[0]))
    return found


def test_all_trials_end_once_the_time_is_spent(now: list[float]) -> None:
    scheduler = TimeBudget(FIFOScheduler(), settings)  # type: ignore[no-untyped-call]  # ray
    ray = Controller(scheduler, runs=Trial.RUNNING, over=Trial.RUNNING, waits=Trial.PENDING, paused=Trial.PAUSED)
    scheduler.choose_trial_to_run(ray)
    now[0] += 9.9
    assert scheduler.on_trial_result(ray, ray.trials["runs"], {"epochs": 1}) == TrialScheduler.CONTINUE
    scheduler.choose_trial_to_run(ray)
    assert not ray.ended and not ray.finished
    now[0] += 0.2
    assert scheduler.on_trial_result(ray, ray.trials["runs"], {"epochs": 2}) == TrialScheduler.STOP
    assert scheduler.choose_trial_to_run(ray) is None
    assert sorted(ray.ended) == ["paused", "waits"] and ray.finished
    ray.stop_trial(ray.trials["runs"])
    ray.stop_trial(ray.trials["over"])  # by itself, at this very moment
    assert [ray.reason(name) for name in ("runs", "waits", "paused")] == ["time budget of 10 s spent"] * 3
    assert ray.reason("over") is None


def test_a_resumed_sweep_has_the_time_anew_and_the_settings_of_now(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TimeBudget(FIFOScheduler(), settings)  # type: ignore[no-untyped-call]  # ray
    first.choose_trial_to_run(Controller(first))
    now[0] += 11
    pickled = cloudpickle.dumps(first)
    for seconds, spent_after in ((10, 10), (20, 20), (None, None)):
        monkeypatch.setattr(f"{__name__}.SETTINGS", TuneConfig(time_budget_s=seconds))
        again = cloudpickle.loads(pickled)
        ray = Controller(again)
        again.choose_trial_to_run(ray)
        assert not ray.finished
        now[0] += (spent_after or 1e9) - 1
        again.choose_trial_to_run(ray)
        assert not ray.finished
        now[0] += 2
        again.choose_trial_to_run(ray)
        assert ray.finished == (spent_after is not None)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_is_for_ray_what_the_other_is(name: str) -> None:
    other = SCHEDULER_FACTORIES[name](TuneConfig(num_samples=2), 9, 0, SPACE)
    around = TimeBudget(other, settings)
    assert around.metric == other.metric and around.debug_string() == other.debug_string()
    assert around.supports_buffered_results == other.supports_buffered_results
    overridden = {method for method in vars(TrialScheduler) if not method.startswith("_")} - {"save", "restore"}
    assert overridden <= set(vars(TimeBudget)) | {"CONTINUE", "PAUSE", "STOP", "NOOP"}


@pytest.mark.parametrize(
    ("budget", "seconds", "reasons", "expected"),
    [
        (10.0, 10.1, [None], True),
        (10.0, 3.0, [None, SPENT.format(10)], True),  # in the start before this one
        (10.0, 3.0, [None, "stopped by the scheduler after 1 epochs"], False),
        (None, 1e9, [None], False),
    ],
)
def test_whether_a_sweep_is_over(budget: float | None, seconds: float, reasons: list[Any], expected: bool) -> None:
    assert was_spent([{"reason": reason} for reason in reasons], TuneConfig(time_budget_s=budget), seconds) == expected
