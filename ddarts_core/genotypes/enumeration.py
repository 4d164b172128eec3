"""Every genotype of a small space, numbered; genotypes that are the same network are counted once. Torch-free.

The space is that of DARTS (D-DARTS eq. 5): each intermediate node has two edges from different earlier nodes, with one
operation each. Two cells are twins when one becomes the other if its nodes get other numbers. The networks of twins
compute the same function of weights that are drawn in the same way, so only one of the twins is trained. Nodes may get
other numbers as long as edges lead from earlier to later nodes. Behind the CIFAR stem the two inputs of the first cell
are one tensor, which each input fits to the cell by weights of its own. So these inputs may change places too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, permutations, product

from ..ground.errors import UserError
from .genotype import AnyGenotype, Cell, Edge, Genotype
from .spaces import cell_space_size, operations_of

#: Genotypes beyond which a space is not numbered: no one trains as many.
MOST = 1_000_000


def cells_of(space: str, steps: int) -> Iterator[Cell]:
    """Every cell of a space with `steps` intermediate nodes; `spaces.cell_space_size` says how many they are.

    Example:
        >>> len(list(cells_of("S_3", 1)))
        9
    """
    names = [name for name in operations_of(space) if name != "none"]
    nodes = range(2, steps + 2)
    into = [
        [(Edge(node, a, first), Edge(node, b, second)) for a, b in combinations(range(node), 2)
         for first, second in product(names, repeat=2)]
        for node in nodes
    ]  # fmt: skip
    for chosen in product(*into):
        yield Cell(tuple(edge for pair in chosen for edge in pair), tuple(nodes))


def twins(cell: Cell, alike: bool = False) -> Iterator[Cell]:
    """All twins of a cell, the cell itself among them.

    Args:
        cell: a cell that concatenates all its intermediate nodes.
        alike: whether both inputs of the cell are one tensor, so that they may change places.
    """
    for inputs in ((0, 1), (1, 0))[: 1 + alike]:
        for order in permutations(cell.concat):
            name = dict(zip((0, 1, *cell.concat), (*inputs, *order), strict=True))
            renamed = [(name[edge.target], name[edge.source], edge.op) for edge in cell.edges]
            if all(source < target for target, source, _ in renamed):
                yield Cell(tuple(Edge(*one) for one in renamed), cell.concat)


def chosen_twin(cell: Cell, alike: bool = False) -> Cell:
    """The twin of a cell that stands for all its twins: the first one in the order of their edges."""
    return min(twins(cell, alike), key=lambda twin: twin.edges)


@cache
def distinct_cells(space: str, steps: int, alike: bool = False) -> tuple[Cell, ...]:
    """Every cell of a space that stands for its twins, in order.

    Example:
        >>> len(distinct_cells("S_3", 1, alike=True))
        6
    """
    return tuple(dict.fromkeys(chosen_twin(cell, alike) for cell in cells_of(space, steps)))


@dataclass(frozen=True)
class Enumeration:
    """The distinct genotypes of a space: `enumeration[number]`, `len(enumeration)`, and back by `number_of`.

    Attributes:
        space: the name of the space of operations.
        steps: number of intermediate nodes of a cell.
        num_cells: number of cells of a genotype.
        reductions: positions of the reduction cells.
        stem_alike: whether both inputs of the first cell are one tensor (the CIFAR stem).

    Raises:
        UserError: the space is unknown or has more than a million genotypes.

    Example:
        >>> every = Enumeration("S_3", steps=1, num_cells=3, reductions=(1, 2))
        >>> len(every), every.size, every.number_of(every[200])
        (486, 729, 200)
    """

    space: str
    steps: int
    num_cells: int
    reductions: tuple[int, ...]
    stem_alike: bool = True

    def __post_init__(self) -> None:
        if self.size > MOST:
            raise UserError(
                f"the space of {self.num_cells} cells with {self.steps} nodes over {self.space} has {self.size:.3g} "
                f"genotypes, and {MOST:,} are the most that can be numbered: use fewer cells, nodes or operations"
            )

    @property
    def size(self) -> int:
        """Number of genotypes of the space, twins included."""
        operations = sum(name != "none" for name in operations_of(self.space))
        return math.prod([cell_space_size(operations, self.steps)] * self.num_cells)

    @cached_property
    def _places(self) -> tuple[tuple[Cell, ...], ...]:
        """The distinct cells at each position."""
        alike = [self.stem_alike and position == 0 for position in range(self.num_cells)]
        return tuple(distinct_cells(self.space, self.steps, one) for one in alike)

    def __len__(self) -> int:
        """How many distinct genotypes there are."""
        return math.prod(map(len, self._places))

    def __getitem__(self, number: int) -> Genotype:
        """The genotype of a number, counted from 0; from one number to the next the last cell changes first."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        chosen = []
        for cells in reversed(self._places):
            number, digit = divmod(number, len(cells))
            chosen.append(cells[digit])
        return Genotype(tuple(reversed(chosen)), self.reductions)

    def __iter__(self) -> Iterator[Genotype]:
        """Every distinct genotype, by number."""
        return (self[number] for number in range(len(self)))

    def number_of(self, genotype: AnyGenotype) -> int | None:
        """The number of the genotype that stands for this one; None if this genotype is not in the space."""
        if (
            not isinstance(genotype, Genotype)
            or len(genotype.cells) != self.num_cells
            or genotype.reductions != self.reductions
        ):
            return None
        number = 0
        for position, (cell, cells) in enumerate(zip(genotype.cells, self._places, strict=True)):
            if cell.concat != tuple(range(2, self.steps + 2)):
                return None
            twin = chosen_twin(cell, self.stem_alike and position == 0)
            if twin not in cells:
                return None
            number = number * len(cells) + cells.index(twin)
        return number

    def twins_of(self, number: int) -> Iterator[Genotype]:
        """Every genotype of the space that the genotype of this number stands for."""
        cells = self[number].cells
        alike = [self.stem_alike and position == 0 for position in range(self.num_cells)]
        kinds: Sequence[Iterable[Cell]] = [
            dict.fromkeys(twins(cell, one)) for cell, one in zip(cells, alike, strict=True)
        ]
        for chosen in product(*kinds):
            yield Genotype(tuple(chosen), self.reductions)

    def neighbours(self, number: int) -> tuple[int, ...]:
        """Numbers of the distinct genotypes that differ from this one in one operation or one source, ascending."""
        found = set()
        cells = self[number].cells
        for position, cell in enumerate(cells):
            for other in self._near(cell):
                changed = Genotype((*cells[:position], other, *cells[position + 1 :]), self.reductions)
                found.add(self.number_of(changed))
        return tuple(sorted(one for one in found - {number} if one is not None))

    def _near(self, cell: Cell) -> Iterator[Cell]:
        names = [name for name in operations_of(self.space) if name != "none"]
        for index, edge in enumerate(cell.edges):
            others = (*cell.edges[:index], *cell.edges[index + 1 :])
            taken = {other.source for other in others if other.target == edge.target}
            changed = [Edge(edge.target, edge.source, name) for name in names if name != edge.op]
            changed += [
                Edge(edge.target, source, edge.op)
                for source in range(edge.target)
                if source != edge.source and source not in taken
            ]
            for one in changed:
                yield Cell((*others, one), cell.concat)
