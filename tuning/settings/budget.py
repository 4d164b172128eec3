"""`tune.budget`: what every trial's search is given alike: epochs, multiply-adds, or seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ddarts_core.ground import plugins
from ddarts_core.ground.validation import validate
from ddarts_core.loops.records import EpochRecord, stage
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import ExperimentConfig

from .config import check_seconds
from .tune import TuneConfig


def within(config: ExperimentConfig, tune: TuneConfig) -> tuple[ExperimentConfig, int | None]:
    """A trial's configuration within the budget, and the multiply-adds of its search where those were counted.

    Raises:
        UserError: the trial's search has no meaning within the budget.
    """
    if tune.budget == "multiply-adds":
        from ddarts_core.estimates.search_cost import afforded

        assert tune.budget_amount is not None
        return afforded(config, tune.budget_amount)
    if tune.budget == "seconds":
        check_seconds(config)
    return config, None


def seconds_of(tune: TuneConfig) -> float | None:
    """What every search is given in wall time; None where it is given something else.

    Such a trial has the settings of one without a budget: its file notes these seconds, `budget_seconds`.
    """
    return tune.budget_amount if tune.budget == "seconds" else None


class Clock:
    """Whether the seconds of a search are spent: those of its recorded epochs, whichever process ran them.

    Args:
        config: of the trial.
        tune: of the sweep.
    """

    def __init__(self, config: ExperimentConfig, tune: TuneConfig) -> None:
        self._seconds = seconds_of(tune)
        course = Course(config)
        # In a warm-up nothing is found: the stage that finds has an epoch at least.
        self._least = course.num_epochs - course.stages[-1].epochs + 1

    def is_spent(self, records: Iterable[EpochRecord]) -> bool:
        """Whether the seconds are spent after the last of these epochs."""
        searched = [record for record in records if not stage(record.phase)]
        if self._seconds is None or len(searched) < self._least:
            return False
        return search_seconds(searched) >= self._seconds


def search_seconds(records: Iterable[EpochRecord]) -> float:
    """Wall time of the search's epochs."""
    return sum(sum(record.seconds.values()) for record in records if not stage(record.phase))


def tune_of(study: Mapping[str, Any]) -> TuneConfig:
    """Settings of a study's `study.json`; one of before lacks those that came later.

    Raises:
        UserError: its searcher is that of a plug-in that is not loaded.
    """
    with plugins.needed(study.get("plugins", ()), f"study {study.get('name')!r}"):
        tune: TuneConfig = validate(TuneConfig, study["config"]["tune"], "tune")
    return tune
