"""One half of a separable convolution as one differentiable step that keeps its input only.

What autograd would keep between ReLU, depthwise and pointwise convolution is three tensors of the input's size; here
they are computed again in the backward pass, and only where a weight's gradient asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .depthwise import convolve, input_gradient, weight_gradient


def separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, dilation: int) -> Tensor:
    """Pointwise(depthwise(x)): [batch, channels, h, w] to [batch, channels, h / stride, w / stride].

    Args:
        x: the input, ReLU already taken.
        depthwise: [channels, 1, k, k].
        pointwise: [channels, channels / groups, 1, 1], one group per stacked edge.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
    """
    x, depthwise, pointwise = _cast(x, depthwise, pointwise)
    return _Separable.apply(x, depthwise, pointwise, stride, dilation)  # type: ignore[no-any-return]


def normalised_separable(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    running: Sequence[Tensor],
    momentum: float,
    eps: float,
) -> Tensor:
    """Pointwise(depthwise(ReLU(normalised x))) with the batch's statistics; stride and dilation are 1.

    Args:
        x: the first half's output, not normalised.
        depthwise: [channels, 1, k, k].
        pointwise: [channels, channels / groups, 1, 1].
        running: mean and variance that this pass moves, or nothing.
        momentum: of the running statistics.
        eps: added to the variance.
    """
    x, depthwise, pointwise = _cast(x, depthwise, pointwise)
    mean, variance = running if running else (None, None)
    return _NormalisedSeparable.apply(x, depthwise, pointwise, mean, variance, momentum, eps)  # type: ignore[no-any-return]


def _backward(
    ctx: Any, gradient: Tensor, x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, dilation: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    of_input, of_depthwise, of_pointwise = ctx.needs_input_grad[:3]
    # The gradient of a 1x1 convolution's input reads only the shape of that input: the output's will do.
    between = convolve(x, depthwise, stride, dilation) if of_pointwise else gradient
    groups = pointwise.shape[0] // pointwise.shape[1]
    middle, to_pointwise, _ = torch.ops.aten.convolution_backward(
        gradient, between, pointwise, None, [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [True, of_pointwise, False]
    )
    to_depthwise = weight_gradient(middle, depthwise, x, stride, dilation) if of_depthwise else None
    to_input = input_gradient(middle, depthwise, x, stride, dilation) if of_input else None
    return to_input, to_depthwise, to_pointwise if of_pointwise else None


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, depthwise, pointwise)
        ctx.stride, ctx.dilation = stride, dilation
        return F.conv2d(convolve(x, depthwise, stride, dilation), pointwise, groups=_groups(pointwise))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, depthwise, pointwise = ctx.saved_tensors
        return (*_backward(ctx, gradient, x, depthwise, pointwise, ctx.stride, ctx.dilation), None, None)


class _NormalisedSeparable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        depthwise: Tensor,
        pointwise: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        active, mean, scale = torch.native_batch_norm(x, None, None, running_mean, running_var, True, momentum, eps)
        active.relu_()
        ctx.save_for_backward(x, depthwise, pointwise, mean, scale)
        ctx.eps = eps
        return F.conv2d(convolve(active, depthwise, 1, 1), pointwise, groups=_groups(pointwise))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, depthwise, pointwise, mean, scale = ctx.saved_tensors
        # scale is 1 / sqrt(variance + eps): the stored statistics normalise again without being measured again.
        variance = scale.pow(-2) - ctx.eps
        active = F.batch_norm(x, mean, variance, eps=ctx.eps).relu_()
        to_active, to_depthwise, to_pointwise = _backward(ctx, gradient, active, depthwise, pointwise, 1, 1)
        if to_active is None:
            return None, to_depthwise, to_pointwise, None, None, None, None
        to_normalised = torch.ops.aten.threshold_backward(to_active, active, 0)
        to_input, _, _ = torch.ops.aten.native_batch_norm_backward(
            to_normalised, x, None, None, None, mean, scale, True, ctx.eps, [True, False, False]
        )
        return to_input, to_depthwise, to_pointwise, None, None, None, None


def _cast(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """What autocast would do before each convolution; a function of one's own must do it itself."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return [tensor.to(dtype) for tensor in (x, *weights)]


def _groups(pointwise: Tensor) -> int:
    return pointwise.shape[0] // pointwise.shape[1]
