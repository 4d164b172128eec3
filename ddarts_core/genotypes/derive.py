"""Larger networks from a searched one (D-DARTS Algorithm 1), as pure index arithmetic. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..ground.errors import UserError
from .dead_cells import connect, dead_cells, dead_sentence
from .genotype import AnyGenotype, Cell, Edge, Genotype
from .spaces import default_reductions

Order = Literal["paper", "published"]

OnDeadCell = Literal["warn", "connect", "error"]

#: Depth to which each form of a network stacks a genotype of a normal and a reduction cell.
DEPTH: Mapping[str, int] = {"cifar": 20, "imagenet": 14, "imagenet-published": 14}

#: Fewest searched cells that leave a normal cell in each of the three segments.
SMALLEST = 5


def algorithm_1(num_searched: int, num_cells: int, order: Order = "paper") -> list[int]:
    """Which searched cell stands at each position of the larger network.

    The reduction cells m = |C|//3 and m2 = 2|C|//3 move to n//3 and 2n//3. They part the network into three segments,
    and the normal cells of each segment are repeated within this segment. `published` reproduces the published code,
    where the first segment has the searched cell (i mod |C|) // 3 at position i, instead of i mod (|C| // 3).

    Raises:
        UserError: the network would have fewer cells than were searched, or fewer than five cells were searched, so
            that a segment has no normal cell to repeat.

    Example:
        >>> algorithm_1(8, 14)
        [0, 1, 0, 1, 2, 4, 3, 4, 3, 5, 6, 7, 6, 7]
    """
    if order not in ("paper", "published"):
        raise UserError(f"unknown order {order!r} of Algorithm 1: choose one of paper, published")
    if num_searched == num_cells:
        return list(range(num_cells))
    if num_cells < num_searched:
        raise UserError(
            f"cannot derive {num_cells} cells from a genotype of {num_searched}: Algorithm 1 only adds cells "
            f"(use {num_searched} or more)"
        )
    if num_searched < SMALLEST:
        raise UserError(
            f"cannot derive {num_cells} cells from a genotype of {num_searched}: Algorithm 1 needs a normal cell "
            f"before, between and after the two reduction cells (the smallest genotype has {SMALLEST} cells)"
        )
    first, second = default_reductions(num_searched)
    start, end = default_reductions(num_cells)
    indices = []
    for i in range(num_cells):
        if i < start:
            index = i % first if order == "paper" else (i % num_searched) // 3
        elif i == start:
            index = first
        elif i < end:
            index = i % (second - 1 - first) + first + 1
        elif i == end:
            index = second
        else:
            index = i % (num_searched - 1 - second) + second + 1
        indices.append(index)
    return indices


def deeper(genotype: Genotype, num_cells: int, order: Order = "paper") -> Genotype:
    """The genotype derived to `num_cells` cells, with reduction cells at n//3 and 2n//3.

    A `normal_reduce` genotype is stacked as in DARTS. A genotype that already has `num_cells` cells is returned as it
    is, with its own reductions.

    Raises:
        UserError: see `algorithm_1`; or an individual genotype does not have exactly two reduction cells.
    """
    if genotype.layout == "normal_reduce":
        return stack(genotype, num_cells, default_reductions(num_cells))
    if genotype.num_cells == num_cells:
        return genotype
    indices = algorithm_1(genotype.num_cells, num_cells, order)
    if genotype.has_links:
        raise UserError(
            f"cannot derive {num_cells} cells: Algorithm 1 does not say what the links of this genotype become (keep "
            f"its {genotype.num_cells} cells)"
        )
    if len(genotype.reductions) != 2:
        raise UserError(
            f"cannot derive {num_cells} cells: Algorithm 1 is defined for two reduction cells, this genotype has "
            f"{len(genotype.reductions)} (keep its {genotype.num_cells} cells)"
        )
    return Genotype(
        tuple(genotype.cells[index] for index in indices), tuple(sorted(set(default_reductions(num_cells))))
    )


def stack(genotype: Genotype, num_cells: int, reductions: Sequence[int]) -> Genotype:
    """Make an individual genotype from a `normal_reduce` one.

    The reduction cell stands at the positions `reductions`, and the normal cell everywhere else.

    Raises:
        UserError: the genotype has another layout, or a position is not one of the cells.
    """
    if genotype.layout != "normal_reduce":
        raise UserError("only a normal_reduce genotype can be stacked to any depth")
    if num_cells < 1:
        raise UserError(f"num_cells {num_cells} must be 1 or more")
    normal, reduction = genotype.cells
    positions = tuple(sorted(set(reductions)))
    cells: tuple[Cell, ...] = tuple(reduction if i in positions else normal for i in range(num_cells))
    return Genotype(cells, positions)


def arrange(
    genotype: Genotype,
    num_cells: int | None = None,
    reductions: str | Sequence[int] | None = None,
    order: Order = "paper",
    on_dead_cell: OnDeadCell = "warn",
) -> Genotype:
    """The individual genotype that a network is built from: depth by Algorithm 1 or stacking, reductions, dead cells.

    Algorithm 1 takes the searched cells at n//3 and 2n//3 for the reduction cells, whatever a genotype says.

    Args:
        genotype: a genotype of either layout.
        num_cells: the depth; None keeps the depth of an individual genotype.
        reductions: `thirds` (n//3 and 2n//3), `genotype` (the positions in the genotype, taken literally even when
            the network is deeper), or positions. None is `genotype` when the depth is kept, else `thirds`.
        order: the order of Algorithm 1.
        on_dead_cell: what becomes of cells of the network that nothing reads. `warn` leaves them, so that
            `dead_cells.dead_cells` can tell them. `connect` gives the cell behind each of them a skip connection, from
            its input 1 to the first node that it concatenates (which operation the search would have preferred is not
            known here). `error` refuses them.

    Raises:
        UserError: there are dead cells and `on_dead_cell` is `error`; a `normal_reduce` genotype comes without a depth;
            the depth or the positions are impossible; or `reductions` is None, and the network is to be deeper than a
            genotype whose reduction cells are not at its thirds.
    """
    if num_cells is None and genotype.layout == "normal_reduce":
        raise UserError(
            "a normal_reduce genotype has no depth of its own: give num_cells (20 for CIFAR, 14 for ImageNet)"
        )
    count = genotype.num_cells if num_cells is None else num_cells
    kept = genotype.layout == "individual" and count == genotype.num_cells
    if reductions is None and not kept:
        _check_thirds(genotype, count)
    if reductions is None:
        reductions = "genotype" if kept else "thirds"
    if isinstance(reductions, str):
        if reductions not in ("thirds", "genotype"):
            raise UserError(f"reductions {reductions!r}: choose thirds, genotype, or positions such as 2,5")
        literal = reductions == "genotype" and genotype.layout == "individual"
        positions = genotype.reductions if literal else default_reductions(count)
    else:
        positions = tuple(reductions)
    if any(not 0 <= position < count for position in positions):
        raise UserError(f"reductions {list(positions)} must be positions of the {count} cells (0 to {count - 1})")
    positions = tuple(sorted(set(positions)))
    if genotype.layout == "normal_reduce":
        whole = stack(genotype, count, positions)
    else:
        whole = Genotype(deeper(genotype, count, order).cells, positions)
    if on_dead_cell == "connect":
        cells, _ = connect(whole.cells, lambda _, reader: Edge(reader.concat[0], 1, "skip_connect"))
        return Genotype(cells, positions)
    dead = dead_cells(whole.cells)
    if dead and on_dead_cell == "error":
        raise UserError(f"{dead_sentence(dead, count)}: set on_dead_cell to connect or warn, or choose another depth")
    return whole


def as_built(
    genotype: AnyGenotype,
    form: str,
    num_cells: int | None = None,
    reductions: str | Sequence[int] | None = None,
    order: Order = "paper",
    on_dead_cell: OnDeadCell = "warn",
) -> AnyGenotype:
    """The genotype of the network that is built from a genotype of any kind.

    A genotype of cells is arranged (`arrange`), with the depth `DEPTH` if it has no depth of its own. A genotype of
    another kind is built as it is.

    Raises:
        UserError: see `arrange`; or a depth or reductions are given for a genotype that is not of cells.
    """
    if isinstance(genotype, Genotype):
        depth = DEPTH[form] if num_cells is None and genotype.layout == "normal_reduce" else num_cells
        return arrange(genotype, depth, reductions, order, on_dead_cell)
    if num_cells is not None or reductions is not None:
        raise UserError(
            f"a genotype of layout {genotype.layout} has its own depth and strides: leave num_cells and reductions out"
        )
    return genotype


def trained(genotype: AnyGenotype, settings: Mapping[str, Any]) -> AnyGenotype:
    """The genotype of the network that `ddarts retrain` builds with these settings of the group `retrain`.

    Raises:
        UserError: see `as_built`.
    """
    order, rule = settings.get("derive_order", "paper"), settings.get("on_dead_cell", "warn")
    form = settings.get("form", "cifar")
    return as_built(genotype, form, settings.get("num_cells"), settings.get("reductions"), order, rule)


def _check_thirds(genotype: Genotype, num_cells: int) -> None:
    thirds = default_reductions(genotype.num_cells)
    if genotype.layout == "individual" and len(genotype.reductions) == 2 and genotype.reductions != thirds:
        raise UserError(
            f"cannot derive {num_cells} cells: Algorithm 1 takes cells {thirds[0]} and {thirds[1]} for the reduction "
            f"cells, this genotype has {genotype.reductions[0]} and {genotype.reductions[1]} (keep its "
            f"{genotype.num_cells} cells; or with reductions thirds, if cells {thirds[0]} and {thirds[1]} were the "
            "reduction cells of the search, as in published files)"
        )
