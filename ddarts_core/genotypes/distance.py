"""How far apart two architectures are, by the distance of the published D-DARTS code. Torch-free.

A cell is the set of its edges' rows. The row of an edge is the set of the operations on this edge; it is empty if the
edge has no operation. The distance of two rows is the weighted Hamming distance: the weights of the operations that
only one of the rows has, as a share of the weights of all operations of the space. The distance of two cells is the
Hausdorff distance of their sets of rows. The distance of two architectures is the mean of this over the cells, the
first cell with the first cell and so on; a cell that only one architecture has counts 1. Distances lie in 0..1. Source:
architecture_processing.py of the published code.

Laws: the distance is never negative, it is symmetric, it is 0 from an architecture to itself, and it keeps the triangle
inequality. It is not a metric, because it does not tell all architectures apart. Two architectures that have the same
rows on other edges are 0 apart. So are two that differ only in their reductions, in their links or in the nodes that
they concatenate.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from ..ground.errors import UserError
from .genotype import Cell, Genotype
from .spaces import num_edges, operations_of

Row = frozenset[str]

FILE = Path(__file__).with_name("operation_weights.json")


def published_weights() -> dict[str, float]:
    """The published weight of each operation: the mean accuracy, in percent, of networks with this operation.

    The weights are those of the published file op_stats.json. Its values are the means, not the medians, over the
    places of op_perfs.json.
    """
    return dict(json.loads(FILE.read_text(encoding="utf-8"))["weights"])


def rows(cell: Cell, steps: int) -> frozenset[Row]:
    """The distinct rows of the edges of a cell with `steps` intermediate nodes."""
    by_edge: dict[tuple[int, int], set[str]] = {}
    for edge in cell.edges:
        by_edge.setdefault((edge.source, edge.target), set()).add(edge.op)
    empty = {Row()} if len(by_edge) < num_edges(steps) else set()
    return frozenset({*empty, *(Row(names) for names in by_edge.values())})


def hamming(a: Collection[str], b: Collection[str], weights: Mapping[str, float]) -> float:
    """The weights of the operations that only one of two rows has, as a share of all weights."""
    return sum(weights[name] for name in set(a) ^ set(b)) / sum(weights.values())


def hausdorff(a: Collection[Row], b: Collection[Row], weights: Mapping[str, float]) -> float:
    """The largest distance from a row of one set to the nearest row of the other set, in either direction."""
    return max(
        max(min(hamming(row, other, weights) for other in right) for row in left) for left, right in ((a, b), (b, a))
    )


def cell_distances(a: Genotype, b: Genotype, weights: Mapping[str, float]) -> tuple[float, ...]:
    """The distance of each cell of one architecture to the cell at the same place in the other; 1 if one has no cell.

    Raises:
        UserError: the layouts of the architectures differ, or an operation has no weight.
    """
    if a.layout != b.layout:
        raise UserError(
            "one genotype has two shared cells and the other individual ones: they have no cells to compare one by one"
        )
    lacking = {edge.op for genotype in (a, b) for cell in genotype.cells for edge in cell.edges} - set(weights)
    if lacking:
        raise UserError(f"operation {sorted(lacking)[0]} has no weight: choose a space that has it, or weights of it")
    sets = [[rows(cell, genotype.steps) for cell in genotype.cells] for genotype in (a, b)]
    pairs = [hausdorff(x, y, weights) for x, y in zip(*sets, strict=False)]
    return (*pairs, *[1.0] * abs(a.num_cells - b.num_cells))


def distance(a: Genotype, b: Genotype, weights: Mapping[str, float]) -> float:
    """The mean of `cell_distances`.

    Example:
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> weights = weights_of("S_o")
        >>> round(distance(ZOO["ResNet18"].genotype, ZOO["ResNet50"].genotype, weights), 4)
        0.0836
    """
    found = cell_distances(a, b, weights)
    return sum(found) / len(found)


def weights_of(space: str, known: Mapping[str, float] | None = None) -> dict[str, float]:
    """The weights of a space's operations: the published ones, unless others are given.

    Raises:
        UserError: an operation of the space has no weight.
    """
    known = published_weights() if known is None else known
    names = [name for name in operations_of(space) if name != "none"]
    lacking = [name for name in names if name not in known]
    if lacking:
        raise UserError(f"operation {lacking[0]} of search.space {space} has no weight: measure them, or use S or S_o")
    return {name: known[name] for name in names}


def read_weights(path: Path) -> dict[str, float]:
    """Read weights by operation from a JSON file, which has them at its top or under `weights`.

    Raises:
        UserError: the file cannot be read, or a weight is no number of 0 or more.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data = data.get("weights", data)
        found = {str(name): float(weight) for name, weight in data.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot read weights of operations in {path}: {error}") from error
    if not all(0 <= weight < float("inf") for weight in found.values()) or not sum(found.values()):
        raise UserError(f"the weights in {path} must be numbers of 0 or more, one for each operation, and not all 0")
    return found
