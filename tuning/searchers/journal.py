"""Optuna's journal of a study: a copy of what the trials' folders say of those that ended, for Optuna's own tools.

Nothing that a sweep does follows from it, and it can be made again at any time (`ddarts rebuild STUDY --optuna`).
"""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ddarts_core.limits import excess

from ..settings import space as spaces
from ..settings.budget import tune_of
from ..settings.config import TuneConfig, supernet_metric
from ..settings.reread import as_today
from ..settings.space import read_distributions
from ..store.study import Study, trial_dir
from ..trial.trial_record import stored_reports

STATES = {"COMPLETED": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL}

JOURNAL = "optuna.log"


class Ended(FrozenTrial):
    """A trial that ended. Optuna copies trials with all that is in them, a millisecond each; this one never changes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Ended:
        return copy.copy(self)


def frozen(
    trial: Mapping[str, Any],
    distributions: Mapping[str, spaces.AnyDistribution],
    tune: TuneConfig,
    accuracies: Sequence[float],
) -> FrozenTrial:
    """A trial that ended, as Optuna sees it.

    Args:
        trial: its record (trial.json).
        distributions: of its parameters.
        tune: objectives and limits of the sweep.
        accuracies: the supernet's after each epoch. Optuna takes none when there are two objectives.
    """
    state, objectives = STATES[trial["state"]], tune.objectives
    complete = state == TrialState.COMPLETE
    begun = datetime.datetime.fromisoformat(trial["begun"])
    notes = dict(trial.get("searcher", {}))
    limits = tune.limits.model_dump()
    if complete and any(limits.values()):  # where samplers and Optuna's own tools look: at most 0 is within
        notes["constraints"] = [*excess(trial["cost"], limits).values()]
    steps = dict(enumerate(accuracies, start=1)) if len(objectives) == 1 else {}
    return Ended(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=[float(trial["objectives"][metric]) for metric, _ in objectives] if complete else None,
        datetime_start=begun,
        datetime_complete=begun + datetime.timedelta(seconds=trial["seconds"]),
        params=dict(trial["params"]),
        distributions={path: optuna_distribution(distributions[path]) for path in trial["params"]},
        user_attrs={"number": trial["number"], "trial_id": trial["trial_id"]},
        system_attrs=notes,
        intermediate_values=steps,
    )


def optuna_distribution(distribution: spaces.AnyDistribution) -> BaseDistribution:
    """The same in Optuna's words."""
    if isinstance(distribution, spaces.CategoricalDistribution):
        return CategoricalDistribution(distribution.choices)
    if isinstance(distribution, spaces.IntDistribution):
        return IntDistribution(distribution.low, distribution.high, distribution.log, distribution.step)
    return FloatDistribution(distribution.low, distribution.high, distribution.log, distribution.step)


def directions(objectives: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of a study, as `optuna.create_study` takes them."""
    names = {"max": "maximize", "min": "minimize"}
    return {"directions": [names[mode] for _, mode in objectives]}


def open_journal(path: Path, name: str, directions: Mapping[str, Any]) -> optuna.Study:
    """The persistent study, made if there is none; half a line that a kill or a full disk left is cut off."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **directions)


class Journal:
    """The journal of a study while its sweep runs.

    Args:
        study: held by this process.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._space = distributions_of(study)
        self._optuna = open_journal(study.path / JOURNAL, study.name, directions(study.objectives))
        there = self._optuna.get_trials(deepcopy=False)
        self._numbers = {trial.user_attrs["number"] for trial in there}
        for trial in study.trials():
            if trial["state"] in STATES:
                self.add(trial)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Note a trial that ended, once, if it counts for those of today."""
        known = as_today(self._study.data, trial)
        if trial["number"] in self._numbers or known is None:
            return
        metric = supernet_metric(self._study.data["config"]["tune"])
        reports = stored_reports(trial_dir(self._study.path, trial["number"]), metric)
        accuracies = [report[metric] for report in reports]
        self._optuna.add_trial(frozen(known, self._space, tune_of(self._study.data), accuracies))
        self._numbers.add(trial["number"])


def distributions_of(study: Study) -> dict[str, spaces.AnyDistribution]:
    """The distributions of a study's space, by path."""
    return read_distributions(study.data["config"]["space"])
