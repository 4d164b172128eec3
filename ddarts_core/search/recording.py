"""What the record of an epoch says of the architecture: what is decided, and what genotype the gates stand for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..genotypes.distance import distance, weights_of
from ..genotypes.genotype import Genotype
from ..genotypes.spaces import S_O, operations_of
from ..ground.errors import UserError
from ..methods.parts import Parameters
from ..settings.search_settings import SearchConfig
from ..settings.warm_start import start_genotype
from .architecture import Architecture
from .discretise import Derivation, flat, saturation

#: Metric of an epoch: how far the genotype that the gates stand for is from `search.start` (`distance.distance`).
DISTANCE = "distance/start"


def decided_metrics(
    gates: Any,
    derivation: Derivation | None,
    weighed: tuple[Genotype, dict[str, float]] | None,
    frozen: int | None = None,
) -> dict[str, float]:
    """How many gates are decided, and what the genotype is like that they stand for.

    Args:
        gates: the gates of the operations that a genotype may take, [groups][edges][operations].
        derivation: the derivation from these gates; None if they make no network yet.
        weighed: the start and the weights of operations, which its distance is measured by; None measures none.
        frozen: operations that are frozen; None where no rule freezes any.
    """
    numbers = flat(gates)
    over, under = saturation(numbers)
    metrics: dict[str, float] = {
        "operations/over_0.9": over,
        "operations/under_0.1": under,
        "saturation/over_0.9": over / len(numbers),
        "saturation/under_0.1": under / len(numbers),
    }
    if frozen is not None:
        metrics["operations/frozen"] = frozen
    if derivation is None:
        return metrics
    if weighed is not None:
        found = Genotype.narrowed(derivation.genotype, "search.start")
        metrics[DISTANCE] = distance(weighed[0], found, weighed[1])
    return metrics | {
        "discretised/skip_connections": sum(name == "skip_connect" for *_, name in derivation.genotype.operations()),
        "discretised/empty_nodes": len(derivation.fallback) + len(derivation.dropped),
        "discretised/dead_cells": len(derivation.dead_cells),
    }


def architecture_fields(architecture: Architecture, parameters: Parameters, gates: Tensor) -> dict[str, Any]:
    """Alphas and gates in the space's order, and other parameters; gates that are sigma(alpha) are left out."""
    others = dict(parameters)
    found: dict[str, Any] = {"alphas": _nested(architecture.listed(architecture.of_space(others.pop("alphas"))))}
    if not architecture.independent:
        found["gates"] = _nested(architecture.listed(architecture.of_space(gates)))
    return found | {"parameters": {name: values.tolist() for name, values in others.items()}}


def weighed_start(config: SearchConfig) -> tuple[Genotype, dict[str, float]] | None:
    """The start and the weights of the space's operations; None without a start, or in a space that has no weights.

    Raises:
        UserError: `search.stop` needs the weights that the space lacks.
    """
    if config.start is None:
        return None
    try:
        return start_genotype(config), weights_of(config.space)
    except UserError:
        if config.stop is not None or set(operations_of(config.space)) <= {"none", *S_O}:
            raise
        return None


def _nested(alphas: Any) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return tuple(tuple(tuple(edge) for edge in group) for group in alphas)
