"""Parameters and multiply-adds of a network that is built, on torch's meta device: nothing is computed.

For operations that `counting` does not know, and to hold its arithmetic against.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..genotypes.dead_cells import dead_cells
from ..genotypes.genotype import Genotype
from ..genotypes.shapes import Form
from .cost import Cost, by_convention
from .network import Network


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
    genotype: Genotype, channels: int, num_classes: int, in_channels: int, image_size: int, form: Form
) -> Cost:
    """The same as `cost.cost` of a genotype that is arranged already."""
    with torch.device("meta"):
        network = Network(
            genotype, channels, num_classes, in_channels, image_size, form, auxiliary=genotype.num_cells > 1
        ).eval()
        macs = count_macs(network, torch.empty(1, in_channels, image_size, image_size))
    return Cost(network.num_parameters, network.auxiliary_parameters, macs, dead_cells(genotype.cells))
