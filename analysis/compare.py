"""Differences between genotypes, and the hypervolume of a Pareto front. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ddarts_core.errors import UserError
from ddarts_core.genotype import Genotype

Operation = tuple[int, int, int, str]


def _operations(genotype: Genotype) -> set[Operation]:
    """(cell, target, source, operation) of every operation."""
    return {(i, e.target, e.source, e.op) for i, cell in enumerate(genotype.cells) for e in cell.edges}


def distance(a: Genotype, b: Genotype) -> float:
    """Share of operations that the two do not have in common (Jaccard distance): 0 for equal, 1 for nothing in common.

    An operation is one with the same cell position, source, target and name; a cell that only one of them has counts
    with all its operations. It is a metric; equal networks whose nodes are numbered differently are not recognised.

    Raises:
        UserError: one genotype has individual cells, the other a normal and a reduction cell.

    Example:
        >>> from ddarts_core.genotype import Cell, Edge
        >>> a = Genotype((Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "skip_connect")), (2,)),))
        >>> b = Genotype((Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), (2,)),))
        >>> round(distance(a, b), 3)
        0.667
    """
    if a.layout != b.layout:
        raise UserError(f"a genotype of layout {a.layout} has no cell in common with one of layout {b.layout}")
    ours, theirs = _operations(a), _operations(b)
    return 1 - len(ours & theirs) / len(ours | theirs)


def compare(a: Genotype, b: Genotype) -> dict[str, Any]:
    """What two genotypes have in common and what not, as plain data for `--json`.

    Returns:
        `identical`, `distance`, `a` and `b` (hash, cells, reductions, number of operations and their counts by name),
        and per cell position the operations `only_a`, `only_b` ([operation, source, target]) and how many are `common`.

    Raises:
        UserError: the layouts differ.
    """
    apart = distance(a, b)
    ours, theirs = _operations(a), _operations(b)
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
    return {"identical": a == b, "distance": apart, "a": _summary(a), "b": _summary(b), "cells": cells}


def _plain(operations: set[Operation]) -> list[list[Any]]:
    return [[op, source, target] for _, target, source, op in sorted(operations)]


def _summary(genotype: Genotype) -> dict[str, Any]:
    counts = Counter(edge.op for cell in genotype.cells for edge in cell.edges)
    return {
        "hash": genotype.hash,
        "layout": genotype.layout,
        "num_cells": genotype.num_cells,
        "reductions": list(genotype.reductions),
        "num_operations": genotype.num_edges,
        "operations": dict(sorted(counts.items())),
    }


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
