"""Dead cells, whose output nothing reads: which cells of a chain are dead, and how they get a reader. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .genotype import Cell, Edge
from .links import FIRST


def dead_cells(cells: Sequence[Cell]) -> tuple[int, ...]:
    """Positions of the cells in a chain that the output of the last cell does not depend on.

    Cell k + 1 reads cell k as its input 1, cell k + 2 reads it as its input 0, and cells that are linked to it read it
    together with their input 0. The classifier reads the last cell. Dead cells cost time and compute nothing. Which
    cells are dead depends on the whole chain: a genotype without dead cells can have some when Algorithm 1 makes it
    deeper.
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
        cells: a chain of cells.
        edge: a function of a position and the cell there, which returns the edge that this cell gets: one from input 1
            to a node that the cell concatenates.

    Returns:
        The cells, and the positions of the cells that were dead.
    """
    chain = list(cells)
    connected: list[int] = []
    while dead := dead_cells(chain):
        reader = chain[dead[-1] + 1]
        chain[dead[-1] + 1] = replace(reader, edges=(*reader.edges, edge(dead[-1] + 1, reader)))
        connected.append(dead[-1])
    return tuple(chain), tuple(sorted(connected))


def dead_sentence(dead: Sequence[int], num_cells: int) -> str:
    """What a user should know about the dead cells of a network, in words.

    Example:
        >>> dead_sentence((10, 12), 14)
        '2 of 14 cells are dead (10, 12): nothing reads their output, they cost time and compute nothing'
    """
    verb = "is" if len(dead) == 1 else "are"
    return (
        f"{len(dead)} of {num_cells} cells {verb} dead ({', '.join(map(str, dead))}): nothing reads their output, they "
        "cost time and compute nothing"
    )
