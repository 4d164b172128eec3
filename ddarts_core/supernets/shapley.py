"""Shapley values of a game of few players: exact, or sampled with a standard error. Torch-free.

The marginal contribution of eq. 6 is the leave-one-out value, v(N) - v(N without i): one of the terms that a Shapley
value averages, not the Shapley value itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, sqrt

from ..ground.errors import UserError

MAX_EXACT_PLAYERS = 10

Value = Callable[[frozenset[int]], float]


@dataclass(frozen=True)
class ShapleyValues:
    """Shapley values of a game.

    Attributes:
        values: the value of each player.
        standard_errors: the standard error of each value if the values are sampled; zeros if they are exact.
    """

    values: tuple[float, ...]
    standard_errors: tuple[float, ...]


def _cached(value: Value) -> Value:
    cache: Callable[[Hashable], float] = lru_cache(maxsize=None)(value)
    return cache


def exact(num_players: int, value: Value) -> ShapleyValues:
    """Shapley values by the definition: mean marginal contribution over all coalitions (Shapley 1953).

    Each of the 2^n coalitions is valued once.

    Args:
        num_players: n; the players are the numbers from 0.
        value: returns what a coalition, a set of players, is worth.

    Raises:
        UserError: more than `MAX_EXACT_PLAYERS` players.

    Example:
        >>> exact(2, lambda coalition: float(len(coalition) == 2)).values
        (0.5, 0.5)
    """
    if num_players > MAX_EXACT_PLAYERS:
        raise UserError(
            f"{num_players} players have {2**num_players} coalitions: exact Shapley values take at most "
            f"{MAX_EXACT_PLAYERS} players, sample beyond"
        )
    worth = _cached(value)
    values = []
    for player in range(num_players):
        others = [other for other in range(num_players) if other != player]
        total = 0.0
        for size in range(num_players):
            weight = 1 / (num_players * comb(num_players - 1, size))
            for members in combinations(others, size):
                coalition = frozenset(members)
                total += weight * (worth(coalition | {player}) - worth(coalition))
        values.append(total)
    return ShapleyValues(tuple(values), (0.0,) * num_players)


def sampled(num_players: int, value: Value, *, permutations: int, seed: int) -> ShapleyValues:
    """Shapley values estimated from random orders of the players, with standard errors.

    The estimates are unbiased. For any number of permutations they sum to v(all) - v(none).

    Args:
        num_players: the number of players, who are the numbers from 0.
        value: returns what a coalition, a set of players, is worth; each coalition is valued once at most.
        permutations: the number of random orders.
        seed: the seed of the random orders.

    Raises:
        UserError: fewer than two permutations, from which no standard error follows.
    """
    if permutations < 2:
        raise UserError(f"permutations {permutations} must be 2 or more to estimate a standard error")
    worth = _cached(value)
    rng = random.Random(seed)
    found: list[list[float]] = [[] for _ in range(num_players)]
    for _ in range(permutations):
        order = rng.sample(range(num_players), num_players)
        before: frozenset[int] = frozenset()
        for player in order:
            after = before | {player}
            found[player].append(worth(after) - worth(before))
            before = after
    means = [sum(f) / permutations for f in found]
    errors = [
        sqrt(sum((x - mean) ** 2 for x in f) / (permutations - 1) / permutations)
        for f, mean in zip(found, means, strict=True)
    ]
    return ShapleyValues(tuple(means), tuple(errors))
