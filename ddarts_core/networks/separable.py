"""ReLU, depthwise and pointwise convolution as one differentiable step that keeps only its input.

Autograd would keep three tensors of the input's size between ReLU, depthwise and pointwise convolution. Here these
tensors are computed again in the backward pass, and only if a weight's gradient needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tensors.devices import sums_slowly
from ..tensors.once import differentiable_once
from .depthwise import convolve, input_gradient, weight_gradient


def rectified_pointwise(x: Tensor, pointwise: Tensor) -> Tensor:
    """Pointwise(ReLU(x)): [batch, channels, h, w] to [batch, out_channels, h, w]."""
    x, pointwise = cast(x, pointwise)
    return _RectifiedPointwise.apply(x, pointwise)  # type: ignore[no-any-return]  # apply returns Any


def separable(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, dilation: int, stacked: Tensor | None = None
) -> Tensor:
    """Pointwise(depthwise(x)): [batch, channels, h, w] to [batch, edges * channels, h / stride, w / stride].

    Args:
        x: the input, after ReLU.
        depthwise: [edges * channels, 1, k, k].
        pointwise: [edges * channels, channels, 1, 1].
        stride: the stride of the depthwise convolution.
        dilation: the dilation of the depthwise convolution.
        stacked: `x` once per edge, [batch, edges * channels, h, w]; not needed for one edge, and not kept.
    """
    stacked = x.detach() if stacked is None else stacked
    x, depthwise, pointwise, stacked = cast(x, depthwise, pointwise, stacked)
    return _Separable.apply(x, depthwise, pointwise, stacked, stride, dilation)  # type: ignore[no-any-return]  # apply returns Any


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
        x: the output of the first half, before its normalisation.
        depthwise: [channels, 1, k, k].
        pointwise: [channels, channels / groups, 1, 1].
        running: the running mean and variance, which this pass moves; empty if it moves none.
        momentum: the momentum of the running statistics.
        eps: a number that is added to the variance.
    """
    x, depthwise, pointwise = cast(x, depthwise, pointwise)
    mean, variance = running if running else (None, None)
    return _NormalisedSeparable.apply(x, depthwise, pointwise, mean, variance, momentum, eps)  # type: ignore[no-any-return]  # apply returns Any


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


class _RectifiedPointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pointwise: Tensor) -> Tensor:
        ctx.save_for_backward(x, pointwise)
        return F.conv2d(x.relu(), pointwise)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, pointwise = ctx.saved_tensors
        of_input, of_pointwise = ctx.needs_input_grad
        active = x.relu() if of_pointwise else x
        to_active, to_pointwise, _ = torch.ops.aten.convolution_backward(
            gradient, active, pointwise, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [of_input, of_pointwise, False]
        )
        return torch.ops.aten.threshold_backward(to_active, x, 0) if of_input else None, to_pointwise


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, depthwise: Tensor, pointwise: Tensor, stacked: Tensor, stride: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x, depthwise, pointwise)
        ctx.stride, ctx.dilation = stride, dilation
        return F.conv2d(convolve(stacked, depthwise, stride, dilation), pointwise, groups=_groups(pointwise))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, depthwise, pointwise = ctx.saved_tensors
        edges = depthwise.shape[0] // x.shape[1]
        stacked = torch.cat([x] * edges, dim=1) if edges > 1 else x
        to_stacked, *to_weights = _backward(ctx, gradient, stacked, depthwise, pointwise, ctx.stride, ctx.dilation)
        if to_stacked is not None and edges > 1:
            to_stacked = sum_of_edges(to_stacked, edges)
        return (to_stacked, *to_weights, None, None, None)


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
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, depthwise, pointwise, mean, scale = ctx.saved_tensors
        # scale is 1 / sqrt(variance + eps): what was measured normalises again.
        active = F.batch_norm(x, mean, scale.pow(-2), eps=0.0).relu_()
        to_active, to_depthwise, to_pointwise = _backward(ctx, gradient, active, depthwise, pointwise, 1, 1)
        if to_active is None:
            return None, to_depthwise, to_pointwise, None, None, None, None
        to_normalised = torch.ops.aten.threshold_backward(to_active, active, 0)
        to_input, _, _ = torch.ops.aten.native_batch_norm_backward(
            to_normalised, x, None, None, None, mean, scale, True, ctx.eps, [True, False, False]
        )
        return to_input, to_depthwise, to_pointwise, None, None, None, None


def cast(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """What autocast would do before each convolution; a function of one's own must do it itself.

    Args:
        x: the input of the convolution.
        weights: its weights, and what else gets the same precision.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return [tensor if tensor.dtype is dtype else tensor.to(dtype) for tensor in (x, *weights)]


def sum_of_edges(stacked: Tensor, edges: int) -> Tensor:
    """[batch, edges * channels, h, w] -> [batch, channels, h, w], the sum of the edges."""
    if not sums_slowly(stacked):
        return stacked.unflatten(1, (edges, -1)).sum(1)  # type: ignore[no-any-return, no-untyped-call]  # torch
    first, second, *others = stacked.chunk(edges, dim=1)
    total = first + second
    for part in others:
        total += part
    return total


def _groups(pointwise: Tensor) -> int:
    return pointwise.shape[0] // pointwise.shape[1]
