"""Parameters and multiply-adds of a network that is built, on torch's meta device: nothing is computed.

This serves for operations that `counting` does not know, and to check the arithmetic of `counting`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..genotypes.blocks import StagedGenotype
from ..genotypes.genotype import AnyGenotype, Genotype
from ..genotypes.shapes import Form
from .cost import Cost, by_convention
from .derived import DerivedNetwork
from .network import Network
from .staged import StagedNetwork


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
    return by_convention(**counts)


def measured_cost(
    genotype: AnyGenotype, channels: int, num_classes: int, in_channels: int, image_size: int, form: Form
) -> Cost:
    """The same as `cost.cost` of a genotype that is arranged already."""
    network: DerivedNetwork
    with torch.device("meta"):
        if isinstance(genotype, StagedGenotype):
            auxiliary = genotype.auxiliary_position is not None
            network = StagedNetwork(genotype, num_classes, in_channels, image_size, auxiliary)
        else:
            cells = Genotype.narrowed(genotype)
            auxiliary = cells.num_cells > 1
            network = Network(cells, channels, num_classes, in_channels, image_size, form, auxiliary=auxiliary)
        macs = count_macs(network.eval(), torch.empty(1, in_channels, image_size, image_size))
    apart = network.auxiliary_parameters
    network.auxiliary_head = None
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    weights = sum(layer.weight.numel() for layer in layers)
    return Cost(network.num_parameters, apart, macs, genotype.dead_cells, weights)
