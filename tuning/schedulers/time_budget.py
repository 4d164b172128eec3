"""`tune.time_budget_s`: all trials end once the time is spent.

Ray's own budget ends a sweep as a kill does: nobody is told that the trials ended. Here a trial that runs is stopped
after the epoch that it is in, as a scheduler stops a trial that is behind. Trials that wait for a place end at once
(see `sweep.run`), and no further trial begins.
"""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from ..settings.tune import TIME_SPENT


class TimeBudget(tune.Stopper):
    """A budget of seconds, which count from the first time that it is asked. Each run of a sweep has its own budget.

    Args:
        seconds: how long the trials may run; None sets no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._running: set[str] = set()
        self._stopped: set[str] = set()

    def is_spent(self) -> bool:
        """Whether the time is over."""
        if self._until is None:
            self._until = time.monotonic() + (float("inf") if self._seconds is None else self._seconds)
        return time.monotonic() >= self._until

    @property
    def reason(self) -> str:
        """Why a trial was stopped."""
        return "" if self._seconds is None else TIME_SPENT.format(self._seconds)

    def note(self, trial_id: str, running: bool) -> None:
        """Note that a trial has got a process, or has none any more."""
        (self._running.add if running else self._running.discard)(trial_id)

    def stopped(self, trial_id: str) -> bool:
        """Whether a trial was stopped because the time was spent."""
        return trial_id in self._stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial that has just done an epoch is stopped after this epoch."""
        if self.is_spent() and not result.get("done"):
            self._stopped.add(trial_id)
            return True
        return False

    def stop_all(self) -> bool:
        """Whether the trials that wait for a place end: they do once the time is over and no trial runs any more."""
        return self.is_spent() and self._running <= self._stopped
