"""Which trials are stopped early: Ray's schedulers by the names of `tune.SCHEDULERS`.

All schedulers compare trials by the supernet's held-out accuracy after the same number of search epochs. This accuracy
is scored by batch normalisation that is recalibrated for the weights; `config` refuses the running statistics, which
lag behind the weights. No scheduler sets a trial's last epoch: a trial that is not stopped ends by itself.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ..settings.reread import apart_of, has_other_epochs
from ..settings.tune import SCHEDULERS, SEARCH_EPOCH, TuneConfig, supernet_metric
from ..store.study import Study, trial_dir
from ..trial.trial_record import is_recalibrated, stored_reports


class Remembering(TrialScheduler):
    """A scheduler that is told the past of a trial when the trial goes on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]  # ray
        self.begun: dict[int, list[dict[str, float]]] = {}
        """What the trials that began in an earlier run of the sweep reported, by the numbers of the trials."""
        self.apart: set[int] = set()
        """The numbers of trials that run with other numbers of epochs than the others, and are not compared."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new or goes on: the scheduler hears what it reported before."""
        super().on_trial_add(tune_controller, trial)
        self.tell(trial, self.begun.pop(trial.config["number"], []))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A trial has done an epoch."""
        if trial.config["number"] in self.apart:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial has ended."""
        if trial.config["number"] not in self.apart:
            super().on_trial_complete(tune_controller, trial, result)

    def tell(self, trial: Any, reports: Iterable[dict[str, float]]) -> None:
        """Note what a trial reported before; no decision follows from it."""
        nobody: Any = None  # Ray's controller, which is not asked
        for report in reports:
            self.on_trial_result(nobody, trial, report)


class Asha(Remembering, ASHAScheduler):
    """Ray's scheduler ASHA, which is told the past of trials."""


def _asha(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return Asha(**_halving(config, num_epochs), brackets=1)


def _hyperband(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return HyperBand(seed, **_halving(config, num_epochs), brackets=brackets(config, num_epochs))


def _halving(config: TuneConfig, num_epochs: int) -> dict[str, Any]:
    return {
        "time_attr": SEARCH_EPOCH,
        "metric": f"held_out/{config.metric}",
        "mode": "max",
        "max_t": max(num_epochs, config.grace_period) + 1,  # never reached
        "grace_period": config.grace_period,
        "reduction_factor": config.reduction_factor,
    }


def brackets(config: TuneConfig, num_epochs: int) -> int:
    """The number of brackets, which is the number of rungs. The last bracket stops no trial before the last rung.

    Example:
        >>> brackets(TuneConfig(grace_period=1, reduction_factor=3), num_epochs=27)
        4
    """
    ratio = max(num_epochs, config.grace_period) / config.grace_period
    return int(math.log(ratio) / math.log(config.reduction_factor) + 1e-9) + 1


class HyperBand(Remembering, ASHAScheduler):
    """Asynchronous HyperBand: ASHA in brackets with later and later first rungs.

    A trial's bracket follows from the seed and the trial's number, so that a resumed sweep puts the trial into the same
    bracket.

    Args:
        seed: the seed of the sweep.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._seed = seed

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Put a trial into a bracket; a bracket with fewer rungs gets fewer trials."""
        weights = [math.exp(-place) for place in range(len(self._brackets))]
        draw = random.Random(f"{self._seed}/{trial.config['number']}")
        self._trial_info[trial.trial_id] = draw.choices(self._brackets, weights)[0]
        self.tell(trial, self.begun.pop(trial.config["number"], []))


class Median(Remembering, MedianStoppingRule):
    """Ray's rule of the median, which is told the past of trials."""

    def tell(self, trial: Any, reports: Iterable[dict[str, float]]) -> None:
        """Note what a trial reported; Ray's rule itself refuses the reports of a trial that it would have stopped."""
        nobody: Any = None  # Ray's controller, which is not asked
        for report in reports:
            self.on_trial_complete(nobody, trial, report)


def _median(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    """The rule of the median: it compares a trial with the others, and lets it go on while they are fewer than three.

    Ray's rule would let such a trial wait for trials that have not begun. The trial would lose its process, and the
    study would lose time.
    """
    return Median(
        time_attr=SEARCH_EPOCH,
        metric=f"held_out/{config.metric}",
        mode="max",
        grace_period=config.grace_period,
        min_samples_required=3,
        min_time_slice=math.inf,
    )


def _fifo(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return FIFOScheduler()  # type: ignore[no-untyped-call]  # ray


SCHEDULER_FACTORIES: Mapping[str, Callable[[TuneConfig, int, int], Any]] = MappingProxyType(
    {"asha": _asha, "hyperband": _hyperband, "median": _median, "fifo": _fifo, "pbt": _fifo}
)
assert SCHEDULER_FACTORIES.keys() == SCHEDULERS.keys()


@dataclass(frozen=True)
class Earlier:
    """A trial that ended before this run of the sweep began, with what schedulers read of a trial."""

    trial_id: str
    config: dict[str, int] = field(compare=False)


def remember(scheduler: Any, study: Study) -> dict[int, int]:
    """Let a scheduler compare new trials with those that have ended, and with the past of those that go on.

    The scheduler is told what these trials reported, one trial after the other; what it decides about them has no
    effect. It is not told of trials that were scored by running statistics, as earlier versions of ddarts did: these
    statistics lag, and the trials would rank too low.

    Args:
        scheduler: a scheduler that has seen no trial yet.
        study: the study, which this process holds.

    Returns:
        The numbers of the trials that the scheduler would stop at the last epoch that they have done, with the number
        of their epochs. The sweep was killed before the scheduler was told of that epoch, or before the sweep could
        note the decision.
    """
    if not isinstance(scheduler, Remembering):
        return {}
    nobody: Any = None  # Ray's controller, which is not asked
    metric = supernet_metric(study.data["config"]["tune"])
    apart = apart_of(study.data)
    for trial in study.trials():
        if has_other_epochs(apart.get(trial["trial_id"], ())):
            scheduler.apart.add(trial["number"])  # after as many epochs it is at another place of its schedules
            continue
        folder = trial_dir(study.path, trial["number"])
        reports = stored_reports(folder, metric) if is_recalibrated(folder) else []
        if trial["state"] == "RUNNING":
            scheduler.begun[trial["number"]] = reports
        elif reports:
            earlier: Any = Earlier(f"earlier_{trial['number']}", {"number": trial["number"]})
            scheduler.on_trial_add(nobody, earlier)
            scheduler.tell(earlier, reports[:-1])
            scheduler.on_trial_complete(nobody, earlier, reports[-1])
    return {number: len(reports) for number, reports in scheduler.begun.items() if _stops(scheduler, number, reports)}


def _stops(scheduler: Remembering, number: int, reports: list[dict[str, float]]) -> bool:
    """Whether a scheduler would stop a trial at the last of its reports; the scheduler itself learns nothing."""
    if not reports:
        return False
    nobody: Any = None  # Ray's controller, which is not asked
    trial: Any = Earlier(f"begun_{number}", {"number": number})
    judge = copy.deepcopy(scheduler)
    judge.begun[number] = reports[:-1]
    judge.on_trial_add(nobody, trial)
    return bool(judge.on_trial_result(nobody, trial, reports[-1]) == TrialScheduler.STOP)
