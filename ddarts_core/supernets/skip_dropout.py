"""Dropout behind the skip connections of a supernet, from the search's own random streams (P-DARTS 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..methods.parts import Progress
from ..networks.operations import Identity
from .supernet import MixedOp


class DroppedIdentity(nn.Module):
    """The skip connection at stride 1 with dropout in training mode: x * mask / (1 - p), each element on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.stream: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The input, or what the dropout leaves of it."""
        if not self.training or self.stream is None or not self.probability:
            return x
        mask = torch.rand(x.shape, generator=self.stream, device=x.device) >= self.probability
        return x * mask.to(x.dtype) / (1 - self.probability)


def dropped(edge: nn.Module) -> nn.Module:
    """Replace the identities of a mixed operation by `DroppedIdentity`, and return the mixed operation."""
    assert isinstance(edge, MixedOp)
    for number, op in enumerate(edge.ops):
        if isinstance(op, Identity):
            edge.ops[number] = DroppedIdentity()
    return edge


def set_dropout(net: nn.Module, probability: float, progress: Progress) -> None:
    """Set the dropout of a step for all skip connections of a network.

    Args:
        net: the network.
        probability: the probability p with which an element is dropped.
        progress: where the search is. All skip connections draw from its one stream, one after the other; without a
            stream nothing is dropped.
    """
    stream = None if progress.draw is None else progress.draw()
    for module in net.modules():
        if isinstance(module, DroppedIdentity):
            module.probability, module.stream = probability, stream
