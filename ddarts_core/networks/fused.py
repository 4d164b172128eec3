"""A cell of a derived network with its shared work done once: the same function of the same weights.

`CellNetwork.forward` computes a cell as its genotype reads. Here:

- the ReLU of a node is computed once for all operations that begin with it, that of a cell's output for both cells
  that read it;
- the gradients of depthwise convolutions that a CPU computes slowly are those of `depthwise`;
- a factorised reduction reads its pixels once, and its gradient is put together in one tensor;
- sums and later ReLUs are written over tensors that nothing else reads;
- the gradient of the concatenated nodes goes back in dense pieces, which normalisations read many times faster.

Results differ by rounding, as sums of products are taken in another order.
Operations of other kinds, such as those of plug-ins, run as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..tensors.devices import rewrites_gradients
from ..tensors.layout import layout_of
from ..tensors.once import differentiable_once
from .depthwise import convolve, input_gradient, weight_gradient
from .operations import Conv2d, FactorizedReduce, Identity, Normalised, ReLUConvBN, Separable
from .separable import cast

if TYPE_CHECKING:
    from .network import CellNetwork, Rectified


def fused(cell: CellNetwork, before_last: Tensor, last: Tensor, known: Rectified) -> Tensor:
    """The output of a cell in a training step: a value for `DerivedNetwork.form`.

    Args:
        cell: the cell.
        before_last: the output of the cell before the last, [batch, channels, h, w].
        last: the output of the last cell.
        known: the ReLU of the outputs of cells, which is taken from here or put here for the next cell.

    Raises:
        RuntimeError: a gradient is differentiated again, which the rewritten gradients do not allow.
    """
    nodes = {
        source: _behind_relu(before, _rectified(x, known))
        for source, (before, x) in enumerate(zip(cell.preprocess, (before_last, last), strict=True))
    }
    active: dict[int, Tensor] = {}
    sums: dict[int, Tensor] = {}

    def node(number: int) -> Tensor:
        if number not in nodes:
            nodes[number] = cell.drop_path(sums[number]) if cell.per_node else sums[number]
        return nodes[number]

    for (source, target), operation in zip(cell.edges, cell.operations, strict=True):
        x = node(source)
        rectified = _begins_with_relu(operation)
        if rectified:
            if source not in active:
                active[source] = F.relu(x)
            value = _behind_relu(operation, active[source])
        else:
            value = operation(x)
        if not cell.per_node and not isinstance(operation, Identity):
            value = cell.drop_path(value)
        sums[target] = _sum(sums.get(target), value, over=rectified)
    output: Tensor = Concatenate.apply(*map(node, cell.concat))
    return output


def _rectified(x: Tensor, known: Rectified) -> Tensor:
    """The ReLU of the output of a cell, which two cells read."""
    if id(x) not in known:
        known[id(x)] = x, F.relu(x)
    return known[id(x)][1]


def _begins_with_relu(operation: nn.Module) -> bool:
    """Whether an operation is made of what is computed here: it begins with a ReLU and ends with a normalisation.

    A subclass may do something else, and so may an operation of a plug-in.
    """
    if type(operation) not in (Separable, Normalised, ReLUConvBN):
        return type(operation) is FactorizedReduce
    assert isinstance(operation, nn.Sequential)
    return type(operation[0]) is nn.ReLU and isinstance(operation[-1], _BatchNorm)


def _behind_relu(operation: nn.Module, active: Tensor) -> Tensor:
    """All of an operation but its first ReLU, whose result is given."""
    if isinstance(operation, FactorizedReduce):
        before_norm = _reduced if rewrites_gradients(active) else FactorizedReduce.before_norm
        reduced: Tensor = operation.norm(before_norm(operation, active))
        return reduced
    assert isinstance(operation, nn.Sequential)
    before, *others = operation
    for module in others:
        if type(module) is nn.ReLU and isinstance(before, _BatchNorm):
            active = active.relu_()  # a normalisation needs its input for its gradient, not its output
        elif type(module) is Conv2d and _is_slow(module) and rewrites_gradients(active):
            active = _Depthwise.apply(*cast(active, module.weight), module.stride[0], module.dilation[0])
        else:
            active = module(active)
        before = module
    return active


def _reduced(operation: FactorizedReduce, active: Tensor) -> Tensor:
    """The two convolutions of a factorised reduction, each of the pixels that it reads."""
    height, width = active.shape[2:]
    if height % 2 or width % 2:
        active = F.pad(active, (0, width % 2, 0, height % 2))
    even, odd = _Diagonals.apply(active)
    second = F.conv2d(odd, operation.second.weight)
    if operation.first is None:
        return second
    output: Tensor = Concatenate.apply(F.conv2d(even, operation.first.weight), second)
    return output


def _sum(total: Tensor | None, value: Tensor, *, over: bool) -> Tensor:
    """The sum of two tensors; `over`: written over `value`, which was just normalised and is read by nothing else."""
    if total is None:
        return value
    return value.add_(total) if over and value.dtype == total.dtype else total + value


def _is_slow(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one that `depthwise.convolve` computes, and whose gradients the library is slow at."""
    kernel, stride, dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
    square = (conv.kernel_size, conv.stride, conv.dilation) == ((kernel,) * 2, (stride,) * 2, (dilation,) * 2)
    padded = (conv.padding, conv.padding_mode) == ((dilation * (kernel // 2),) * 2, "zeros")
    alone = conv.groups == conv.in_channels == conv.out_channels and conv.bias is None
    return alone and square and padded and kernel % 2 == 1 and (kernel > 3 or dilation > 1)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution with the gradients of `depthwise`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return convolve(x, weight, stride, dilation)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input, of_weight = ctx.needs_input_grad[:2]
        to_input = input_gradient(gradient, weight, x, ctx.stride, ctx.dilation) if of_input else None
        to_weight = weight_gradient(gradient, weight, x, ctx.stride, ctx.dilation) if of_weight else None
        return to_input, to_weight, None, None


class _Diagonals(torch.autograd.Function):
    """The pixels of even rows and columns, and those of odd rows and columns; the gradient is put together at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.layout = x.shape, layout_of(x)
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        return even.contiguous(memory_format=ctx.layout), odd.contiguous(memory_format=ctx.layout)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, even: Tensor, odd: Tensor) -> Tensor:
        spread = torch.empty(ctx.shape, dtype=even.dtype, device=even.device, memory_format=ctx.layout).zero_()
        spread[:, :, ::2, ::2], spread[:, :, 1::2, 1::2] = even, odd
        return spread


class Concatenate(torch.autograd.Function):
    """Channels of the nodes side by side; the gradient goes back in dense pieces, else every reader would copy it."""

    @staticmethod
    def forward(ctx: Any, *nodes: Tensor) -> Tensor:
        """[batch, channels, h, w] of each node to [batch, nodes * channels, h, w]."""
        ctx.layout, ctx.widths = layout_of(nodes[0]), [node.shape[1] for node in nodes]
        return torch.cat(nodes, dim=1)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradient of each node, in the layout of the first."""
        return tuple(part.contiguous(memory_format=ctx.layout) for part in torch.split(gradient, ctx.widths, dim=1))
