"""The cells of a supernet as players of a game: what a coalition of them is worth (D-DARTS section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..settings.search_settings import Removal
from . import shapley
from .supernet import Cell, Supernet, batch_statistics


def coalition_worth(
    net: Supernet, images: Tensor, labels: Tensor, gates: Tensor, removal: Removal = "identity"
) -> Callable[[frozenset[int]], float]:
    """The game v(S) = -L_CE of the network whose groups of cells outside S are removed, in nats.

    The network normalises by batch statistics. The marginal contribution of eq. 6 is v(all without i) - v(all);
    `shapley.exact(net.num_groups, worth)` averages over all coalitions instead.

    Args:
        net: the supernet.
        images: the images, [batch, channels, height, width].
        labels: the classes of the images, [batch].
        gates: the gates, [groups, edges, operations].
        removal: what removing means: `identity`, `zero` or `uniform`. A random removal would be another game at every
            call.
    """
    assert removal != "random"

    def worth(present: frozenset[int]) -> float:
        s0, s1 = net.stem(images)
        for k, group in enumerate(net.group_of):
            cell: Cell = net.cells[k]  # type: ignore[assignment]  # ModuleList items are typed Module
            if group in present:
                out = cell(s0, s1, gates[group])
            elif removal == "uniform":
                out = cell(s0, s1, torch.full_like(gates[group], 0.5))
            else:
                out = cell.removed(s0, s1, removal)
            s0, s1 = s1, out
        return -float(F.cross_entropy(net.logits(s1), labels))

    def valued(present: frozenset[int]) -> float:
        net.train()
        with torch.no_grad(), batch_statistics(net):
            return worth(present)

    return valued


def num_coalitions(players: int, permutations: int) -> int:
    """The largest number of networks that `shapley_values` runs: one per coalition, or one per player and permutation.

    Args:
        players: the number of players.
        permutations: the number of random orders, if the values are sampled.
    """
    sampled = permutations * players
    return 2**players if players <= shapley.MAX_EXACT_PLAYERS and 2**players <= sampled else sampled


def shapley_values(
    net: Supernet,
    images: Tensor,
    labels: Tensor,
    gates: Tensor,
    removal: Removal,
    *,
    permutations: int,
    seed: int,
) -> shapley.ShapleyValues:
    """Shapley values, in nats, of the groups of cells in the game L_CE(S), which has the sign of eq. 6: below 0 helps.

    The values are exact if there are no more coalitions than networks that the permutations would run, and no more
    players than `shapley.MAX_EXACT_PLAYERS`. Otherwise they are sampled.

    Args:
        net: the supernet.
        images: the images, [batch, channels, height, width].
        labels: the classes of the images, [batch].
        gates: the gates, [groups, edges, operations].
        removal: what removing means, as for `coalition_worth`.
        permutations: the number of random orders, if the values are sampled.
        seed: the seed of the random orders.
    """
    worth = coalition_worth(net, images, labels, gates, removal)
    players = net.num_groups
    if num_coalitions(players, permutations) == 2**players:
        found = shapley.exact(players, worth)
    else:
        found = shapley.sampled(players, worth, permutations=permutations, seed=seed)
    return shapley.ShapleyValues(tuple(-value for value in found.values), found.standard_errors)
