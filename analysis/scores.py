"""Test accuracies of a retrain over seeds: the mean with its interval, and what they say beside a random genotype."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .statistics import Comparison, comparison, mean_interval, verdict


@dataclass(frozen=True)
class Score:
    """Test accuracy (a fraction of 1) of one genotype over seeds, and what stands beside it.

    Attributes:
        accuracies: by seed.
        balanced_accuracies: mean recall of the classes, by seed.
        images: number of the test images, the same for all seeds.
        recalibration_batches: that batch normalisation was recalibrated from after a very short training, else 0.
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
    """The genotype's accuracies against those of the random one with the same seeds, on the same test images.

    Args:
        seeds: of both, in the order of their accuracies.
        scores: by the contender's name.

    Returns:
        The comparison; None if no random genotype was trained.
    """
    if "random" not in scores:
        return None
    random, searched = (list(zip(seeds, scores[name].accuracies, strict=True)) for name in ("random", "genotype"))
    return comparison(random, searched, scores["random"].images)


def random_verdict(found: Comparison) -> str:
    """The comparison of `beside_random` in words, and what it does not say."""
    sentence = verdict(found, "the genotype", "the random genotype")
    more = " --seeds 4 gives an interval." if found.method == "none" else ""
    return (
        f"{sentence[0].upper()}{sentence[1:]}.{more} The random genotype is one architecture: its seeds show no spread "
        "of random architectures."
    )
