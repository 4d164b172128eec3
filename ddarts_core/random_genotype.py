"""A random genotype as large as a given one: the baseline that a search has to beat. Torch-free."""

from __future__ import annotations

import random

from .errors import UserError
from .genotype import Cell, Edge, Genotype
from .spaces import operations_of


def random_genotype(like: Genotype, seed: int, space: str = "S") -> Genotype:
    """Draw a genotype with the nodes, the number of edges per cell, the reductions and the layout of `like`.

    Sources and operations are uniform over what keeps every node fed; an edge gets a second operation only where the
    cell has more operations than pairs of nodes. The zero operation is never drawn.

    Raises:
        UserError: the space is unknown, or too small for the number of edges.

    Example:
        >>> cell = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), concat=(2,))
        >>> random_genotype(Genotype((cell, cell)), seed=1).num_edges
        4
    """
    names = [name for name in operations_of(space) if name != "none"]
    draw = random.Random(f"random genotype {seed}")
    cells = tuple(_random_cell(cell, names, draw) for cell in like.cells)
    return Genotype(cells, like.reductions, like.layout)


def _random_cell(like: Cell, names: list[str], draw: random.Random) -> Cell:
    nodes = like.nodes
    sources = {node: [0, 1, *(earlier for earlier in nodes if earlier < node)] for node in nodes}
    pairs = [(draw.choice(sources[node]), node) for node in nodes]
    others = [(s, node) for node in nodes for s in sources[node] if (s, node) not in pairs]
    draw.shuffle(others)
    pairs = (pairs + others)[: len(like.edges)]
    edges = [Edge(target, source, draw.choice(names)) for source, target in pairs]
    spare = [edge for source, target in pairs for name in names if (edge := Edge(target, source, name)) not in edges]
    missing = len(like.edges) - len(edges)
    if missing > len(spare):
        raise UserError(
            f"a cell with {len(like.edges)} edges cannot be drawn from {len(names)} operations: use a larger space"
        )
    return Cell((*edges, *draw.sample(spare, missing)), like.concat)
