"""`tune.time_budget_s`: a scheduler that ends all trials once the time is spent.

Ray's own budget ends a sweep as a kill does: no trial is told to anybody. Here every trial that is not over is stopped
like one that is behind: the searcher, the study's folder and MLflow learn of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from .config import TuneConfig

SPENT = "time budget of {:g} s spent"
"""The reason of a trial that was stopped."""


class TimeBudget(TrialScheduler):
    """Another scheduler while there is time; then a trial ends after the epoch that it is in, and none begins.

    The time counts from the first step of each start of the sweep: one that is resumed has it anew.

    Args:
        scheduler: decides while there is time.
        settings: gives the study's as they are now.
    """

    def __init__(self, scheduler: Any, settings: Callable[[], TuneConfig]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ray
        self._scheduler = scheduler
        self._settings = settings
        self._until: float | None = None
        self._reason = ""
        self._stopped: set[str] = set()

    def _is_spent(self) -> bool:
        if self._until is None:
            seconds = self._settings().time_budget_s
            self._until = time.monotonic() + (float("inf") if seconds is None else seconds)
            self._reason = "" if seconds is None else SPENT.format(seconds)
        return time.monotonic() >= self._until

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The other's choice; nobody, once the time is spent: then those that wait end here."""
        if not self._is_spent():
            return self._scheduler.choose_trial_to_run(tune_controller)
        tune_controller.search_alg.set_finished()
        for trial in [t for t in tune_controller.get_live_trials() if t.status in (Trial.PENDING, Trial.PAUSED)]:
            self._note(trial)
            tune_controller.stop_trial(trial)
        return None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The other's decision on a trial that has done an epoch; its end, once the time is spent."""
        if self._is_spent():
            self._stopped.add(trial.trial_id)
            return str(TrialScheduler.STOP)
        return str(self._scheduler.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial that ran ends, by itself or stopped."""
        if trial.trial_id in self._stopped:
            self._note(trial)
        self._scheduler.on_trial_complete(tune_controller, trial, result)

    def _note(self, trial: Any) -> None:
        """Let the callbacks know why."""
        trial.run_metadata.last_result = {**(trial.last_result or {}), "reason": self._reason}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new, or brought back."""
        self._scheduler.on_trial_add(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A trial that waited ends."""
        self._scheduler.on_trial_remove(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's process died."""
        self._scheduler.on_trial_error(tune_controller, trial)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Ray's, for the other."""
        return bool(self._scheduler.set_search_properties(metric, mode, **spec))

    @property
    def metric(self) -> Any:
        """What the other compares."""
        return self._scheduler.metric

    @property
    def supports_buffered_results(self) -> bool:
        """Whether the other does with several epochs at a time."""
        return bool(self._scheduler.supports_buffered_results)

    def debug_string(self) -> str:
        """The other's."""
        return str(self._scheduler.debug_string())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_until": None, "_stopped": set()}


def was_spent(trials: Iterable[Mapping[str, Any]], config: TuneConfig, seconds: float) -> bool:
    """Whether a sweep without a trial that runs is over because its time is, in this start or in the one before.

    Args:
        trials: of the study.
        config: of the sweep.
        seconds: that it ran.
    """
    budget = config.time_budget_s
    if budget is None:
        return False
    return seconds >= budget or any(trial["reason"] == SPENT.format(budget) for trial in trials)
