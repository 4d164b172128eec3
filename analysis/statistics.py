"""Small statistics of repeated runs: means with their uncertainty. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval and the number of values; without an interval (NaN) when there is only one value."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and Student-t interval of independent values (seeds); NaNs are left out.

    Example:
        >>> mean_interval([1.0, 3.0]).mean
        2.0
    """
    known = [float(v) for v in values if not math.isnan(v)]
    if not known:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = sum(known) / len(known)
    if len(known) == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    variance = sum((v - mean) ** 2 for v in known) / (len(known) - 1)
    half = float(stdtrit(len(known) - 1, 0.5 + level / 2)) * math.sqrt(variance / len(known))
    return Estimate(mean, mean - half, mean + half, len(known))


def bootstrap_difference(
    first: Sequence[float], second: Sequence[float], *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Mean of `second` minus mean of `first` with a percentile bootstrap interval; `count` is the smaller group's.

    An interval that contains 0 means that the seeds do not tell the groups apart.
    """
    a = np.asarray([v for v in first if not math.isnan(v)])
    b = np.asarray([v for v in second if not math.isnan(v)])
    if not len(a) or not len(b):
        return Estimate(math.nan, math.nan, math.nan, 0)
    difference, count = float(b.mean() - a.mean()), min(len(a), len(b))
    if count < 2:
        return Estimate(difference, math.nan, math.nan, count)
    rng = np.random.default_rng(seed)
    samples = b[rng.integers(len(b), size=(draws, len(b)))].mean(1) - a[
        rng.integers(len(a), size=(draws, len(a)))
    ].mean(1)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(difference, float(low), float(high), count)
