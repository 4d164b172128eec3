"""Who proposes trials: Optuna's samplers under Ray Tune.

A proposal follows from the sweep's seed, the trial's number and the trials that have ended, and from nothing else. For
every number a new sampler is made, which is shown the trials that have ended in the order of their numbers. A proposal
is written into trial.json before Ray hears of the trial. So a sweep that goes on after a kill needs no state of Optuna
or of Ray.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from ray.tune.search import ConcurrencyLimiter, Searcher

from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.studies.study_files import ENDED, read_json

from ..cluster.machines import may_wait, room
from ..schedulers.time_budget import TimeBudget
from ..settings.config import SweepConfig
from ..settings.reread import as_today, unvisited
from ..settings.searchers import SEARCHERS
from ..settings.space import Space
from ..settings.tune import TuneConfig
from ..store.study import Held, Study, num_begun, trial_dir
from ..trial.trial_record import begin, stored_reports
from .journal import directions, distributions_of, frozen

MEND = "mend it, or choose another with tune.searcher"


def propose(
    space: Space, tune: TuneConfig, seed: int, number: int, ended: Iterable[FrozenTrial], point: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of a trial, and notes that the sampler wants to find in that trial when it is shown it later.

    Args:
        space: the checked search space.
        tune: the group `tune` of the sweep, which names the searcher and the objectives.
        seed: the seed of the sweep.
        number: the number of the trial.
        ended: the trials that the sampler learns from, in the order of their numbers.
        point: parameters that are given and not drawn.

    Raises:
        UserError: the searcher, which comes from a plug-in, builds no sampler, or proposed something outside of the
            space.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searcher = SEARCHERS[tune.searcher]
    sampler = searcher.build(sampler_seed(seed, number), tune)
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise UserError(f"searcher {tune.searcher!r} builds {sampler!r}, which is no sampler of Optuna's: {MEND}")
    pruner = optuna.pruners.NopPruner()
    study = optuna.create_study(sampler=sampler, pruner=pruner, **directions(tune.objectives))
    study.add_trials(ended if searcher.learns else ())
    if point:
        study.enqueue_trial(dict(point))
    trial = study.ask()
    try:
        params = space(trial)
    except ValueError as error:
        if plugins.blamed(error) or not any(
            tune.searcher in p.registry.names.get("searcher", ()) for p in plugins.loaded()
        ):
            raise
        raise UserError(
            f"searcher {tune.searcher!r} proposed for trial {number} what is no value ({error}): {MEND}"
        ) from error
    for path, distribution in space.distributions:
        if path in params and not distribution.contains(params[path]):
            raise UserError(
                f"searcher {tune.searcher!r} proposed {path} {params[path]!r} for trial {number}, which is outside of "
                f"the space: {MEND}"
            )
    asked = study.get_trials(deepcopy=False)[-1]
    # NSGA-II's generation of the trial; what the others note is of use during the draw only.
    notes = {name: value for name, value in asked.system_attrs.items() if name.endswith("generation")}
    return params, notes


def sampler_seed(seed: int, number: int) -> int:
    """The seed of the sampler that proposes one trial."""
    return random.Random(f"{seed}/propose/{number}").getrandbits(32)


class StudySearch(Searcher):
    """Gives Ray the trials of a study in the order of their numbers: first those that were begun before, then new ones.

    A trial is in its file before Ray hears of it. Its end is in its file too, and the searcher reads it there.

    Args:
        held: the study, which this process holds.
        config: the configuration of the sweep.
        space: the checked search space.
        budget: the budget of time; once it is spent, Ray is given no trial.
    """

    def __init__(self, held: Held, config: SweepConfig, space: Space, budget: TimeBudget) -> None:
        super().__init__()
        self._held = held
        self._config = config
        self._space = space
        self._budget = budget
        study = held.study
        self._distributions = distributions_of(study)
        self._points = points_of(study, space)
        trials = study.trials()
        self._next = num_begun(trials)
        self._open = {trial["number"] for trial in trials}  # whose ends are not known yet
        self._waiting = [trial["number"] for trial in trials if trial["state"] == "RUNNING"]
        self._ended: dict[int, FrozenTrial] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial."""
        if self._budget.is_spent():
            return Searcher.FINISHED
        if not self._waiting and self._next < self._config.tune.num_samples:
            self._begin(self._next)
        if not self._waiting:
            return Searcher.FINISHED
        return {"study": self._held.location, "number": self._waiting.pop(0)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: what counts is in the trial's file."""

    def _begin(self, number: int) -> None:
        """Propose a trial and write it down."""
        self._look()
        study, tune = self._held.study, self._config.tune
        ended = [self._ended[other] for other in sorted(self._ended)]
        params, notes = propose(self._space, tune, self._config.seed, number, ended, self._points.get(number, {}))
        begin(study, number, params, **({"searcher": notes} if notes else {}))
        self._next = number + 1
        self._open.add(number)
        self._waiting.append(number)

    def _look(self) -> None:
        """Learn from the trials that have ended since the last look."""
        for number in sorted(self._open):
            folder = trial_dir(self._held.study.path, number)
            trial = read_json(folder / "trial.json")
            if trial["state"] in ENDED:
                metric = f"held_out/{self._config.tune.metric}"
                # Of those that were not stopped early nobody asks.
                reports = stored_reports(folder, metric) if trial["state"] == "PRUNED" else []
                accuracies = [report[metric] for report in reports]
                if (known := as_today(self._held.study.data, trial)) is not None:
                    self._ended[number] = frozen(known, self._distributions, self._config.tune, accuracies)
                self._open.discard(number)


def points_of(study: Study, space: Space) -> dict[int, dict[str, Any]]:
    """Parameters that the user gave and that are not drawn, by the numbers of the trials that get them.

    The first trials of a sweep get such parameters, and so do the first trials of each round that was added later. The
    trials of a grid's round get the points that no earlier trial has visited.
    """
    tune = study.data["config"]["tune"]
    if tune["searcher"] == "grid":
        begun = sum(added["num_samples"] for added in study.rounds[:-1])
        earlier = [trial for trial in study.trials() if trial["number"] < begun]
        return dict(enumerate(unvisited(space, study.data, earlier), start=begun))
    later = sum(len(added["points_to_evaluate"]) for added in study.rounds)
    first, points = 0, dict(enumerate(tune["points_to_evaluate"][: len(tune["points_to_evaluate"]) - later]))
    for added in study.rounds:
        points |= dict(enumerate(added["points_to_evaluate"], start=first))
        first += added["num_samples"]
    return points


class Places(ConcurrencyLimiter):
    """Lets as many trials run as fit on the machines that are there. A machine that joins gets trials at once.

    Args:
        searcher: the searcher that gives the trials.
        config: the group `tune` of the sweep. Its `max_concurrent` sets another number of trials. On a cluster this may
            be a number for which there is no room yet: then one trial waits, and an autoscaler starts a machine for
            it.
        cluster: whether Ray runs on more than this machine.
    """

    EVERY_S = 5.0
    """Seconds between two looks at the machines."""

    def __init__(self, searcher: Searcher, config: TuneConfig, cluster: bool) -> None:
        self._config = config
        self._cluster = cluster
        self._looked = time.monotonic()
        super().__init__(searcher, max_concurrent=self._number())

    def _number(self) -> int:
        config = self._config
        wanted = min(config.max_concurrent or config.num_samples, config.num_samples)
        # One at least: where all machines are gone for now, a trial waits.
        return wanted if may_wait(config, self._cluster) else max(1, min(room(config), wanted))

    def suggest(self, trial_id: str) -> Any:
        """The next trial, or None while no machine has a place for it."""
        if time.monotonic() - self._looked > self.EVERY_S:
            self._looked = time.monotonic()
            self.max_concurrent = self._number()
        return super().suggest(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing where Ray would keep a searcher's state: the study's folder has everything."""
