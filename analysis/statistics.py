"""Small statistics of repeated runs: means with their uncertainty. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

Seeded = Sequence[tuple[int, float]]
"""Runs that differ in nothing but the seed: seed and value of each."""


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


def difference(first: Seeded, second: Seeded, level: float = 0.95) -> Estimate:
    """Mean of `second` minus mean of `first` with a Student-t interval; `count` is the smaller group's.

    Where both have the same seeds, each once, the interval is that of the differences seed by seed: they share images
    and data order. Else it is Welch's, which lets the groups vary differently. Where it contains 0, the seeds do not
    tell the groups apart.

    Args:
        first: seed and value of each run; NaNs are left out.
        second: the same of the other group.
        level: of the interval.
    """
    a, b = ([(seed, value) for seed, value in group if not math.isnan(value)] for group in (first, second))
    before, after = dict(a), dict(b)
    if before.keys() == after.keys() and len(before) == len(a) == len(b):
        return mean_interval([after[seed] - before[seed] for seed in before], level)
    return welch([value for _, value in a], [value for _, value in b], level)


def welch(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean of `second` minus mean of `first` with Welch's interval (unequal variances, Satterthwaite's degrees).

    Example:
        >>> welch([0.0, 2.0], [5.0]).mean
        4.0
    """
    count = min(len(first), len(second))
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0)
    apart = statistics.fmean(second) - statistics.fmean(first)
    if count < 2:
        return Estimate(apart, math.nan, math.nan, count)
    parts = [(statistics.variance(group) / len(group), len(group) - 1) for group in (first, second)]
    variance = sum(part for part, _ in parts)
    if not variance:
        return Estimate(apart, apart, apart, count)
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    half = float(stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance)
    return Estimate(apart, apart - half, apart + half, count)
