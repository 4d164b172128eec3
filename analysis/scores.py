"""Test accuracies of a retrain over seeds: the mean with its interval, and what they say beside a random genotype."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .statistics import Comparison, comparison, mean_interval, verdict


@dataclass(frozen=True)
class Score:
    """Test accuracy (a fraction of 1) of one genotype over seeds, and what stands beside it.

    Attributes:
        accuracies: the accuracy of each seed.
        balanced_accuracies: mean recall of the classes, by seed.
        images: number of the test images, the same for all seeds.
        recalibration_batches: the number of batches from which batch normalisation was recalibrated after a very short
            training; else 0.
    """

    accuracies: tuple[float, ...]
    balanced_accuracies: tuple[float, ...] = ()
    images: int | None = None
    recalibration_batches: int = 0

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def interval(self) -> float | None:
        """Half of the 95 % interval of the mean, over seeds and test images; None for a single seed."""
        found = mean_interval(self.accuracies, images=self.images)
        return None if found.count < 2 else found.high - found.mean

    def __str__(self) -> str:
        if self.interval is None:
            return f"{100 * self.mean:.2f} %"
        of = f"{len(self.accuracies)} seeds" + ("" if self.images is None else f", {self.images} test images")
        return f"{100 * self.mean:.2f} ± {100 * self.interval:.2f} % (95 % interval, {of})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "accuracies": list(self.accuracies),
            "mean": self.mean,
            "interval_95": self.interval,
            "balanced_accuracies": list(self.balanced_accuracies),
            "test_images": self.images,
            "recalibration_batches": self.recalibration_batches,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        """The score that `result.json` holds. One of an earlier version has only accuracies, by running statistics."""
        return cls(
            tuple(data["accuracies"]),
            tuple(data.get("balanced_accuracies", ())),
            data.get("test_images"),
            data.get("recalibration_batches", 0),
        )


def beside_random(seeds: Sequence[int], scores: Mapping[str, Score]) -> Comparison | None:
    """The genotype's accuracies against those of random ones, on the same test images.

    With one random genotype, its accuracies and those of the genotype are paired by seed. With several, the mean of
    each random genotype counts as one run. These runs are compared with the genotype's seeds by Welch's interval, so
    that the spread of random architectures is part of the interval.

    Args:
        seeds: the seeds of all contenders, in the order of their accuracies.
        scores: the score of each contender by its name. Names of random genotypes begin with `random`.

    Returns:
        The comparison; None if no random genotype was trained.
    """
    drawn = _drawn(scores)
    if not drawn:
        return None
    first = list(zip(seeds, drawn[0].accuracies, strict=True))
    if len(drawn) > 1:
        first = [(-1 - number, one.mean) for number, one in enumerate(drawn)]  # no seed: nothing to pair by
    return comparison(first, list(zip(seeds, scores["genotype"].accuracies, strict=True)), drawn[0].images)


def _drawn(scores: Mapping[str, Score]) -> list[Score]:
    return [score for name, score in scores.items() if name.startswith("random")]


def beside_start(seeds: Sequence[int], scores: Mapping[str, Score]) -> Comparison | None:
    """The genotype's accuracies against those of the architecture that its search started from, paired by seed.

    Returns:
        The comparison; None if the start was not trained.
    """
    if "start" not in scores:
        return None
    first, found = (list(zip(seeds, scores[name].accuracies, strict=True)) for name in ("start", "genotype"))
    return comparison(first, found, scores["start"].images)


def start_verdict(found: Comparison) -> str:
    """The comparison of `beside_start` in words."""
    sentence = verdict(found, "the genotype", "the start architecture")
    return f"{sentence[0].upper()}{sentence[1:]}."


def deviations(scores: Mapping[str, Score]) -> dict[str, float] | None:
    """How much random genotypes differ, and how much the seeds of one of them: standard deviations of test accuracies.

    They are those of a one-way analysis of variance with random effects. The variance of the seeds is pooled over the
    genotypes. From the variance between the means of the genotypes the share of the seeds is taken off.

    Returns:
        The standard deviations between `architectures` and between `seeds`, as fractions of 1; None with fewer than two
        random genotypes or fewer than two seeds.
    """
    drawn = _drawn(scores)
    if len(drawn) < 2 or len(drawn[0].accuracies) < 2:
        return None
    within = statistics.fmean(statistics.variance(one.accuracies) for one in drawn)
    between = statistics.variance([one.mean for one in drawn]) - within / len(drawn[0].accuracies)
    return {"architectures": math.sqrt(max(0.0, between)), "seeds": math.sqrt(within)}


def random_verdict(found: Comparison, scores: Mapping[str, Score]) -> str:
    """The comparison of `beside_random` in words, and what is known of the spread of random genotypes."""
    drawn = _drawn(scores)
    if len(drawn) == 1:
        sentence = verdict(found, "the genotype", "the random genotype")
        more = " --seeds 4 gives an interval." if found.method == "none" else ""
        more += " The random genotype is one architecture: its seeds show no spread of random architectures."
        return f"{sentence[0].upper()}{sentence[1:]}.{more}"
    sentence = verdict(found, "the genotype", f"{len(drawn)} random genotypes")
    ahead = sum(scores["genotype"].mean > one.mean for one in drawn)
    more = f" It is ahead of {ahead} of them."
    if (apart := deviations(scores)) is not None:
        more += (
            f" Random genotypes differ by a standard deviation of {100 * apart['architectures']:.2f} points, the seeds "
            f"of one by {100 * apart['seeds']:.2f}."
        )
    return f"{sentence[0].upper()}{sentence[1:]}.{more}"
