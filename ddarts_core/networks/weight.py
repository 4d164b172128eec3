"""How heavy an operation is: what tells which of a space's operations takes the most memory."""

from __future__ import annotations

import functools

import torch

from ..tensors.meter import Meter
from .operations import build


@functools.cache
def operation_weight(name: str) -> tuple[int, int]:
    """Bytes that an operation holds from its forward to its backward pass on a small image; its parameters."""
    with torch.device("meta"):
        op, x = build(name, 8, 1, True), torch.zeros(2, 8, 8, 8)
        with Meter() as meter:
            y = op(x)
        return (0 if y is x else meter.alive), sum(parameter.numel() for parameter in op.parameters())
