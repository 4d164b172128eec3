"""Differences between genotypes, and the hypervolume of a Pareto front. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ddarts_core.genotypes.genotype import AnyGenotype, Genotype, Operation
from ddarts_core.ground.errors import UserError


def distance(a: AnyGenotype, b: AnyGenotype) -> float:
    """Share of operations that the two do not have in common (Jaccard distance): 0 for the same, 1 for none in common.

    An operation is one with the same cell position, source, target and name; a cell that only one of them has counts
    with all its operations. It is no metric of genotypes, as 0 does not mean equal: where the reductions are, which
    nodes a cell concatenates, and how often it names an operation are not compared. Equal networks whose nodes are
    numbered differently are not recognised.

    A genotype of a normal and a reduction cell, beside one of individual cells, stands for the network that repeats
    its two cells at the other's positions. One of stages is compared with another one alone, block by block.

    Raises:
        UserError: one is of cells and the other of stages.

    Example:
        >>> from ddarts_core.genotypes.genotype import Cell, Edge
        >>> a = Genotype((Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "skip_connect")), (2,)),))
        >>> b = Genotype((Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), (2,)),))
        >>> round(distance(a, b), 3)
        0.667
    """
    a, b = _side_by_side(a, b)
    ours, theirs = set(a.operations()), set(b.operations())
    return 1 - len(ours & theirs) / len(ours | theirs)


def compare(a: AnyGenotype, b: AnyGenotype) -> dict[str, Any]:
    """What two genotypes have in common and what not, as plain data for `--json`.

    Returns:
        `identical`, `distance`, `a` and `b` (hash, cells, reductions, number of operations and their counts by name),
        and per cell position the operations `only_a`, `only_b` ([operation, source, target]) and how many are `common`.

    Raises:
        UserError: see `distance`.
    """
    equal = a == b
    a, b = _side_by_side(a, b)
    apart = distance(a, b)
    ours, theirs = set(a.operations()), set(b.operations())
    cells = []
    for position in range(max(a.num_cells, b.num_cells)):
        mine = {o for o in ours if o[0] == position}
        other = {o for o in theirs if o[0] == position}
        cells.append(
            {
                "cell": position,
                "common": len(mine & other),
                "only_a": _plain(mine - other),
                "only_b": _plain(other - mine),
            }
        )
    return {"identical": equal, "distance": apart, "a": _summary(a), "b": _summary(b), "cells": cells}


def _side_by_side(a: AnyGenotype, b: AnyGenotype) -> tuple[AnyGenotype, AnyGenotype]:
    """Both genotypes as individual cells, if one of them is of individual cells."""
    if a.layout == b.layout:
        return a, b
    first, second = (Genotype.narrowed(one, "a comparison with a genotype of cells") for one in (a, b))
    if first.layout == "normal_reduce":
        return _repeated(first, second), second
    return first, _repeated(second, first)


def _repeated(pair: Genotype, like: Genotype) -> Genotype:
    """A normal and a reduction cell at the positions of another genotype's cells."""
    normal, reduction = pair.cells
    cells = tuple(reduction if position in like.reductions else normal for position in range(like.num_cells))
    return Genotype(cells, reductions=like.reductions)


def _plain(operations: set[Operation]) -> list[list[Any]]:
    return [[op, source, target] for _, target, source, op in sorted(operations)]


def _summary(genotype: AnyGenotype) -> dict[str, Any]:
    counts = Counter(name for *_, name in genotype.operations())
    return {
        "hash": genotype.hash,
        "layout": genotype.layout,
        "num_cells": genotype.num_cells,
        "reductions": list(genotype.reductions),
        "num_operations": genotype.num_edges,
        "operations": dict(sorted(counts.items())),
    }


def front_volume(points: Sequence[tuple[float, float]], reference: float) -> float:
    """Hypervolume of (cost, accuracy) points: a share of the box from no accuracy at a reference cost to 1 at no cost.

    In units of accuracy: the mean best accuracy that can be had over all budgets from 0 to the reference. The reference
    is fixed before the points are seen. If it were the largest cost of the points, a dear trial that is worse than all
    others would raise the volume. A point that costs as much as the reference or more adds nothing.

    Raises:
        UserError: the reference is not above 0.

    Example:
        >>> front_volume([(50.0, 0.5), (100.0, 0.9)], 100.0)
        0.25
    """
    if not (reference > 0 and math.isfinite(reference)):
        raise UserError(f"the reference cost {reference:g} of a hypervolume must be a number above 0")
    return hypervolume(points, (reference, 0.0), (False, True)) / reference


def front_label(points: Sequence[tuple[float, float]], reference: float | None, cost: str) -> str:
    """The front in words: with its hypervolume and the reference beside it, where there is a reference.

    Example:
        >>> front_label([(50.0, 0.5), (100.0, 0.9)], 100.0, "parameters")
        'front, hypervolume 0.250 up to 100 parameters (1 of 2 trials cost more or as much)'
    """
    if reference is None:
        return "front"
    beyond = sum(spent >= reference for spent, _ in points)
    note = f" ({beyond} of {len(points)} trials cost more or as much)" if beyond else ""
    return f"front, hypervolume {front_volume(points, reference):.3f} up to {reference:,.0f} {cost}{note}"


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float], largest: Sequence[bool]) -> float:
    """Volume that the points dominate, bounded by a reference that they should beat in every coordinate.

    `largest` says for each coordinate whether more is better. Points that do not beat the reference everywhere add
    nothing. Exact, by slicing along the last coordinate: for the two or three objectives of a sweep.

    Raises:
        UserError: points, reference and `largest` differ in length, or a number is not finite.

    Example:
        >>> hypervolume([(0.9, 2.0), (0.7, 1.0)], reference=(0.5, 3.0), largest=(True, False))
        0.6
    """
    sizes = {len(reference), len(largest), *(len(point) for point in points)}
    if len(sizes) != 1 or 0 in sizes:
        raise UserError(f"points, reference and directions must have one length, not {sorted(sizes)}")
    if not all(math.isfinite(v) for point in (*points, reference) for v in point):
        raise UserError("a hypervolume needs finite coordinates")
    signs = [-1.0 if more else 1.0 for more in largest]
    gains = [tuple(s * (r - v) for s, r, v in zip(signs, reference, point, strict=True)) for point in points]
    return _dominated([gain for gain in gains if min(gain) > 0])


def _dominated(gains: Sequence[tuple[float, ...]]) -> float:
    """Volume of the union of the boxes from the origin to each point (all coordinates positive)."""
    if not gains:
        return 0.0
    if len(gains[0]) == 1:
        return max(gain[0] for gain in gains)
    levels = sorted({gain[-1] for gain in gains})
    volume, below = 0.0, 0.0
    for level in levels:
        volume += (level - below) * _dominated([gain[:-1] for gain in gains if gain[-1] >= level])
        below = level
    return volume
