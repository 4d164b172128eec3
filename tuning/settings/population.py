"""Population based training (Jaderberg et al. 2017): what its members begin with, and how a setting is perturbed.

A member that falls behind takes over the state of a member that is ahead, and the settings of that member, each of them
perturbed, that is, changed a little or drawn anew. So the space may hold only settings that a search can change before
its end without a change of any shape. This module imports no Ray.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import ExperimentConfig

from .distributions import AnyDistribution, CategoricalDistribution
from .space import Space

PERTURBABLE = (
    "search.lr",
    "search.momentum",
    "search.weight_decay",
    "search.grad_clip",
    "search.w_zero_one",
    "alpha.lr",
    "alpha.weight_decay",
    "ablation.weight",
    "ablation.eps",
)
"""Settings that a search reads anew at every epoch and that no stored tensor depends on."""

FACTORS = (0.8, 1.25)
RESAMPLED = 0.25
"""Share of the settings of a member that are drawn anew instead of multiplied by a factor."""


def check_population(space: Space, where: str) -> None:
    """Check that a space holds only what can change during a search.

    Raises:
        UserError: the space holds another setting, or a condition.
    """
    for path, distribution in space.distributions:
        if path not in PERTURBABLE:
            raise UserError(
                f"{where}: space.{path} cannot change during a search, as tune.scheduler pbt needs: "
                f"choose from {', '.join(PERTURBABLE)}"
            )
        if distribution.when:
            raise UserError(f"{where}: space.{path}.when has no place with tune.scheduler pbt: every member has it")


def draw_population(
    space: Space, size: int, seed: int, points: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The parameters that each member begins with: the first members get those of `points`, all others are drawn.

    A member's draws follow from the seed and its number.
    """
    members = [space(_Draw(random.Random(f"{seed}/member/{number}"))) for number in range(size)]
    return [{**member, **point} for member, point in zip(members, [*points, *({} for _ in range(size))], strict=False)]


def exchange(accuracies: Mapping[int, float], share: float, seed: int, epochs: int) -> dict[int, int]:
    """Who follows whom: each member of the worst share of a population takes over from a member of the best share.

    The result follows from the accuracies, the seed, the members' numbers and the epoch, and not from which member is
    quicker. Of two members with equal accuracies, the one with the lower number is behind.

    Args:
        accuracies: the accuracy of each member at the exchange, by the number of the member.
        share: the share of the members that are behind. Their number is rounded up, and is at most a half of all.
        seed: the seed of the sweep.
        epochs: the number of search epochs at which the exchange takes place.

    Returns:
        For each member that is behind, the member that it follows, by their numbers.

    Example:
        >>> exchange({0: 0.5, 1: 0.1, 2: 0.9}, 0.34, seed=0, epochs=2)
        {1: 2}
    """
    ranked = sorted(sorted(accuracies), key=lambda number: accuracies[number])
    count = min(math.ceil(len(ranked) * share), len(ranked) // 2)
    ahead = ranked[len(ranked) - count :]
    draws = {number: random.Random(f"{seed}/follow/{number}/{epochs}") for number in ranked[:count]}
    return {number: draw.choice(ahead) for number, draw in draws.items()}


def perturb(space: Space, params: Mapping[str, Any], stream: random.Random) -> dict[str, Any]:
    """Draw each parameter anew or, more often, move it a little.

    A number is moved by a factor of `FACTORS`, and a choice to the choice beside it.
    """
    return {
        path: distribution.suggest(_Draw(stream), path)
        if stream.random() < RESAMPLED
        else _neighbour(distribution, params[path], stream)
        for path, distribution in space.distributions
    }


def _neighbour(distribution: AnyDistribution, value: Any, stream: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        place = distribution.choices.index(value) + stream.choice((-1, 1))
        return distribution.choices[min(max(place, 0), len(distribution.choices) - 1)]
    moved = min(max(value * stream.choice(FACTORS), distribution.low), distribution.high)
    if distribution.step is not None:
        moved = distribution.low + distribution.step * round((moved - distribution.low) / distribution.step)
    return type(distribution.low)(moved)


class _Draw:
    """Draws values as an Optuna trial does, from a stream of random numbers."""

    def __init__(self, stream: random.Random) -> None:
        self._stream = stream

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        if step is not None:
            return low + step * self._stream.randint(0, int((high - low) / step + 1e-9))
        if log:
            return min(max(math.exp(self._stream.uniform(math.log(low), math.log(high))), low), high)
        return self._stream.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        if log:
            return min(max(round(math.exp(self._stream.uniform(math.log(low), math.log(high)))), low), high)
        return self._stream.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._stream.choice(choices)


def adopt(state: Mapping[str, Any], config: ExperimentConfig, config_hash: str) -> dict[str, Any]:
    """Turn the state of a search into that of the same search with other settings of `PERTURBABLE`.

    The optimisers store some settings beside their momenta, which are replaced. The learning rates are set anew at
    every epoch anyway.
    """

    def with_settings(optimiser: Mapping[str, Any], **settings: float) -> dict[str, Any]:
        return {**optimiser, "param_groups": [{**group, **settings} for group in optimiser["param_groups"]]}

    search, alpha = config.search, config.alpha
    return {
        **state,
        "config_hash": config_hash,
        "sgd": with_settings(state["sgd"], momentum=search.momentum, weight_decay=search.weight_decay),
        "adams": [with_settings(adam, weight_decay=alpha.weight_decay) for adam in state["adams"]],
    }
