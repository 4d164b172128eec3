"""The most that a search of cells may keep and find: the bound of what its networks need."""

from __future__ import annotations

from ..genotypes.genotype import Cell, Edge, Genotype
from ..genotypes.links import num_sources
from ..genotypes.spaces import num_edges, operations_of
from ..methods import GATES, RULES
from ..networks.weight import operation_weight
from ..settings.search_settings import DiscretiseConfig, SearchConfig
from .supernet import group_map


def heaviest_kept(search: SearchConfig, number: int) -> list[list[list[int]]]:
    """Return the `number` heaviest operations of the space for every edge: the most that a search may keep.

    Returns:
        Places of operations in the space, [groups][edges][operations].
    """
    names = operations_of(search.space)
    order = sorted(range(len(names)), key=lambda k: operation_weight(names[k]), reverse=True)
    groups = max(group_map(search)) + 1
    return [[sorted(order[:number])] * num_edges(search.steps)] * groups


def heaviest_edges(search: SearchConfig, discretise: DiscretiseConfig) -> list[Edge]:
    """Return the edges of the heaviest cell that a search may find.

    It has the largest operations, on as many edges and as many on each edge as the rule of discretisation lets pass.
    """
    rule = RULES[discretise.rule](discretise)
    names = [name for name in operations_of(search.space) if name != "none"]
    kept = sorted(names, key=operation_weight, reverse=True)[: rule.most_operations]
    per_node = rule.most_edges or search.steps + 1
    return [
        Edge(target, source, op)
        for target in range(2, search.steps + 2)
        for source in range(min(per_node, target))
        for op in kept
    ]


def heaviest_cells(search: SearchConfig, discretise: DiscretiseConfig) -> Genotype:
    """Return the heaviest genotype of cells that a search may find; `heaviest_edges` says what its cells have."""
    edges = heaviest_edges(search, discretise)
    linked = GATES[search.gates](search).has_links
    concat = tuple(range(2, search.steps + 2))
    cells = (Cell(tuple(edges), concat, 0 if linked and num_sources(k) else None) for k in range(search.num_cells))
    return Genotype(tuple(cells), search.reduction_positions)
