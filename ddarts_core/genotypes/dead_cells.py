"""Cells whose output nothing reads: which they are in a chain of cells, and how they get a reader. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .genotype import Cell, Edge
from .links import FIRST


def dead_cells(cells: Sequence[Cell]) -> tuple[int, ...]:
    """Positions, in a chain of cells, of those that the output of the last one does not depend on.

    Cell k is read by cell k + 1 as its input 1, by cell k + 2 as its input 0 and by cells that are linked to it, with
    their input 0; the last feeds the classifier. Dead cells cost time and compute nothing. Which there are depends on
    the whole chain: a genotype without any can have some when Algorithm 1 makes it deeper.
    """
    live = [False] * len(cells)
    for k in reversed(range(len(cells))):
        live[k] = (
            k == len(cells) - 1
            or (live[k + 1] and cells[k + 1].reads(1))
            or (k + 2 < len(cells) and live[k + 2] and cells[k + 2].reads(0))
            or any(live[j] and cells[j].link == k and cells[j].reads(0) for j in range(k + FIRST, len(cells)))
        )
    return tuple(k for k, alive in enumerate(live) if not alive)


def connect(cells: Sequence[Cell], edge: Callable[[int, Cell], Edge]) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
    """Give the successor of each dead cell an edge from its input 1.

    From the end backwards, the successor of the last dead cell is live, and an edge from input 1 changes nothing for
    the cells behind it: one edge per dead cell is enough.

    Args:
        cells: a chain.
        edge: of a position and the cell there, the edge that it gets: from input 1 to a node that it concatenates.

    Returns:
        The cells, and the positions of those that were dead.
    """
    chain = list(cells)
    connected: list[int] = []
    while dead := dead_cells(chain):
        reader = chain[dead[-1] + 1]
        chain[dead[-1] + 1] = replace(reader, edges=(*reader.edges, edge(dead[-1] + 1, reader)))
        connected.append(dead[-1])
    return tuple(chain), tuple(sorted(connected))


def dead_sentence(dead: Sequence[int], num_cells: int) -> str:
    """What to know about the dead cells of a network, in words.

    Example:
        >>> dead_sentence((10, 12), 14)
        '2 of 14 cells are dead (10, 12): nothing reads their output, they cost time and compute nothing'
    """
    verb = "is" if len(dead) == 1 else "are"
    return (
        f"{len(dead)} of {num_cells} cells {verb} dead ({', '.join(map(str, dead))}): nothing reads their output, they "
        "cost time and compute nothing"
    )
