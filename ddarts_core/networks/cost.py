"""Parameters and multiply-adds of a genotype's network, counted by arithmetic without torch wherever this suffices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..genotypes.blocks import StagedGenotype
from ..genotypes.derive import OnDeadCell, Order, as_built
from ..genotypes.genotype import AnyGenotype
from ..genotypes.shapes import Form, check_sizes
from ..settings.found import facts_of
from .counting import count, is_counted

if TYPE_CHECKING:
    from ..datasets.facts import DataInfo
    from ..settings.config import ExperimentConfig

#: What each convention counts; published figures use one or another.
CONVENTIONS: Mapping[str, str] = {
    "A": "multiply-adds of convolutions and linear layers",
    "B": "A, 2 per BatchNorm output, 1 per average-pool output (thop 0.0.31; D-DARTS, DOTS)",
    "C": "A, 2 per BatchNorm output, 1 per ReLU output (P-DARTS, PC-DARTS)",
}


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Attributes:
        parameters: number of parameters without those of the auxiliary head.
        auxiliary_parameters: number of parameters of the auxiliary head; 0 for a single cell, which cannot have one.
        macs: number of multiply-adds for one image in evaluation mode, by convention (see `CONVENTIONS`).
        dead_cells: positions of the cells that nothing reads; the counts include these cells.
        weights: how many of `parameters` belong to convolutions and linear layers, without biases; this is what FBNetV2
            counts.
    """

    parameters: int
    auxiliary_parameters: int
    macs: dict[str, int]
    dead_cells: tuple[int, ...] = ()
    weights: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "parameters": self.parameters,
            "auxiliary_parameters": self.auxiliary_parameters,
            "macs": dict(self.macs),
            "dead_cells": list(self.dead_cells),
        }


def by_convention(conv: int, norm: int, pool: int, relu: int) -> dict[str, int]:
    """Multiply-adds by convention.

    Args:
        conv: number of multiply-adds of convolutions and linear layers.
        norm: number of outputs of batch normalisation.
        pool: number of outputs of average pools.
        relu: number of outputs of ReLU.
    """
    return {"A": conv, "B": conv + 2 * norm + pool, "C": conv + 2 * norm + relu}


def cost(
    genotype: AnyGenotype,
    *,
    channels: int = 36,
    num_cells: int | None = None,
    num_classes: int = 10,
    form: Form = "cifar",
    reductions: str | Sequence[int] | None = None,
    derive_order: Order = "paper",
    image_size: int | None = None,
    in_channels: int = 3,
    on_dead_cell: OnDeadCell = "warn",
) -> Cost:
    """Count the network that is built from the same arguments.

    A genotype of stages has widths, depth and strides of its own, and a size of images that it is meant for. It is
    counted at this size unless another size is given. `channels`, `form`, `derive_order` and `on_dead_cell` have no
    effect on it.

    Raises:
        UserError: see `Network`, and `derive.as_built`.

    Example:
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> cost(ZOO["DARTS_V2"].genotype, channels=36, num_cells=20).parameters
        3349342
    """
    if isinstance(genotype, StagedGenotype) and image_size is None:
        image_size = genotype.image_size
    size = check_sizes(form, channels, num_classes, in_channels, image_size)
    arranged = as_built(genotype, form, num_cells, reductions, derive_order, on_dead_cell)
    if not is_counted(arranged):
        from .measured_cost import measured_cost

        return measured_cost(arranged, channels, num_classes, in_channels, size, form)
    tally, auxiliary = count(arranged, channels, num_classes, in_channels, size, form)
    macs = by_convention(tally.conv, tally.norm, tally.pool, tally.relu)
    return Cost(tally.parameters, auxiliary, macs, arranged.dead_cells, tally.weights)


def retrain_cost(genotype: AnyGenotype, config: ExperimentConfig, info: DataInfo | None = None) -> Cost:
    """Count the network that an experiment's settings of `data` and `retrain` train.

    Args:
        genotype: the genotype of the network, before it is derived deeper.
        config: the configuration of the experiment.
        info: the facts of the experiment's data; None reads them from the data. If the search chose the size of the
            images too, the network is counted at that size.

    Raises:
        UserError: see `Network` and `data_info`.
    """
    if info is None:
        from ..data.sets import data_info

        info = data_info(config.data)
    info = facts_of(info, config, genotype)
    settings = config.retrain
    return cost(
        genotype,
        channels=settings.channels,
        num_cells=settings.num_cells,
        num_classes=info.num_classes,
        form=settings.form,
        reductions=settings.reductions,
        derive_order=settings.derive_order,
        on_dead_cell=settings.on_dead_cell,
        image_size=info.image_size,
        in_channels=info.channels,
    )
