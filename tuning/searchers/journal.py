"""Optuna's journal of a study: a copy of what the trials' folders say, for Optuna's own tools.

In the journal a trial has the number that it has in the study. So when a trial ends, all trials that were proposed
before it get their places too: as RUNNING if they still run, and as a failure without parameters, which says why, if
they do not count for today's space. Nothing that a sweep does follows from the journal, and the journal can be made
again at any time (`ddarts rebuild STUDY --optuna`).
"""

from __future__ import annotations

import datetime
import os
import warnings
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
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from ddarts_core.studies.limits import excess
from ddarts_core.studies.study_files import read_json

from ..settings import distributions as kinds
from ..settings.budget import tune_of
from ..settings.distributions import read_distributions
from ..settings.reread import apart_of, as_today
from ..settings.tune import TuneConfig, supernet_metric
from ..store.study import Study, end_of, trial_dir, trial_name
from ..trial.trial_record import stored_reports

STATES = {"COMPLETED": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL}

JOURNAL = "optuna.log"


class Ended(FrozenTrial):
    """A trial that ended, and so never changes: a deep copy of it is a shallow one, and it is valid if it ever was.

    Optuna copies and validates trials deeply when they are shown to a sampler, which takes longer than a proposal.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Ended:
        other = object.__new__(Ended)
        other.__dict__.update(self.__dict__)
        return other

    def _validate(self) -> None:
        """Do nothing; `frozen` validates a trial once."""


def frozen(
    trial: Mapping[str, Any],
    distributions: Mapping[str, kinds.AnyDistribution],
    tune: TuneConfig,
    accuracies: Sequence[float],
) -> FrozenTrial:
    """A trial that ended, as Optuna sees it.

    Args:
        trial: the record of the trial (trial.json).
        distributions: the distributions of the trial's parameters, by dotted path.
        tune: the group `tune` of the sweep, with its objectives and limits.
        accuracies: the supernet's accuracy after each epoch. They are left out if there are two objectives, for which
            Optuna takes none.
    """
    state, objectives = STATES[trial["state"]], tune.objectives
    complete = state == TrialState.COMPLETE
    notes = dict(trial.get("searcher", {}))
    limits = tune.limits.model_dump()
    if complete and any(limits.values()):  # where samplers and Optuna's own tools look: at most 0 is within
        notes["constraints"] = [*excess(trial["cost"], limits).values()]
    steps = dict(enumerate(accuracies, start=1)) if len(objectives) == 1 else {}
    ended = Ended(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=[float(trial["objectives"][metric]) for metric, _ in objectives] if complete else None,
        datetime_start=datetime.datetime.fromisoformat(trial["begun"]),
        datetime_complete=end_of(trial),
        params=dict(trial["params"]),
        distributions={path: optuna_distribution(distributions[path]) for path in trial["params"]},
        user_attrs=named(trial),
        system_attrs=notes,
        intermediate_values=steps,
    )
    FrozenTrial._validate(ended)
    return ended


def named(trial: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes by which Optuna's tools can tell which trial of the study this is."""
    return {"number": trial["number"], "trial_id": trial["trial_id"]}


def optuna_distribution(distribution: kinds.AnyDistribution) -> BaseDistribution:
    """The distribution in Optuna's words."""
    if isinstance(distribution, kinds.CategoricalDistribution):
        return CategoricalDistribution(distribution.choices)
    if isinstance(distribution, kinds.IntDistribution):
        return IntDistribution(distribution.low, distribution.high, distribution.log, distribution.step)
    return FloatDistribution(distribution.low, distribution.high, distribution.log, distribution.step)


