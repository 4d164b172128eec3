"""The comparison of two groups of runs, against scipy's tests, arithmetic by hand, and chance itself."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from ddarts_analysis.statistics import FEWEST, binomial_variance, comparison, mean_interval, verdict
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda v: max(v) - min(v) > 1e-3))
def test_interval_is_students(values):
    got = mean_interval([*values, math.nan])
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    assert (got.low, got.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert got.count == len(values)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([2.0]).mean == 2.0 and math.isnan(mean_interval([2.0]).low)
    assert math.isnan(mean_interval([]).mean) and mean_interval([math.nan]).count == 0


def numbered(values):
    return list(enumerate(values))


groups = st.lists(st.floats(-100, 100), min_size=3, max_size=6).filter(lambda v: max(v) - min(v) > 1e-3)


def ends(found):
    return [pytest.approx(found.low, abs=1e-6), pytest.approx(found.high, abs=1e-6)]


@given(groups, groups)
def test_groups_that_share_no_seed_are_compared_by_welch(first, second):
    expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    shifted = [(seed + 100, value) for seed, value in numbered(second)]
    got = comparison(numbered(first), [*shifted, (7, math.nan)])
    assert [got.low, got.high] == ends(expected) and got.method == "welch"
    assert (got.counts, got.left_out) == ((len(first), len(second)), 1)


@given(groups, st.lists(st.booleans(), min_size=6, max_size=6))
def test_shared_seeds_are_paired_and_a_run_without_a_value_leaves_with_its_partner(first, known):
    second = [value + 1 + 0.1 * seed**2 for seed, value in numbered(first)]
    lacking = [(seed, value if known[seed] else math.nan) for seed, value in numbered(second)]
    kept = [seed for seed in range(len(first)) if known[seed]]
    got = comparison(numbered(first), lacking[::-1])
    assert got.left_out == 2 * (len(first) - len(kept))
    if len(kept) < FEWEST:
        assert (got.method, got.apart) == ("none", False) and math.isnan(got.low)
        return
    expected = stats.ttest_rel([second[k] for k in kept], [first[k] for k in kept]).confidence_interval(0.95)
    assert [got.low, got.high] == ends(expected) and got.method == "paired"
    fewer = [run for run in numbered(second) if known[run[0]]]
    assert comparison(numbered(first), fewer).low == got.low, "a run that is missing is one without a value"


def test_the_audits_cases():
    """One run without a value made three pairs a comparison of unpaired means; two seeds had no width at all."""
    before, after = [(0, 0.90), (1, 0.94), (2, 0.98), (3, 0.92)], [(0, 0.91), (1, 0.952), (2, 0.99), (3, math.nan)]
    found = comparison(before, after)
    assert found.choice == "3 pairs, 2 left out" and found.apart
    assert not comparison([(s + 9, v) for s, v in before], after).apart, "unpaired, the seeds hide it"
    one_image = [(0, 349 / 360), (1, 351 / 360)], [(0, 350 / 360), (1, 352 / 360)]
    assert comparison(*one_image).choice == "fewer than 3 runs" and not comparison(*one_image).apart
    four = [[(s, (k + more) / 360) for s, k in enumerate((349, 350, 351, 349))] for more in (0, 1)]
    assert comparison(*four).choice == "no spread" and not comparison(*four).apart
    noisy = comparison(*four, images=360)
    assert noisy.method == "paired" and not noisy.apart
    share = [(sum(v for _, v in group) / 4 * 360 + 1) / 362 for group in four]
    noise = sum(p * (1 - p) / 362 for p in share)
    assert noisy.high - noisy.low == pytest.approx(2 * 1.959964 * math.sqrt(noise), rel=1e-5)
    assert verdict(noisy, "a", "b").startswith("a and b cannot be told apart: +0.28 points (95 % interval -")
    assert "4 pairs, with the noise of 360 test images" in verdict(noisy, "a", "b")
    far = comparison(*[[(s, v - 0.1 * g) for s, v in group] for g, group in enumerate(four)], images=360)
    assert verdict(far, "a", "b").startswith("b is ahead of a: -9.72 points")


def test_seeds_that_repeat_are_not_paired():
    first, second = [(0, 1.0), (0, 2.0), (0, 4.0)], [(0, 1.5), (0, 2.6), (0, 3.0)]
    assert comparison(first, second).choice == "Welch, 3 and 3 runs"
    assert comparison(first, []).choice == "fewer than 3 runs"


@pytest.mark.parametrize("paired", [True, False])
def test_so_many_runs_as_are_needed_make_an_interval_of_a_point(paired):
    """With the spread that was seen, the interval of so many is a point to either side, and that of one less wider."""
    draw = random.Random(1)
    first, second = ([0.9 + draw.gauss(0, 0.02) for _ in range(5)] for _ in range(2))
    found = comparison(numbered(first), [(seed + 9 * (not paired), value) for seed, value in numbered(second)])

    def half(number):
        variances = (
            [float(np.var(np.subtract(second, first), ddof=1))]
            if paired
            else [np.var(first, ddof=1), np.var(second, ddof=1)]
        )
        shares = [variance / number for variance in variances]
        freedom = sum(shares) ** 2 / sum(share**2 / (number - 1) for share in shares)
        return stats.t.ppf(0.975, freedom) * math.sqrt(sum(shares))

    assert 5 < found.needed < 200
    assert half(found.needed) <= 0.01 < half(found.needed - 1)
    assert f"would take {found.needed} {'pairs' if paired else 'runs of each'}" in verdict(found, "a", "b")
    assert found.to_dict()["needed"] == found.needed


def test_too_few_images_show_no_point_however_many_seeds_there_are():
    runs = [numbered([0.9, 0.91, 0.905]), numbered([0.9, 0.912, 0.9])]
    assert verdict(comparison(*runs, images=360), "a", "b").endswith(
        "no number of seeds would show a difference of one point on so few images"
    )
    assert comparison(*runs).needed == 3
    assert comparison(runs[0][:2], runs[1][:2]).needed is None


def test_two_runs_estimate_a_spread_too_badly():
    """How often the spread of so many runs is a tenth of the true one or less: the reason for `FEWEST`."""
    assert [round(float(stats.chi2.cdf(0.01 * (n - 1), n - 1)), 2) for n in (2, FEWEST)] == [0.08, 0.01]


def test_images_and_seeds_add_up():
    """The interval of a mean: variances of the seeds and of the images, with Satterthwaite's degrees of freedom."""
    values = [0.95, 0.97, 0.96]
    seeds, images = 0.01**2 / 3, binomial_variance(0.96, 200)
    degrees = (seeds + images) ** 2 / (seeds**2 / 2)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(seeds + images)
    found = mean_interval(values, images=200)
    assert (found.high - found.mean, found.mean - found.low) == (pytest.approx(half), pytest.approx(half))
    assert mean_interval([1.0, 1.0], images=50).high > 1, "no image wrong is no proof of none"


@pytest.mark.parametrize("kind", ["welch", "paired"])
def test_equal_groups_are_told_apart_as_seldom_as_the_level_says(kind):
    """Three runs each, 2,000 times: a percentile bootstrap finds 19 % of them different."""
    draw = random.Random(0)
    alarms = 0
    for _ in range(2000):
        first, second = ([draw.gauss(0, 1) for _ in range(3)] for _ in range(2))
        later = numbered(second) if kind == "paired" else [(9 + seed, value) for seed, value in numbered(second)]
        found = comparison(numbered(first), later)
        assert found.method == kind
        alarms += found.apart
    assert alarms / 2000 < 0.06
