"""A genotype beside several random ones: the comparison, and two sources of chance told apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ddarts_analysis.scores import Score, beside_random, deviations, random_verdict
from scipy import stats

SEEDS = (4, 5, 6)
SCORES = {
    "genotype": Score((0.95, 0.96, 0.955)),
    "random": Score((0.90, 0.91, 0.905)),
    "random-2": Score((0.92, 0.925, 0.93)),
    "random-3": Score((0.96, 0.955, 0.965)),
}


def test_the_means_of_random_genotypes_are_the_runs_that_it_is_compared_with() -> None:
    found = beside_random(SEEDS, SCORES)
    assert found is not None
    means = [score.mean for name, score in SCORES.items() if name != "genotype"]
    expected = stats.ttest_ind(SCORES["genotype"].accuracies, means, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.method == "welch"
    words = random_verdict(found, SCORES)
    assert words.startswith("The genotype and 3 random genotypes cannot be told apart: +2.")
    assert "It is ahead of 2 of them." in words


def test_seeds_and_architectures_differ_by_what_an_analysis_of_variance_says() -> None:
    table = np.array([SCORES[name].accuracies for name in ("random", "random-2", "random-3")])
    groups, seeds = table.shape
    within = ((table - table.mean(1, keepdims=True)) ** 2).sum() / (groups * (seeds - 1))
    between = seeds * ((table.mean(1) - table.mean()) ** 2).sum() / (groups - 1)
    assert between / within == pytest.approx(stats.f_oneway(*table).statistic)
    found = deviations(SCORES)
    assert found == {
        "architectures": pytest.approx(math.sqrt((between - within) / seeds)),
        "seeds": pytest.approx(math.sqrt(within)),
    }
    assert deviations({name: SCORES[name] for name in ("genotype", "random")}) is None


def test_one_random_genotype_is_paired_by_seed() -> None:
    found = beside_random(SEEDS, {name: SCORES[name] for name in ("genotype", "random")})
    assert found is not None
    assert found.choice == "no spread", "all three differences are equal"
    assert beside_random(SEEDS, {"genotype": SCORES["genotype"]}) is None
