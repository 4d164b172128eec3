"""Optuna under Ray Tune: who proposes the trials, and the persistent journal of those that ended.

`StudySearch` is Ray's `OptunaSearch` with what a study needs beside it: the objectives are those that a trial reports
at its end, a trial that was stopped early is PRUNED instead of complete, one that failed is FAIL, and each trial that
ended is copied into `optuna.log`, once, however often the sweep is killed and resumed. The copy, not the study that
proposes, is what optuna-dashboard opens: the proposing study travels in Ray's snapshots.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from .cluster import may_wait, room
from .config import SEARCHERS, TuneConfig
from .mirror import run_folder
from .space import Space
from .study import read_json, trial_dir, trial_name

MULTIPLIER = 1_000_003
"""Keeps the sampler's seed apart from the trials' own streams."""


def _botorch(seed: int, tune: TuneConfig) -> optuna.samplers.BaseSampler:
    from optuna_integration import BoTorchSampler  # type: ignore[import-not-found,unused-ignore]  # an extra

    # It says so again at every trial.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning, module="optuna_integration")
    sampler: optuna.samplers.BaseSampler = BoTorchSampler(seed=seed, n_startup_trials=tune.num_startup_trials)
    return sampler


SAMPLERS: Mapping[str, Callable[[int, TuneConfig], optuna.samplers.BaseSampler]] = MappingProxyType(
    {
        "optuna-tpe": lambda seed, tune: optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=tune.num_startup_trials
        ),
        "optuna-nsga2": lambda seed, tune: optuna.samplers.NSGAIISampler(seed=seed),
        "optuna-gp": lambda seed, tune: optuna.samplers.GPSampler(seed=seed, n_startup_trials=tune.num_startup_trials),
        "optuna-botorch": lambda seed, tune: _botorch(seed, tune),
        "random": lambda seed, tune: optuna.samplers.RandomSampler(seed=seed),
        "grid": lambda seed, tune: optuna.samplers.RandomSampler(seed=seed),  # all points are enqueued: never asked
    }
)
assert SAMPLERS.keys() == SEARCHERS.keys()


class StudySearch(OptunaSearch):
    """Proposes `number` and `params`; learns from `objective/METRIC`.

    Args:
        space: the checked search space.
        tune: sampler, objectives and first points.
        seed: of the sampler.
        journal: file of the persistent study; in an object store its URI.
        study_name: its name there.
    """

    _ot_study: Any  # ray assigns them None first, and has no types
    _space: Any

    def __init__(self, space: Space, tune: TuneConfig, seed: int, journal: str | Path, study_name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._objectives = tune.objectives
        self._compared = f"held_out/{tune.metric}"
        self._journal_name = str(journal)
        self._journal: optuna.Study | None = None
        self._mirrored: set[int] = set()
        super().__init__(
            space=space,
            metric=self._compared,
            mode="max",
            points_to_evaluate=space.grid() if tune.searcher == "grid" else [dict(p) for p in tune.points_to_evaluate],
            sampler=SAMPLERS[tune.searcher](seed * MULTIPLIER % 2**32, tune),
            study_name=study_name,
        )

    def _setup_study(self, mode: str | list[str]) -> None:
        """The study that proposes, in memory, with the directions of the objectives."""
        self._ot_study = optuna.create_study(
            study_name=self._study_name, sampler=self._sampler, pruner=optuna.pruners.NopPruner(), **self._directions
        )
        for point in self._points_to_evaluate:
            self._ot_study.enqueue_trial(point)

    def go_on(self, folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
        """Take over what the searcher of an earlier round knew, and propose some points next.

        Args:
            folder: the earlier round's, of Ray. A pickle is read from there.
            points: parameters by dotted path.
        """
        journal = self._journal_name
        self.restore_from_dir(str(folder))
        self._journal_name = journal  # the study's folder may have been moved
        for point in points:
            self._ot_study.enqueue_trial(dict(point))

    @property
    def _journal_path(self) -> Path:
        """On the machine that the sweep runs on now."""
        folder, _, name = self._journal_name.rpartition("/")
        return run_folder(folder) / name

    @property
    def _directions(self) -> dict[str, Any]:
        names = {"max": "maximize", "min": "minimize"}
        return {"directions": [names[mode] for _, mode in self._objectives]}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial."""
        if trial_id not in self._ot_trials:
            self._repeat()
            self._ot_trials[trial_id] = self._ot_study.ask()
        trial = self._ot_trials[trial_id]
        return {"number": trial.number, "params": self._space(trial)}

    def _repeat(self) -> None:
        """Propose again what the next number had before a kill, if the study has it: a trial is never drawn anew.

        The sampler draws all the same, so that its later draws are those of a sweep that was left alone.
        """
        if self._ot_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return  # a first point, which is the same every time
        number = len(self._ot_study.get_trials(deepcopy=False))
        file = trial_dir(self._journal_path.parent, number) / "trial.json"
        if file.exists():
            twin = copy.deepcopy(self._ot_study)
            self._space(twin.ask())
            self._ot_study.sampler = twin.sampler
            self._ot_study.enqueue_trial(read_json(file)["params"])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch: what the supernet is compared by. Optuna takes none when there are two objectives."""
        if len(self._objectives) == 1 and trial_id not in self._completed_trials:
            self._ot_trials[trial_id].report(result[self._compared], int(result["epochs"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial, by itself, by the scheduler or by an error; no result if it never ran."""
        trial = self._ot_trials[trial_id]
        if trial_id not in self._completed_trials:
            values = objective_values(result, self._objectives)
            if error or (result and result.get("state") == "FAILED"):
                self._ot_study.tell(trial, state=TrialState.FAIL)
            elif values is None:
                told = self._frozen(trial).intermediate_values
                if result and len(self._objectives) == 1 and result["epochs"] not in told:
                    trial.report(result[self._compared], int(result["epochs"]))
                self._ot_study.tell(trial, state=TrialState.PRUNED)
            else:
                self._ot_study.tell(trial, values)
            self._completed_trials.add(trial_id)
        self._mirror(self._frozen(trial), trial_id)

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        found: FrozenTrial = self._ot_study.get_trials(deepcopy=False)[trial.number]
        return found

    # --- the persistent copy ----------------------------------------------------------------------------------------

    def _mirror(self, trial: FrozenTrial, ray_trial_id: str) -> None:
        if self._journal is None:
            self._journal = open_journal(self._journal_path, self._study_name, self._directions)
            self._mirrored = {trial.user_attrs["number"] for trial in self._journal.get_trials(deepcopy=False)}
            for earlier in self._completed_trials - {ray_trial_id}:  # the journal may have had no room for them
                self._mirror(self._frozen(self._ot_trials[earlier]), earlier)
        if trial.number in self._mirrored:
            return
        self._journal.add_trial(
            optuna.trial.create_trial(
                state=trial.state,
                values=trial.values if trial.state == TrialState.COMPLETE else None,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={
                    "number": trial.number,
                    "trial_id": trial_name(trial.number),
                    "ray_trial_id": ray_trial_id,
                },
                intermediate_values=trial.intermediate_values,
            )
        )
        self._mirrored.add(trial.number)

    def save(self, checkpoint_path: str) -> None:
        """Ray's snapshot; the journal stays on disk."""
        with open(checkpoint_path, "wb") as file:
            pickle.dump(self.__getstate__(), file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_journal": None, "_mirrored": set()}


class Places(ConcurrencyLimiter):
    """As many trials at a time as fit on the machines that are there: one that joins gets trials at once.

    Args:
        searcher: proposes.
        settings: gives the study's as they are now. `max_concurrent` sets another number; on a cluster also one for
            which there is no room yet: then one trial waits, for which an autoscaler starts a machine.
        cluster: whether Ray runs on more than this machine.
    """

    EVERY_S = 5.0
    """Seconds between two looks at the machines."""

    def __init__(self, searcher: StudySearch, settings: Callable[[], TuneConfig], cluster: bool) -> None:
        self._settings = settings
        self._cluster = cluster
        self._looked = time.monotonic()
        super().__init__(searcher, max_concurrent=self._number())

    def _number(self) -> int:
        config = self._settings()
        wanted = min(config.max_concurrent or config.num_samples, config.num_samples)
        # One at least: where all machines are gone for now, a trial waits.
        return wanted if may_wait(config, self._cluster) else max(1, min(room(config), wanted))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial, or None while there is no place for it."""
        if not 0 <= time.monotonic() - self._looked < self.EVERY_S:  # another machine's clock after a resume
            self._looked = time.monotonic()
            self.max_concurrent = self._number()
        found: dict[str, Any] | None = super().suggest(trial_id)
        return found


def objective_values(result: Mapping[str, Any] | None, objectives: Sequence[tuple[str, str]]) -> list[float] | None:
    """The final objectives of a result; None if it is not a trial's last."""
    values = [(result or {}).get(f"objective/{metric}") for metric, _ in objectives]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return [float(value) for value in values if value is not None]


def open_journal(path: Path, name: str, directions: Mapping[str, Any]) -> optuna.Study:
    """The persistent study, made if there is none; half a line that a kill or a full disk left is cut off."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **directions)
