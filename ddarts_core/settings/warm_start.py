"""DARTOpti (D-DARTS section 4.4): a known genotype as the start of a search, and which of its cells share alphas.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..genotypes.genotype import Genotype
from ..genotypes.shapes import STRIDES
from ..genotypes.spaces import SPACES, edge_list, operations_of
from ..genotypes.zoo import resolve_genotype
from ..ground.errors import UserError
from .config import ExperimentConfig
from .data_settings import IMAGE_SIZES, DataConfig
from .search_settings import SearchConfig


def followed(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings that follow from `search.start`, by group, whether they are given or not; none without a start.

    Cells and reductions are those of the genotype, and a cell has as many nodes as its largest. The space is the
    smallest of the built-in ones that has its operations. Images of a published set keep their size, or are enlarged
    to the next one that every reduction can halve; those of one's own keep theirs.

    Args:
        settings: as a file has them, in groups.

    Raises:
        UserError: there is no such genotype, or not one of individual cells.
    """
    search, data = _group(settings, "search"), _group(settings, "data")
    start = search.get("start")
    if not isinstance(start, str):
        return {}
    genotype = individual(start)
    found: dict[str, dict[str, Any]] = {
        "search": {
            "num_cells": genotype.num_cells,
            "reductions": list(genotype.reductions),
            "steps": genotype.steps,
        }
    }
    names = {edge.op for cell in genotype.cells for edge in cell.edges}
    fitting = [space for space in ("S", "S_o") if names <= set(SPACES[space])]
    if fitting:
        found["search"]["space"] = fitting[0]
    size = IMAGE_SIZES.get(str(data.get("name", DataConfig().name)))
    strides = STRIDES.get(str(search.get("form", "cifar")))
    if size is not None and strides is not None:
        factor = 2 ** (len(genotype.reductions) + strides.count(2))
        if size % factor:
            found["data"] = {"image_size": -(-size // factor) * factor}
    return found


def with_start(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those that follow from `search.start` where none are given; a null counts as not given.

    A file that gives all three of cells, reductions and nodes, as every stored configuration does, is not completed
    and its start is not read here.

    Raises:
        UserError: see `followed`; or a given setting contradicts the start.
    """
    search = _group(settings, "search")
    if search.get("start") is None or all(
        search.get(name) is not None for name in ("num_cells", "reductions", "steps")
    ):
        return dict(settings)
    found = followed(settings)
    for name in ("num_cells", "reductions"):
        given, wanted = search.get(name), found["search"][name]
        if given is not None and (list(given) if isinstance(given, list | tuple) else given) != wanted:
            raise UserError(
                f"search.{name} {given} contradicts search.start {search['start']}, which has {wanted}: leave it out"
            )
    out = dict(settings)
    for group, values in found.items():
        given = _group(settings, group)
        missing = {key: value for key, value in values.items() if given.get(key) in (None, "auto")}
        out[group] = {**given, **missing}
    return out


def _group(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = settings.get(name)
    return group if isinstance(group, Mapping) else {}


def individual(start: str) -> Genotype:
    """The genotype that a start names.

    Raises:
        UserError: there is none, or it has two shared cells.
    """
    genotype = Genotype.narrowed(resolve_genotype(start), f"search.start {start}")
    if genotype.layout != "individual":
        raise UserError(
            f"search.start {start}: two shared cells cannot start individual ones; name an individual genotype"
        )
    return genotype


def start_genotype(config: SearchConfig) -> Genotype:
    """The genotype that `search.start` names, checked against the supernet's shape.

    Raises:
        UserError: it has another number of cells, other reductions, more nodes or operations outside the space.
    """
    assert config.start is not None
    genotype = individual(config.start)
    where = f"search.start {config.start}"
    if (genotype.num_cells, genotype.reductions) != (config.num_cells, config.reduction_positions):
        raise UserError(
            f"{where} has {genotype.num_cells} cells with reductions {list(genotype.reductions)}: leave "
            "search.num_cells and search.reductions out, they follow from it"
        )
    if genotype.steps > config.steps:
        raise UserError(
            f"{where} uses node {genotype.steps + 1}: search.steps must be {genotype.steps} or more, or left out"
        )
    if any(len(set(cell.edges)) != len(cell.edges) for cell in genotype.cells):
        raise UserError(f"{where} names an operation twice on one edge, for which there is one alpha: name it once")
    unknown = {edge.op for cell in genotype.cells for edge in cell.edges} - set(operations_of(config.space))
    if unknown:
        raise UserError(f"{where} uses {sorted(unknown)[0]}, which search.space {config.space} lacks: try S_o")
    return genotype


def notes(config: ExperimentConfig) -> list[str]:
    """What a user should know of a search from a start before it begins, in sentences."""
    if config.search.start is None or config.search.sharing != "identical":
        return []
    one = len(set(start_genotype(config.search).cells)) == 1
    if not one or config.ablation.loss in ("none", "monitor"):
        return []
    return [
        f"all cells of {config.search.start} are identical and share one group of alphas: there is no other group to "
        "compare its contribution with, so the ablation loss is 0 and is not measured"
    ]


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
