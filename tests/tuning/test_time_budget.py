"""`tune.time_budget_s` without Ray: who is stopped, and when those that wait are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ddarts_tuning.schedulers.time_budget import TimeBudget


def test_all_trials_end_once_the_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("ddarts_tuning.schedulers.time_budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    budget = TimeBudget(10)
    assert not budget.is_spent()
    for name in ("runs", "over", "died"):
        budget.note(name, running=True)
    now[0] += 9.9
    assert not budget("runs", {"epochs": 1}) and not budget.stop_all()
    now[0] += 0.2
    assert budget.is_spent() and not budget.stop_all(), "each that runs ends with its epoch"
    assert budget("runs", {"epochs": 2}) and not budget.stop_all()
    assert not budget("over", {"epochs": 2, "done": True}), "by itself, at this very moment"
    budget.note("over", running=False)
    budget.note("died", running=False)
    assert budget.stop_all(), "now those that wait"
    assert [budget.stopped(name) for name in ("runs", "over", "died")] == [True, False, False]
    assert budget.reason == "time budget of 10 s spent"


def test_no_budget_is_never_spent() -> None:
    budget = TimeBudget(None)
    assert not budget.is_spent() and not budget("a", {"epochs": 1}) and not budget.stop_all() and not budget.reason
