"""Parameters and multiply-adds of a genotype's network, counted on torch's meta device: nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .config import ExperimentConfig
from .data import data_info
from .datasets.facts import DataInfo
from .dead_cells import dead_cells
from .derive import DEPTH, OnDeadCell, Order
from .genotype import Genotype
from .network import IMAGE_SIZE, Network
from .stem import Form

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
        parameters: without the auxiliary head.
        auxiliary_parameters: of the auxiliary head; 0 for a single cell, which cannot have one.
        macs: for one image in evaluation mode, by convention (see `CONVENTIONS`).
        dead_cells: positions of the cells that nothing reads; the counts hold them.
    """

    parameters: int
    auxiliary_parameters: int
    macs: dict[str, int]
    dead_cells: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "parameters": self.parameters,
            "auxiliary_parameters": self.auxiliary_parameters,
            "macs": dict(self.macs),
            "dead_cells": list(self.dead_cells),
        }


def count_macs(module: nn.Module, x: Tensor) -> dict[str, int]:
    """Multiply-adds of one forward pass by convention, from hooks on the layers that run."""
    counts = {"conv": 0, "norm": 0, "pool": 0, "relu": 0}

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        size = output.numel() if isinstance(output, Tensor) else 0
        if isinstance(layer, nn.Conv2d):
            counts["conv"] += size * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            counts["conv"] += size * layer.in_features
        elif isinstance(layer, nn.BatchNorm2d):
            counts["norm"] += size
        elif isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
            counts["pool"] += size
        elif isinstance(layer, nn.ReLU):
            counts["relu"] += size

    handles = [layer.register_forward_hook(hook) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    base = counts["conv"]
    both = base + 2 * counts["norm"]
    return {"A": base, "B": both + counts["pool"], "C": both + counts["relu"]}


def cost(
    genotype: Genotype,
    *,
    channels: int,
    num_cells: int | None = None,
    num_classes: int = 10,
    form: Form = "cifar",
    reductions: str | Sequence[int] | None = None,
    derive_order: Order = "paper",
    image_size: int | None = None,
    in_channels: int = 3,
    on_dead_cell: OnDeadCell = "warn",
) -> Cost:
    """Count the network that `Network` would build from the same arguments.

    Raises:
        UserError: see `Network`.

    Example:
        >>> from ddarts_core.zoo import ZOO
        >>> cost(ZOO["DARTS_V2"].genotype, channels=36, num_cells=20).parameters
        3349342
    """
    stacked = DEPTH[form] if genotype.layout == "normal_reduce" and form in DEPTH else genotype.num_cells
    with torch.device("meta"):
        network = Network(
            genotype,
            channels,
            num_classes,
            in_channels,
            image_size,
            form,
            auxiliary=(num_cells or stacked) > 1,
            num_cells=num_cells,
            reductions=reductions,
            derive_order=derive_order,
            on_dead_cell=on_dead_cell,
        ).eval()
        size = IMAGE_SIZE[form] if image_size is None else image_size
        macs = count_macs(network, torch.empty(1, in_channels, size, size))
    dead = dead_cells(network.genotype.cells)
    return Cost(network.num_parameters, network.auxiliary_parameters, macs, dead)


def retrain_cost(genotype: Genotype, config: ExperimentConfig, info: DataInfo | None = None) -> Cost:
    """Count the network that an experiment's settings of `data` and `retrain` train.

    Args:
        genotype: of the network, before it is derived deeper.
        config: of the experiment.
        info: facts of its data; None asks the data themselves.

    Raises:
        UserError: see `Network` and `data_info`.
    """
    settings, info = config.retrain, info or data_info(config.data)
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
