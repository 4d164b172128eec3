"""`tune.time_budget_s`: all trials end once the time is spent.

Ray's own budget ends a sweep as a kill does: no trial is told to anybody. Here a trial that runs is stopped after the
epoch that it is in, like one that is behind; those that wait for a place end at once (see `sweep.run`), and no other
begins.
"""

from __future__ import annotations

import time
from typing import Any

from ray import tune

SPENT = "time budget of {:g} s spent"
"""The reason of a trial that was stopped."""


class TimeBudget(tune.Stopper):
    """Seconds that count from the first question. Each run of a sweep has one of its own.

    Args:
        seconds: None is without an end.
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
        return "" if self._seconds is None else SPENT.format(self._seconds)

    def note(self, trial_id: str, running: bool) -> None:
        """Note that a trial has got a process, or has none any more."""
        (self._running.add if running else self._running.discard)(trial_id)

    def stopped(self, trial_id: str) -> bool:
        """Whether a trial was stopped for this."""
        return trial_id in self._stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial that has done an epoch ends with it."""
        if self.is_spent() and not result.get("done"):
            self._stopped.add(trial_id)
            return True
        return False

    def stop_all(self) -> bool:
        """Whether waiting trials end: when the time is over and no trial runs any more."""
        return self.is_spent() and self._running <= self._stopped
