"""Shapley values on games whose values are known, and the axioms as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.ground.errors import UserError
from ddarts_core.supernets.shapley import exact, sampled


def gloves(coalition):
    """Players 0 and 1 hold left gloves, player 2 a right one: a pair is worth 1. Shapley: 1/6, 1/6, 2/3."""
    return float(2 in coalition and bool(coalition & {0, 1}))


def test_glove_game():
    assert exact(3, gloves).values == pytest.approx((1 / 6, 1 / 6, 2 / 3))


def test_sampled_glove_game_is_within_its_error():
    found = sampled(3, gloves, permutations=2000, seed=0)
    for value, error, true in zip(found.values, found.standard_errors, (1 / 6, 1 / 6, 2 / 3), strict=True):
        assert abs(value - true) < 5 * error
    assert sum(found.values) == pytest.approx(1.0)


games = st.integers(1, 5).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.floats(-10, 10), min_size=2**n, max_size=2**n))
)


def _value(n, table):
    return lambda coalition: table[sum(1 << player for player in coalition)]


@given(games)
def test_efficiency(game):
    n, table = game
    assert sum(exact(n, _value(n, table)).values) == pytest.approx(table[-1] - table[0], abs=1e-9)


@given(games)
def test_null_player(game):
    n, table = game
    doubled = _value(n, table)
    values = exact(n + 1, lambda coalition: doubled(coalition - {n})).values
    assert values[n] == pytest.approx(0, abs=1e-12)
    assert values[:n] == pytest.approx(exact(n, doubled).values, abs=1e-9)


@given(st.lists(st.floats(-10, 10), min_size=5, max_size=5))
def test_symmetry(by_size):
    values = exact(4, lambda coalition: by_size[len(coalition)]).values
    assert values == pytest.approx((values[0],) * 4, abs=1e-9)


def test_limits_are_sentences():
    with pytest.raises(UserError, match="at most 10 players"):
        exact(11, len)
    with pytest.raises(UserError, match="2 or more"):
        sampled(3, gloves, permutations=1, seed=0)
