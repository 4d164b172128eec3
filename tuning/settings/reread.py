"""Which trials of a study still count when the study goes on with another space or other numbers of epochs.

A trial counts if the settings and the space of today could yield it. Then the searcher learns from the trial, with the
values that the trial has of today's parameters. The result is in study.json under `earlier`, by the trials'
identifiers: `params` for a trial that counts, and `apart` with the differing settings for a trial that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import leaves
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.settings.hashing import PLACES

from .budget import seconds_of, within
from .space import Space, trial_config
from .tune import TuneConfig, was_cut_short

EPOCHS = ("search.epochs", "search.warmup_epochs", "retrain.epochs")
"""Settings that may change when a study goes on, as its space and `BUDGET` may: how many epochs a trial is given."""

BUDGET = ("budget", "budget_amount")
"""Settings of `tune` that may change too when a study goes on: how much a trial's search is given."""


def reread(trial: Mapping[str, Any], space: Space, tune: TuneConfig, before: TuneConfig) -> dict[str, Any]:
    """What is noted of an earlier trial: `params`, or `apart` with the paths of settings.

    Args:
        trial: the record of the trial.
        space: the search space of today, with today's settings as its base.
        tune: the group `tune` of today.
        before: the group `tune` of the study until now, for trials whose files do not note their seconds.
    """
    if trial.get("contradiction"):  # its file has other settings than those that were drawn
        by_path = dict(space.distributions)
        lost = [
            path for path, value in trial["params"].items() if path not in by_path or not by_path[path].contains(value)
        ]
        return {"apart": lost} if lost else {"params": trial["params"]}
    own = resolve(trial["config"], model=ExperimentConfig).model_dump(mode="json")
    params, outside = space.read(own)
    try:
        today, _ = within(trial_config(space.base, params), tune)
    except UserError:
        return {"apart": outside or sorted(params)}
    wanted = dict(leaves(today.model_dump(mode="json")))
    had = dict(leaves(own))
    differing = {path for path in {*wanted, *had} - {*PLACES} if wanted.get(path) != had.get(path)}
    given = trial.get("budget_seconds", seconds_of(before))
    apart = [*outside, *sorted(differing), *([] if given == seconds_of(tune) else ["tune.budget_amount"])]
    return {"apart": apart} if apart else {"params": params}


def apart_of(study: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each trial that does not count, the settings that keep it from counting, by the trials' identifiers.

    Args:
        study: the contents of study.json.
    """
    return {name: found["apart"] for name, found in study.get("earlier", {}).items() if "apart" in found}


def as_today(study: Mapping[str, Any], trial: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of a trial with the values that it has of today's parameters; None if the trial does not count."""
    found = study.get("earlier", {}).get(trial["trial_id"], {})
    if "apart" in found:
        return None
    return {**trial, "params": found["params"]} if found else trial


def unvisited(space: Space, study: Mapping[str, Any], trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points of today's grid that no trial which counts has visited, in the order of the grid.

    A trial that was stopped because the time was spent has visited nothing.

    Args:
        space: the search space of today.
        study: the contents of study.json.
        trials: the records of the trials.
    """

    def values(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
        return frozenset(params.items())  # in which 1 is 1.0

    visited = {
        values(known["params"])
        for trial in trials
        if (known := as_today(study, trial)) is not None and not was_cut_short(trial)
    }
    return [point for point in space.grid() if values(point) not in visited]


def has_other_epochs(apart: Iterable[str]) -> bool:
    """Whether a trial was given more or fewer epochs, or another budget, than the trials of today.

    Args:
        apart: the settings that keep the trial from counting, see `apart_of`.
    """
    return bool({*apart} & {*EPOCHS, "tune.budget_amount"})
