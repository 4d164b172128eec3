"""DARTOpti (D-DARTS section 4.4): a search starts from a known genotype, whose identical cells may share alphas.

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
from ..ground.nested import merge
from .config import ExperimentConfig
from .data_settings import IMAGE_SIZES, DataConfig
from .search_settings import SearchConfig


def followed(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings that follow from `search.start`, by group, whether the file gives them or not.

    The number of cells and the positions of the reductions are those of the genotype. Each cell of the search has as
    many nodes as the largest cell of the genotype. The space is the smallest built-in space that has the genotype's
    operations. Images of a published data set keep their size, or are enlarged to the next size that every reduction
    can halve. A user's own images keep their size. If identical cells share alphas, `of_groups` follows too.

    Args:
        settings: the settings as a file has them, in groups.

    Returns:
        The settings that follow, by group and name; nothing if there is no `search.start`.

    Raises:
        UserError: there is no such genotype, or its cells are not individual.
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
    return merge(found, of_groups(settings))


def of_groups(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the published w_01 = 8 and decay 1e-3 of the alphas come to where identical cells share alphas.

    The published loop adds every gradient once for each of the n groups of alphas, so that w_01 counts 8/n there and
    the decay 1e-3/(n + 1) (docs/ablation.md). Both are rounded to three digits.

    Returns:
        The two settings, by group and name; nothing unless there is a start whose identical cells share alphas.

    Raises:
        UserError: see `followed`.
    """
    search = _group(settings, "search")
    start = search.get("start")
    if search.get("sharing") != "identical" or not isinstance(start, str):
        return {}
    groups = len(set(individual(start).cells))
    return {
        "search": {"w_zero_one": float(f"{8 / groups:.3g}")},
        "alpha": {"weight_decay": float(f"{1e-3 / (groups + 1):.3g}")},
    }


def with_start(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings that follow from `search.start` where the file does not give them. null counts as not given.

    If the file gives all that a start without images decides, as every stored configuration does, nothing is added, and
    the genotype of the start is not read here.

    Raises:
        UserError: see `followed`; or a given setting contradicts the start.
    """
    search = _group(settings, "search")
    decided = [search.get(name) for name in ("num_cells", "reductions", "steps", "w_zero_one")]
    decided.append(_group(settings, "alpha").get("weight_decay"))
    if not isinstance(search.get("start"), str) or None not in decided:  # another kind is refused later
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
    """Return the genotype that a start names.

    Raises:
        UserError: there is no such genotype, or it has two shared cells instead of individual ones.
    """
    genotype = Genotype.narrowed(resolve_genotype(start), f"search.start {start}")
    if genotype.layout != "individual":
        raise UserError(
            f"search.start {start}: two shared cells cannot start individual ones; name an individual genotype"
        )
    return genotype


def start_genotype(config: SearchConfig) -> Genotype:
    """Return the genotype that `search.start` names, and check that it fits the shape of the supernet.

    Raises:
        UserError: the genotype has another number of cells, other reductions or more nodes, has operations outside the
            space, or names an operation twice on one edge.
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
    """Return what a user should know before a search from a start begins, in sentences."""
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
    """Return the gates of a genotype [cells][edges][operations]: 1 for its own operations and 0 for all others.

    If the genotype concatenates all its nodes, the rule `complete` makes the same genotype from these gates.
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
    """Return for each cell the number of its group of alphas, if identical cells share alphas (section 4.4 ii).

    The groups are numbered from 0 in the order in which their first cells appear.
    """
    distinct = list(dict.fromkeys(genotype.cells))
    return tuple(distinct.index(cell) for cell in genotype.cells)
