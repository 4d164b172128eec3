"""A random genotype with as many operations as a given one: a baseline for a search. Torch-free."""

from __future__ import annotations

import random
from collections.abc import Iterable

from ..ground.errors import UserError
from .genotype import AnyGenotype, Cell, Edge, Genotype
from .links import num_sources
from .spaces import SPACES, operations_of


def space_of(genotype: AnyGenotype, preferred: str = "S") -> str:
    """The space that a genotype is of: the preferred space if it has all its operations, else the smallest that has.

    Raises:
        UserError: the space is unknown, or no space has all operations of the genotype.
    """
    return common_space([genotype], preferred)


def common_space(genotypes: Iterable[AnyGenotype], preferred: str = "S") -> str:
    """The space that several genotypes are of.

    Raises:
        UserError: see `space_of`.
    """
    used = {name for genotype in genotypes for *_, name in genotype.operations()}
    for space in (preferred, *sorted(SPACES, key=lambda name: len(SPACES[name]))):
        if used <= set(operations_of(space)):
            return space
    raise UserError(f"no search space has all of the genotypes' operations ({', '.join(sorted(used))})")


def random_genotype(like: Genotype, seed: int, space: str = "S") -> Genotype:
    """Draw a genotype of the layout, reductions and nodes of `like`, each node with as many sources and operations.

    Sources, operations and, if `like` has them, links are drawn uniformly. The zero operation is never drawn. The
    network may have another number of parameters than that of `like`, since a search may prefer operations with many
    parameters.

    Raises:
        UserError: the space is unknown, or has fewer operations than the node with the most operations needs.

    Example:
        >>> cell = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), concat=(2,))
        >>> random_genotype(Genotype((cell, cell)), seed=1).num_edges
        4
    """
    names = [name for name in operations_of(space) if name != "none"]
    draw = random.Random(f"random genotype {seed}")
    cells = tuple(_random_cell(position, cell, names, draw) for position, cell in enumerate(like.cells))
    return Genotype(cells, like.reductions, like.layout)


def _random_cell(position: int, like: Cell, names: list[str], draw: random.Random) -> Cell:
    edges: list[Edge] = []
    for node in like.nodes:
        into = [edge for edge in like.edges if edge.target == node]
        count = len({edge.source for edge in into})
        earlier = [0, 1, *(other for other in like.nodes if other < node)]
        drawn = [Edge(node, source, draw.choice(names)) for source in sorted(draw.sample(earlier, count))]
        spare = [edge for first in drawn for name in names if (edge := Edge(node, first.source, name)) not in drawn]
        missing = len(into) - count
        if missing > len(spare):
            raise UserError(
                f"{len(into)} edges from {count} nodes need more than {len(names)} operations: use a larger space"
            )
        edges += [*drawn, *draw.sample(spare, missing)]
    link = None if like.link is None else draw.randrange(num_sources(position))
    return Cell(tuple(edges), like.concat, link)
