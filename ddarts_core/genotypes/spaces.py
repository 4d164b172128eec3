"""Operation names of the search spaces (D-DARTS sections 3 and 4.4). Torch-free.

To add an operation, write its name into a space here, and its factory into `operations.OPERATIONS`. A plug-in adds both
through `registry.Registry`.
"""

from __future__ import annotations

from ..ground.table import Table

#: Search space S: the seven operations of D-DARTS and FairDARTS, in the order of the published alphas.
S = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

#: Search space S_o of DARTOpti (section 4.4 iv): S and five more operations, in the published order.
S_O = (
    "conv_3x1_1x3",
    "conv_7x1_1x7",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "simple_conv_1x1",
    "simple_conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "bottleneck_1x3x1",
)

#: DARTS' own space: S with the zero operation first.
S_NONE = ("none", *S)

#: Three operations of S that do different things: small enough that every genotype can be trained (`ddarts truth`).
S_3 = ("max_pool_3x3", "skip_connect", "sep_conv_3x3")

#: Operation names by space, each in the order of the last axis of its alphas.
SPACES: Table[tuple[str, ...]] = Table("search space", {"S": S, "S_o": S_O, "S_none": S_NONE, "S_3": S_3})

#: Every operation that a genotype may name (the zero operation is never part of a genotype).
OPERATION_NAMES = {*S, *S_O, "sep_conv_7x7", "simple_conv_5x5"}


def operations_of(space: str) -> tuple[str, ...]:
    """Operation names of a space, in the order of the last axis of its alphas.

    Raises:
        UserError: the space is not in `SPACES`.
    """
    return SPACES.known(space)


def num_edges(steps: int) -> int:
    """Number of edges of a cell with `steps` nodes: node i (from 0) has i + 2 incoming edges, so 14 for 4 nodes."""
    return steps * (steps + 3) // 2


def edge_list(steps: int) -> tuple[tuple[int, int], ...]:
    """(source, target) of every edge, ordered by target node, then source; inputs are 0 and 1, nodes start at 2."""
    return tuple((source, target) for target in range(2, steps + 2) for source in range(target))


def edges_into(steps: int) -> tuple[range, ...]:
    """For each intermediate node, the numbers in `edge_list` of the edges that enter it: 0 and 1, then 2 to 4, ..."""
    return tuple(range(num_edges(node), num_edges(node + 1)) for node in range(steps))


def default_reductions(num_cells: int) -> tuple[int, int]:
    """Positions of the two reduction cells: n//3 and 2n//3 (D-DARTS section 4.3; 8 -> 2 and 5)."""
    return num_cells // 3, 2 * num_cells // 3


def cell_space_size(num_operations: int, steps: int) -> int:
    """Size of the search space of one cell (D-DARTS eq. 5): prod_i (i + 1) i / 2 * K^2; 1,037,664,180 for K=7, N=4."""
    size = 1
    for i in range(1, steps + 1):
        size *= (i + 1) * i // 2 * num_operations**2
    return size
