"""Vector-Jacobian products without what torch imports for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Seed(torch.autograd.Function):
    """A number whose gradient by the output is a given direction."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, direction: Tensor) -> Tensor:
        ctx.direction = direction
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *ones: Tensor) -> tuple[Tensor, None]:
        return ctx.direction, None


def vector_jacobian(output: Tensor, inputs: Sequence[Tensor], direction: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """`torch.autograd.grad(output, inputs, direction)`, to the last bit, for a first derivative.

    torch compares the shapes of an output and its direction with symbolic ones, for which it imports sympy: two seconds
    of a core in each process, while a small trial's epoch takes as long. For a number without a direction it does not.

    Args:
        output: that was computed from the inputs.
        inputs: tensors that require gradients.
        direction: of the output's shape and type.
        options: `retain_graph` and `allow_unused`, as in torch.

    Returns:
        One gradient for each input; as in torch, whose type says nothing of it, None with `allow_unused` for an input
        that the output does not depend on.
    """
    found: tuple[Tensor, ...] = torch.autograd.grad(_Seed.apply(output, direction), inputs, **options)
    return found
