"""Small statistics of repeated runs: means, and the one comparison of two groups that everything uses. Pure functions.

A run on the same images has two sources of chance (Dietterich 1998, Approximate Statistical Tests; Bouthillier et al.
2021, Accounting for Variance in Machine Learning Benchmarks): its training, which the spread over seeds shows, and
the finite number of images, which it does not show where all seeds are read on the same images. The second is
binomial. Where the number of images is given its variance is added, and the degrees of freedom are Satterthwaite's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from scipy.special import stdtrit

Seeded = Sequence[tuple[int, float]]
"""Runs that differ in nothing but the seed: seed and value of each."""

FEWEST = 3
"""Runs of each group, or pairs, below which no difference is told. The spread of two has one degree of freedom: in 8 %
of cases it comes out ten times too small or smaller (chi-square), of three in 1 %."""


POINT = 0.01
"""The difference of two accuracies that `Comparison.needed` is about: one percentage point."""

MOST = 1000
"""Runs beyond which `Comparison.needed` says none: nobody trains as many."""


@dataclass(frozen=True)
class Estimate:
    """A mean, its interval (by default of 95 %) and the number of values.

    With only one value there is no interval: its ends are NaN.
    """

    mean: float
    low: float
    high: float
    count: int

    def of_shares(self) -> Estimate:
        """The estimate of a share of 1, with its interval cut off at 0 and 1, which a t interval may go beyond.

        Example:
            >>> mean_interval([0.9, 1.0]).of_shares().high
            1.0
        """
        if math.isnan(self.low):
            return self
        return replace(self, low=min(max(self.low, 0.0), self.mean), high=max(min(self.high, 1.0), self.mean))


@dataclass(frozen=True)
class Comparison:
    """Mean of the second group minus mean of the first, and how they were compared.

    Attributes:
        difference: the difference of the means over the runs that were compared; NaN without such runs.
        low: the lower end of the 95 % interval of the difference; NaN without an interval.
        high: the upper end of that interval; NaN without an interval.
        method: `paired` by seed, `welch`, or `none` where no interval can be had.
        counts: the number of compared runs of the first and of the second group. A pair has one run of each.
        left_out: the number of runs that were not compared, since they have no value or no partner.
        images: the number of images whose binomial noise is part of the interval; None if no such noise is part of it.
        variances: the variance of the differences of pairs, or of the runs of each group; empty without an interval.
        noise: the variance of the difference that is due to the number of images.
    """

    difference: float
    low: float
    high: float
    method: Literal["paired", "welch", "none"]
    counts: tuple[int, int]
    left_out: int = 0
    images: int | None = None
    variances: tuple[float, ...] = ()
    noise: float = 0.0

    @property
    def needed(self) -> int | None:
        """The fewest pairs, or runs of each group, that would tell apart accuracies that differ by one point.

        With so many the interval, at the spread that was seen, is no wider than one point to either side. None if no
        spread is known, if more than `MOST` are needed, or if the noise of the images alone is wider than that.
        """
        if not self.variances:
            return None
        for number in range(FEWEST, MOST + 1):
            parts = [(variance / number, number - 1) for variance in self.variances]
            if _half_width(parts, self.noise, 0.95) <= POINT:
                return number
        return None

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0; without an interval the groups cannot be told apart."""
        return self.low > 0 or self.high < 0

    @property
    def choice(self) -> str:
        """How the groups were compared, in words."""
        words = {
            "paired": f"{self.counts[0]} pairs",
            "welch": f"Welch, {self.counts[0]} and {self.counts[1]} runs",
            "none": "no spread" if min(self.counts) >= FEWEST else f"fewer than {FEWEST} runs",
        }[self.method]
        return words + (f", {self.left_out} left out" if self.left_out else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes None, which JSON writes as null."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("variances", "noise")}
        return {key: None if value != value else value for key, value in kept.items()} | {"needed": self.needed}


def mean_interval(values: Sequence[float], level: float = 0.95, images: int | None = None) -> Estimate:
    """Mean and Student-t interval of independent values (seeds); NaNs are left out.

    Args:
        values: the values of the runs.
        level: the level of the interval.
        images: the number of images, if the values are accuracies that were all read on the same images: the noise of
            the images is then part of the interval. None leaves that noise out.

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
    noise = 0.0 if images is None else binomial_variance(mean, images)
    half = _half_width([(statistics.variance(known) / len(known), len(known) - 1)], noise, level)
    return Estimate(mean, mean - half, mean + half, len(known))


def comparison(first: Seeded, second: Seeded, images: int | None = None, level: float = 0.95) -> Comparison:
    """Compare two groups of runs: paired by seed where they share seeds, by Welch's interval where they share none.

    Runs of one seed share images and data order, so the interval of their differences is that of the pairs (Student's
    t). A run without a value (NaN), or whose seed the other group lacks, is left out with its partner, and counted;
    where fewer than `FEWEST` pairs remain there is no interval. Groups that share no seed, or in which a seed repeats,
    are compared by Welch's interval (unequal variances, Satterthwaite's degrees of freedom). Where all differences, or
    all values of each group, are equal there is no spread to make an interval of, unless `images` is given.

    Args:
        first: the seed and the value of each run of the first group.
        second: the seed and the value of each run of the second group.
        images: the number of images, if the values are accuracies that were all read on the same images; None leaves
            the noise of the images out. The noise of both groups is added as if the groups erred on different images,
            which is too much where they err on the same.
        level: the level of the interval.

    Example:
        >>> comparison([(0, 0.5), (1, 0.6), (2, 0.8)], [(0, 0.6), (1, 0.8), (2, 0.9)]).choice
        '3 pairs'
    """
    a, b = ([(seed, value) for seed, value in group if not math.isnan(value)] for group in (first, second))
    seeds, others = ([seed for seed, _ in group] for group in (first, second))
    unique = len(set(seeds)) == len(seeds) and len(set(others)) == len(others)
    paired = unique and not set(seeds).isdisjoint(others)
    if paired:
        before, after = dict(a), dict(b)
        shared = [seed for seed in before if seed in after]
        groups = [[before[seed] for seed in shared], [after[seed] for seed in shared]]
        spreads = [[y - x for x, y in zip(*groups, strict=True)]]
    else:
        spreads = groups = [[value for _, value in group] for group in (a, b)]
    counts = (len(groups[0]), len(groups[1]))
    left_out = len(first) + len(second) - sum(counts)
    if not min(counts):
        return Comparison(math.nan, math.nan, math.nan, "none", counts, left_out)
    means = [statistics.fmean(group) for group in groups]
    apart = means[1] - means[0]
    noise = 0.0 if images is None else sum(binomial_variance(mean, images) for mean in means)
    if min(counts) >= FEWEST:
        variances = tuple(statistics.variance(spread) for spread in spreads)
        parts = [(v / len(spread), len(spread) - 1) for v, spread in zip(variances, spreads, strict=True)]
        half = _half_width(parts, noise, level)
        if half > 1e-12 * max(abs(value) for group in groups for value in group):
            method: Literal["paired", "welch"] = "paired" if paired else "welch"
            return Comparison(apart, apart - half, apart + half, method, counts, left_out, images, variances, noise)
    return Comparison(apart, math.nan, math.nan, "none", counts, left_out)


def verdict(found: Comparison, second: str, first: str) -> str:
    """The comparison of accuracies (fractions of 1) as a sentence.

    Unless the interval leaves out 0, the sentence says that the two cannot be told apart.

    Args:
        found: the comparison.
        second: what the second group is called.
        first: what the first group is called.
    """
    how = found.choice + (f", with the noise of {found.images} test images" if found.images else "")
    interval = f"95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f}; {how}"
    points = f"{100 * found.difference:+.2f} points"
    if found.apart:
        ahead, behind = (second, first) if found.difference > 0 else (first, second)
        return f"{ahead} is ahead of {behind}: {points} ({interval})"
    if found.method == "none":
        return f"{second} and {first} cannot be told apart: {points} ({how}, no interval)"
    return f"{second} and {first} cannot be told apart: {points} ({interval}); {_power(found)}"


def _power(found: Comparison) -> str:
    """How many runs would show a difference of one point, in words."""
    if found.needed is None:
        few = found.images is not None and _half_width([], found.noise, 0.95) > POINT
        return "no number of seeds would show a difference of one point" + (" on so few images" if few else "")
    what = "pairs" if found.method == "paired" else "runs of each"
    return f"a difference of one point would take {found.needed} {what}"


def binomial_variance(accuracy: float, images: int) -> float:
    """Variance of an accuracy (a fraction of 1) that was read on `images` images.

    One success and one failure are added, as Agresti and Caffo (2000) do for differences of proportions: without them
    an accuracy of 1 would have no variance.

    Example:
        >>> round(binomial_variance(0.5, 98), 4)
        0.0025
    """
    share = (accuracy * images + 1) / (images + 2)
    return share * (1 - share) / (images + 2)


def _half_width(parts: Sequence[tuple[float, int]], noise: float, level: float) -> float:
    """Half the width of the t interval by a sum of variances, with Satterthwaite's degrees of freedom.

    Args:
        parts: the estimated variances, each with its degrees of freedom.
        noise: a known variance.
        level: the level of the interval.
    """
    variance = sum(part for part, _ in parts) + noise
    spread = sum(part**2 / freedom for part, freedom in parts)
    if not variance:
        return 0.0
    degrees = variance**2 / spread if spread > 1e-12 * variance**2 else 1e12
    return float(stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance)