def directions(objectives: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The directions of a study, as `optuna.create_study` takes them."""
    names = {"max": "maximize", "min": "minimize"}
    return {"directions": [names[mode] for _, mode in objectives]}


def open_journal(path: Path, name: str, directions: Mapping[str, Any]) -> optuna.Study:
    """Open Optuna's study in a journal, or make it if there is none.

    Half a line at the journal's end, which a kill or a full disk left, is cut off.
    """
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
        study: the study, which this process holds.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._space = distributions_of(study)
        self._apart = apart_of(study.data)
        trials = study.trials()
        self._optuna = self._open()
        there = self._optuna.get_trials(deepcopy=False)
        ended = {int(trial["number"]) for trial in trials if trial["state"] in STATES}
        late = {trial.number for trial in there if trial.state == TrialState.RUNNING} & ended
        if late or any(trial.user_attrs.get("number") != trial.number for trial in there):
            # It missed when a trial ended, or is of a version that numbered them by their ends.
            (study.path / JOURNAL).unlink()
            self._optuna, there = self._open(), []
        self._running = [trial.state == TrialState.RUNNING for trial in there]
        for trial in trials:
            if trial["state"] in STATES:
                self.add(trial)

    def _open(self) -> optuna.Study:
        study = self._study
        opened = open_journal(study.path / JOURNAL, study.name, directions(study.objectives))
        if not opened.user_attrs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                opened.set_metric_names([metric for metric, _ in study.objectives])
            stored = {name: study.data.get(name) for name in ("command", "created", "config_hash", "git_commit")}
            known = {"path": study.location, "method": study.data["config"]["method"], **stored}
            for name, value in known.items():
                opened.set_user_attr(name, value)
        return opened

    def add(self, trial: Mapping[str, Any]) -> None:
        """Note a trial that ended, unless the journal has its end already."""
        number = int(trial["number"])
        for earlier in range(len(self._running), number):
            file = trial_dir(self._study.path, earlier) / "trial.json"
            gone = {"number": earlier, "trial_id": trial_name(earlier), "state": "FAILED"}
            self._place(read_json(file) if file.exists() else gone)
        if number == len(self._running):
            self._place(trial)
        elif self._running[number]:
            self._end(trial)

    def _place(self, trial: Mapping[str, Any]) -> None:
        """Give a trial the next number."""
        known = as_today(self._study.data, trial) if "params" in trial else None
        if known is None:
            notes = {**named(trial), "apart": self._apart.get(trial["trial_id"], [])}
            found = create_trial(state=TrialState.FAIL, user_attrs=notes)
        elif known["state"] in STATES:
            found = self._frozen(known)
        else:
            found = create_trial(
                state=TrialState.RUNNING,
                params=dict(known["params"]),
                distributions={path: optuna_distribution(self._space[path]) for path in known["params"]},
                user_attrs=named(trial),
            )
            found.datetime_start = datetime.datetime.fromisoformat(trial["begun"])
        self._optuna.add_trial(found)
        self._running.append(found.state == TrialState.RUNNING)

    def _end(self, trial: Mapping[str, Any]) -> None:
        """Write the end of a trial that has its number."""
        number, storage = int(trial["number"]), self._optuna._storage
        found = self._frozen(trial)
        identifier = storage.get_trial_id_from_study_id_trial_number(self._optuna._study_id, number)
        for name, value in found.system_attrs.items():
            storage.set_trial_system_attr(identifier, name, value)
        for step, value in found.intermediate_values.items():
            storage.set_trial_intermediate_value(identifier, step, value)
        storage.set_trial_state_values(identifier, found.state, found.values)
        self._running[number] = False

    def _frozen(self, trial: Mapping[str, Any]) -> FrozenTrial:
        metric = supernet_metric(self._study.data["config"]["tune"])
        reports = stored_reports(trial_dir(self._study.path, trial["number"]), metric)
        return frozen(trial, self._space, tune_of(self._study.data), [report[metric] for report in reports])


def distributions_of(study: Study) -> dict[str, kinds.AnyDistribution]:
    """The distributions of a study's space, by path."""
    return read_distributions(study.data["config"]["space"])
