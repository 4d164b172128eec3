"""Trials of a study that goes on with another space or other numbers of epochs: which of them count for the new ones.

A trial counts if the settings and the space of today could yield it: then the searcher learns from it, with the values
that it has of today's parameters. What was found is in study.json under `earlier`, by the trials' identifiers: `params`
of one that counts, or under `apart` the settings by which it does not.
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
from .tune import TuneConfig

EPOCHS = ("search.epochs", "search.warmup_epochs", "retrain.epochs")
"""What a study may go on with otherwise, beside its space and `BUDGET`: how much each trial is given."""

BUDGET = ("budget", "budget_amount")
"""Settings of `tune` of the same kind."""


def reread(trial: Mapping[str, Any], space: Space, tune: TuneConfig, before: TuneConfig) -> dict[str, Any]:
    """What is noted of an earlier trial: `params`, or `apart` with the paths of settings.

    Args:
        trial: its record.
        space: of today, with today's settings as its base.
        tune: of today.
        before: that of the study until now, for trials that do not note their seconds.
    """
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
    """The settings by which trials do not count, by the trials' identifiers.

    Args:
        study: contents of study.json.
    """
    return {name: found["apart"] for name, found in study.get("earlier", {}).items() if "apart" in found}


def as_today(study: Mapping[str, Any], trial: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of a trial with its values of today's parameters; None of one that does not count."""
    found = study.get("earlier", {}).get(trial["trial_id"], {})
    if "apart" in found:
        return None
    return {**trial, "params": found["params"]} if found else trial


def has_other_epochs(apart: Iterable[str]) -> bool:
    """Whether a trial was given more or less than those of today."""
    return bool({*apart} & {*EPOCHS, "tune.budget_amount"})
