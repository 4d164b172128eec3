"""From gates to a genotype (D-DARTS section 5.1): which operations stay, and what becomes of nodes and cells left bare.

Gates are sigma(alpha) (or softmax weights), [cells, edges, operations], edges in the order of `spaces.edge_list`. Pure
functions of plain numbers, torch-free: a tensor or array is taken through its `tolist`.

A rule (`methods.rules`) is applied to each intermediate node and its incoming edges; ties keep the earlier edge and
operation, and the zero operation of space S_none is never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..genotypes.dead_cells import connect, dead_cells
from ..genotypes.genotype import AnyGenotype, Cell, Edge, Genotype, Layout
from ..genotypes.spaces import edge_list, num_edges, operations_of
from ..ground.errors import UserError
from ..methods import RULES
from ..settings.search_settings import DiscretiseConfig

CellGates: TypeAlias = list[list[float]]

#: A gate above or below these counts as decided.
OVER, UNDER = 0.9, 0.1


@dataclass(frozen=True)
class Derivation:
    """A genotype, and what had to be mended to make it.

    Attributes:
        genotype: the genotype.
        fallback: nodes (cell, node) that no operation reached, and that got their best one (`on_empty_node: best`).
        dropped: nodes (cell, node) that were left out because they had no input (`on_empty_node: drop`).
        dead_cells: cells of the genotype whose output nothing reads; they cost time and compute nothing.
        connected: cells that were dead until their successor got one more edge (`on_dead_cell: connect`).
    """

    genotype: AnyGenotype
    fallback: tuple[tuple[int, int], ...] = ()
    dropped: tuple[tuple[int, int], ...] = ()
    dead_cells: tuple[int, ...] = ()
    connected: tuple[int, ...] = ()


def discretise(
    gates: Any,
    config: DiscretiseConfig,
    space: str = "S",
    steps: int = 4,
    reductions: Sequence[int] = (),
    layout: Layout = "individual",
    links: Sequence[int | None] | None = None,
) -> Derivation:
    """The genotype that gates [cells, edges, operations] stand for; every kept node is concatenated.

    `links` are the earlier cells that each cell reads (`genotypes.links`); None is none.

    With layout `normal_reduce` the gates are those of the normal and of the reduction cell, `reductions` is not part
    of the genotype, and dead cells are not looked for, because which there are depends on the depth of the stack
    (`dead_cells` tells, given the stacked cells).

    Raises:
        UserError: a gate is not a number; a cell keeps no operation (`on_empty_node: drop`); or an empty node or a dead
            cell where the configuration says `error`.

    Example:
        >>> gates = [[[0.9 if op == edge % 7 else 0.2 for op in range(7)] for edge in range(2)] for cell in range(3)]
        >>> discretise(gates, DiscretiseConfig(), steps=1, reductions=(1, 2)).genotype.cells[0].edges[0]
        Edge(target=2, source=0, op='max_pool_3x3')
    """
    operations = operations_of(space)
    numbers = _numbers(gates, num_edges(steps), len(operations))
    cells: list[Cell] = []
    fallback: list[tuple[int, int]] = []
    dropped: list[tuple[int, int]] = []
    reducing = (1,) if layout == "normal_reduce" else reductions
    for index, cell_gates in enumerate(numbers):
        if config.max_skips is not None and index not in reducing:
            cell_gates = without_skips(cell_gates, operations, steps, config)
        chosen = select(cell_gates, operations, steps, config)
        edges, bare = _without_bare_nodes(chosen, cell_gates, operations, steps, config, index)
        (fallback if config.on_empty_node == "best" else dropped).extend((index, node) for node in bare)
        link = None if links is None else links[index]
        cells.append(Cell(tuple(edges), concat=tuple({edge.target for edge in edges}), link=link))
    if layout == "normal_reduce":
        return Derivation(Genotype(tuple(cells), (), layout), tuple(fallback), tuple(dropped))
    connected: tuple[int, ...] = ()
    if config.on_dead_cell == "connect":
        chain, connected = connect(
            cells, lambda k, reader: _best(numbers[k], operations, steps, sources=(1,), targets=reader.concat)
        )
        cells = list(chain)
    dead = dead_cells(cells)
    if dead and config.on_dead_cell == "error":
        raise UserError(
            f"nothing reads the output of {named('cell', dead)}: lower discretise.threshold, "
            "or set discretise.on_dead_cell to connect or warn"
        )
    genotype = Genotype(tuple(cells), tuple(reductions), layout)
    return Derivation(genotype, tuple(fallback), tuple(dropped), dead, connected)


def select(gates: CellGates, operations: Sequence[str], steps: int, config: DiscretiseConfig) -> list[Edge]:
    """Edges of one cell by the rule alone; nodes may be left without input."""
    return RULES[config.rule](config).select(gates, operations, steps)


def without_skips(gates: CellGates, operations: Sequence[str], steps: int, config: DiscretiseConfig) -> CellGates:
    """Gates of a cell, those of its weakest skip connections set to 0 until at most `max_skips` are selected.

    One at a time: without one, other edges and operations may be selected (P-DARTS 3.3).
    """
    assert config.max_skips is not None
    gates = [list(row) for row in gates]
    skip = operations.index("skip_connect")
    number = {edge: index for index, edge in enumerate(edge_list(steps))}
    while True:
        skips = [e for e in select(gates, operations, steps, config) if e.op == "skip_connect"]
        if len(skips) <= config.max_skips:
            return gates
        weakest = min((number[e.source, e.target] for e in skips), key=lambda index: gates[index][skip])
        gates[weakest][skip] = 0.0


def saturation(gates: Any) -> tuple[int, int]:
    """How many gates exceed 0.9, and how many lie below 0.1; the zero operation counts like any other."""
    numbers = flat(gates)
    return sum(gate > OVER for gate in numbers), sum(gate < UNDER for gate in numbers)


# --- parts ----------------------------------------------------------------------------------------------------------


def _without_bare_nodes(
    chosen: list[Edge], gates: CellGates, operations: Sequence[str], steps: int, config: DiscretiseConfig, index: int
) -> tuple[list[Edge], list[int]]:
    """The edges with every remaining node fed, and the nodes that were not; a dropped source drops its edges."""
    edges: list[Edge] = []
    fed = {0, 1}
    bare: list[int] = []
    for node in range(2, steps + 2):
        incoming = [edge for edge in chosen if edge.target == node and edge.source in fed]
        if not incoming:
            bare.append(node)
            if config.on_empty_node == "best":
                incoming = [_best(gates, operations, steps, sources=range(node), targets=(node,))]
        if incoming:
            fed.add(node)
            edges += incoming
    if bare and config.on_empty_node == "error":
        raise UserError(
            f"threshold {config.threshold:g} leaves {named('node', bare)} of cell {index} without input: lower "
            "discretise.threshold, search longer, or set discretise.on_empty_node to best or drop"
        )
    if not edges:
        raise UserError(
            f"threshold {config.threshold:g} leaves no operation in cell {index}: lower discretise.threshold, "
            "search longer, or set discretise.on_empty_node to best"
        )
    return edges, bare


def _best(
    gates: CellGates, operations: Sequence[str], steps: int, sources: Sequence[int], targets: Sequence[int]
) -> Edge:
    """The operation with the largest gate on the edges from `sources` to `targets`; the earliest of equals."""
    best: tuple[float, Edge] | None = None
    for (source, target), row in zip(edge_list(steps), gates, strict=True):
        if source in sources and target in targets:
            for gate, name in zip(row, operations, strict=True):
                if name != "none" and (best is None or gate > best[0]):
                    best = gate, Edge(target, source, name)
    assert best is not None, "every intermediate node has edges from both inputs"
    return best[1]


def plain(gates: Any) -> Any:
    """A tensor or an array as nested lists; other values as they are."""
    return gates.tolist() if hasattr(gates, "tolist") else gates


def flat(value: Any) -> list[float]:
    """All numbers in nested lists, in order."""
    value = plain(value)
    return [float(value)] if isinstance(value, (int, float)) else [gate for part in value for gate in flat(part)]


def _numbers(gates: Any, edges: int, operations: int) -> list[CellGates]:
    """Gates as nested lists of finite floats of the shape that space and steps imply."""
    numbers = [[[float(gate) for gate in plain(edge)] for edge in plain(cell)] for cell in plain(gates)]
    if not numbers or any(len(cell) != edges or any(len(row) != operations for row in cell) for cell in numbers):
        raise ValueError(f"gates must have the shape [cells, {edges} edges, {operations} operations]")
    if not all(math.isfinite(gate) for cell in numbers for row in cell for gate in row):
        raise UserError("a gate is not a finite number: the search diverged, lower search.lr or alpha.lr")
    return numbers


def named(noun: str, numbers: Sequence[int]) -> str:
    """`cell 3` or `cells 3, 5`."""
    return f"{noun}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
