"""Which trials are stopped early: Ray's schedulers by the names of `tune.SCHEDULERS`.

All compare trials by the supernet's held-out accuracy after the same number of search epochs, scored by batch
normalisation that is recalibrated for the weights (`config` refuses the running statistics, which lag). None sets a
trial's last epoch: a trial ends by itself.
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
        """What trials that were begun before reported, by their numbers."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new, or goes on."""
        super().on_trial_add(tune_controller, trial)
        self.tell(trial, self.begun.pop(trial.config["number"], []))

    def tell(self, trial: Any, reports: Iterable[dict[str, float]]) -> None:
        """Note what a trial reported before, without a decision."""
        nobody: Any = None  # Ray's controller, which is not asked
        for report in reports:
            self.on_trial_result(nobody, trial, report)


class Asha(Remembering, ASHAScheduler):
    """Ray's scheduler of this name, which is told the past of trials."""


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
    """As many brackets as there are rungs. The last bracket stops no trial before the last rung.

    Example:
        >>> brackets(TuneConfig(grace_period=1, reduction_factor=3), num_epochs=27)
        4
    """
    ratio = max(num_epochs, config.grace_period) / config.grace_period
    return int(math.log(ratio) / math.log(config.reduction_factor) + 1e-9) + 1


class HyperBand(Remembering, ASHAScheduler):
    """Asynchronous HyperBand: ASHA in brackets with later and later first rungs.

    A trial's bracket follows from the seed and the trial's number, so that a resumed sweep puts it into the same.

    Args:
        seed: of the sweep.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._seed = seed

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Put a trial into a bracket; one with fewer rungs gets fewer trials."""
        weights = [math.exp(-place) for place in range(len(self._brackets))]
        draw = random.Random(f"{self._seed}/{trial.config['number']}")
        self._trial_info[trial.trial_id] = draw.choices(self._brackets, weights)[0]
        self.tell(trial, self.begun.pop(trial.config["number"], []))


class Median(Remembering, MedianStoppingRule):
    """Ray's scheduler of this name, which is told the past of trials."""

    def tell(self, trial: Any, reports: Iterable[dict[str, float]]) -> None:
        """Note what a trial reported: Ray's rule refuses reports of one that it would have stopped."""
        nobody: Any = None  # Ray's controller, which is not asked
        for report in reports:
            self.on_trial_complete(nobody, trial, report)


def _median(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    """The median of other trials; a trial with fewer than three others to compare with goes on.

    Ray's rule would let it wait for those that have not begun: it would lose its process, and the study's time.
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
    """A trial that has ended before this run of the sweep, as far as schedulers look at one."""

    trial_id: str
    config: dict[str, int] = field(compare=False)


def remember(scheduler: Any, study: Study) -> dict[int, int]:
    """Let a scheduler compare trials with those that have ended, and with the past of those that go on.

    It is told what they reported, one trial after the other; what it would do with them is without effect. It is
    not told of trials that were scored by running statistics, which ddarts once did: they lag, and would rank too low.

    Args:
        scheduler: that has seen no trial.
        study: held by this process.

    Returns:
        The trials that it would stop at the last epoch that they have done, and how many that is: the sweep was killed
        before it was told of that epoch, or before it could note what followed.
    """
    if not isinstance(scheduler, Remembering):
        return {}
    nobody: Any = None  # Ray's controller, which is not asked
    metric = supernet_metric(study.data["config"]["tune"])
    apart = apart_of(study.data)
    for trial in study.trials():
        if has_other_epochs(apart.get(trial["trial_id"], ())):
            continue  # after as many epochs it was at another place of its schedules
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
    """Whether a scheduler would stop a trial at the last of its reports; it learns nothing."""
    if not reports:
        return False
    nobody: Any = None  # Ray's controller, which is not asked
    trial: Any = Earlier(f"begun_{number}", {"number": number})
    judge = copy.deepcopy(scheduler)
    judge.begun[number] = reports[:-1]
    judge.on_trial_add(nobody, trial)
    return bool(judge.on_trial_result(nobody, trial, reports[-1]) == TrialScheduler.STOP)
