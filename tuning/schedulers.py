"""Which trials are stopped early: Ray's schedulers by the names of `config.SCHEDULERS`.

All compare trials by the supernet's held-out accuracy after the same number of search epochs. None sets a trial's last
epoch: a trial ends by itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

from .config import ACCURACY, SCHEDULERS, SEARCH_EPOCH, TuneConfig


def _asha(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return ASHAScheduler(**_halving(config, num_epochs), brackets=1)


def _hyperband(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return HyperBand(seed, **_halving(config, num_epochs), brackets=brackets(config, num_epochs))


def _halving(config: TuneConfig, num_epochs: int) -> dict[str, Any]:
    return {
        "time_attr": SEARCH_EPOCH,
        "metric": ACCURACY,
        "mode": "max",
        "max_t": max(num_epochs, config.grace_period) + 1,  # never reached
        "grace_period": config.grace_period,
        "reduction_factor": config.reduction_factor,
    }


def brackets(config: TuneConfig, num_epochs: int) -> int:
    """As many brackets as there are rungs: the last one stops nobody before the last rung.

    Example:
        >>> brackets(TuneConfig(grace_period=1, reduction_factor=3), num_epochs=27)
        4
    """
    ratio = max(num_epochs, config.grace_period) / config.grace_period
    return int(math.log(ratio) / math.log(config.reduction_factor) + 1e-9) + 1


class HyperBand(ASHAScheduler):
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


def _median(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return MedianStoppingRule(
        time_attr=SEARCH_EPOCH, metric=ACCURACY, mode="max", grace_period=config.grace_period, min_samples_required=3
    )


def _fifo(config: TuneConfig, num_epochs: int, seed: int) -> Any:
    return FIFOScheduler()  # type: ignore[no-untyped-call]  # ray


SCHEDULER_FACTORIES: Mapping[str, Callable[[TuneConfig, int, int], Any]] = MappingProxyType(
    {"asha": _asha, "hyperband": _hyperband, "median": _median, "fifo": _fifo}
)
assert SCHEDULER_FACTORIES.keys() == SCHEDULERS.keys()
