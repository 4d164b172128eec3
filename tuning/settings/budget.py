"""`tune.budget`: the search of every trial is given the same amount of epochs, of multiply-adds, or of seconds."""

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
    """A trial's configuration within the budget, and the multiply-adds of its search; None if they are not counted.

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
    """The wall time in seconds that every search is given; None if the budget is not one of seconds.

    A trial with such a budget has the settings of a trial without one; its file notes the seconds as `budget_seconds`.
    """
    return tune.budget_amount if tune.budget == "seconds" else None


class Clock:
    """Tells whether a search has spent its seconds: all its recorded epochs count, whichever process ran them.

    Args:
        config: the configuration of the trial.
        seconds: the seconds of the trial; None if its budget is not one of seconds.
    """

    def __init__(self, config: ExperimentConfig, seconds: float | None) -> None:
        self._seconds = seconds
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
    """The group `tune` of a study's `study.json`. An earlier study may lack settings that were added later.

    Raises:
        UserError: the study's searcher comes from a plug-in that is not loaded.
    """
    with plugins.needed(study.get("plugins", ()), f"study {study.get('name')!r}"):
        tune: TuneConfig = validate(TuneConfig, study["config"]["tune"], "tune")
    return tune
