"""DARTOpti (D-DARTS section 4.4): a known genotype as the start of a search, and which of its cells share alphas.

Torch-free.
"""

from __future__ import annotations

from .config import SearchConfig
from .errors import UserError
from .genotype import Genotype
from .spaces import edge_list, operations_of
from .zoo import resolve_genotype


def start_genotype(config: SearchConfig) -> Genotype:
    """The genotype that `search.start` names, checked against the supernet's shape.

    Raises:
        UserError: it has another number of cells, other reductions, more nodes or operations outside the space.
    """
    assert config.start is not None
    genotype = resolve_genotype(config.start)
    where = f"search.start {config.start}"
    if genotype.layout != "individual":
        raise UserError(f"{where}: two shared cells cannot start individual ones; name an individual genotype")
    if (genotype.num_cells, genotype.reductions) != (config.num_cells, config.reduction_positions):
        raise UserError(
            f"{where} has {genotype.num_cells} cells with reductions {list(genotype.reductions)}: set "
            f"search.num_cells={genotype.num_cells} and search.reductions={list(genotype.reductions)}"
        )
    most = max(node for cell in genotype.cells for node in cell.nodes)
    if most > config.steps + 1:
        raise UserError(f"{where} uses node {most}: set search.steps to {most - 1} or more")
    if any(len(set(cell.edges)) != len(cell.edges) for cell in genotype.cells):
        raise UserError(f"{where} names an operation twice on one edge, which one alpha cannot say")
    unknown = {edge.op for cell in genotype.cells for edge in cell.edges} - set(operations_of(config.space))
    if unknown:
        raise UserError(f"{where} uses {sorted(unknown)[0]}, which search.space {config.space} lacks: try S_o")
    return genotype


def encode(genotype: Genotype, space: str, steps: int) -> list[list[list[int]]]:
    """Gates of a genotype, 1 for its operations and 0 for all others: [cells][edges][operations].

    Discretising them by rule `complete` gives the genotype back, if it concatenates all its nodes.
    """
    names = operations_of(space)
    return [
        [
            [int((source, target, name) in {(e.source, e.target, e.op) for e in cell.edges}) for name in names]
            for source, target in edge_list(steps)
        ]
        for cell in genotype.cells
    ]


def identical_groups(genotype: Genotype) -> tuple[int, ...]:
    """Group of alphas of each cell when identical cells share them, numbered by first appearance (section 4.4 ii)."""
    distinct = list(dict.fromkeys(genotype.cells))
    return tuple(distinct.index(cell) for cell in genotype.cells)
