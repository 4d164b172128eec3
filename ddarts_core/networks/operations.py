"""Candidate operations as module factories, in one table (D-DARTS sections 3 and 4.4).

Every operation maps [batch, channels, height, width] to the same number of channels; with stride 2 to half the height
and width, rounded up. Depthwise and pointwise convolutions have no bias.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ground.errors import UserError
from ..ground.redact import one_line
from ..ground.table import Table
from ..tensors.devices import takes_pixels_first

Factory = Callable[[int, int, bool], nn.Module]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose running statistics can be left alone.

    With `track_running_stats` False in training mode, the batch's own statistics normalise and the running ones stay as
    they are (the passes that measure an ablated network must not leave traces). Evaluation mode is not affected.
    """

    momentum: float
    num_batches_tracked: Tensor

    def running(self) -> list[Tensor]:
        """Mean and variance that a pass reads (evaluation) or moves (training); empty when it may move none."""
        # Torch looks an attribute of a module up in three places.
        mean, variance = self._buffers["running_mean"], self._buffers["running_var"]
        if mean is None or variance is None or (self.training and not self.track_running_stats):
            return []
        return [mean, variance]


class Identity(nn.Module):
    """The skip connection at stride 1."""

    def forward(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x


class Zero(nn.Module):
    """The zero operation of DARTS: zeros in the shape of the output."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros, also where the input is not finite."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Conv2d(nn.Conv2d):
    """Torch's convolution, except that a 1x1 convolution with a stride takes its pixels first where it must."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, ...], as torch's."""
        if self.kernel_size == (1, 1) and self.stride != (1, 1) and takes_pixels_first(x):
            down, across = self.stride
            return F.conv2d(x[:, :, ::down, ::across], self.weight, self.bias)
        return super().forward(x)


class FactorizedReduce(nn.Module):
    """Halve height and width: two 1x1 convolutions of stride 2, the second shifted by one pixel, concatenated.

    An odd height or width is first padded with zeros at its end, so that the result has (size + 1) // 2 pixels like
    every other operation of stride 2; even sizes are as in DARTS. An odd number of channels gives the second
    convolution one more.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.relu = nn.ReLU()
        self.first = Conv2d(in_channels, half, 1, stride=2, bias=False) if half else None
        self.second = Conv2d(in_channels, out_channels - half, 1, stride=2, bias=False)
        self.norm = BatchNorm(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, (h + 1) // 2, (w + 1) // 2]."""
        normalised: Tensor = self.norm(self.before_norm(self.relu(x)))
        return normalised

    @property
    def last_norm(self) -> BatchNorm:
        """The normalisation that ends the operation."""
        return self.norm

    def before_norm(self, x: Tensor) -> Tensor:
        """The two convolutions, of an input whose ReLU is taken."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        second: Tensor = self.second(x[:, :, 1:, 1:])
        return second if self.first is None else torch.cat([self.first(x), second], dim=1)


def _size(kernel: int | tuple[int, int]) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else kernel


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1 (odd kernels)."""
    height, width = _size(kernel)
    padding = (dilation * (height // 2), dilation * (width // 2))
    return Conv2d(
        in_channels, out_channels, (height, width), stride, padding, dilation=dilation, groups=groups, bias=False
    )


class Normalised(nn.Sequential):
    """An operation that begins with ReLU and ends with a normalisation, which a gate can be folded into."""

    @property
    def last_norm(self) -> BatchNorm:
        """The normalisation that ends the operation."""
        return self[-1]  # type: ignore[return-value]  # Sequential items are typed Module

    def before_norm(self, active: Tensor) -> Tensor:
        """All between ReLU and the last normalisation."""
        for module in self[1:-1]:
            active = module(active)
        return active


class Separable(Normalised):
    """One or two separable halves: ReLU, depthwise, pointwise, normalisation."""


class NormalisedPool(nn.Sequential):
    """A pool and the normalisation that the supernet gives it."""


def _separable_half(channels: int, kernel: int, stride: int, affine: bool, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise, pointwise, BatchNorm."""
    return [
        nn.ReLU(),
        _conv(channels, channels, kernel, stride, dilation, groups=channels),
        _conv(channels, channels, 1),
        BatchNorm(channels, affine=affine),
    ]


class ReLUConvBN(nn.Sequential):
    """ReLU, 1x1 convolution, BatchNorm: fits a cell's input to its width."""

    def __init__(self, in_channels: int, out_channels: int, affine: bool = True) -> None:
        super().__init__(nn.ReLU(), _conv(in_channels, out_channels, 1), BatchNorm(out_channels, affine=affine))


def _none(channels: int, stride: int, affine: bool) -> nn.Module:
    return Zero(stride)


def _max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


def _separable(kernel: int) -> Factory:
    """Two separable halves; the first carries the stride."""

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        halves = _separable_half(channels, kernel, stride, affine) + _separable_half(channels, kernel, 1, affine)
        return Separable(*halves)

    return factory


def _dilated(kernel: int) -> Factory:
    """One separable half with dilation 2."""

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        return Separable(*_separable_half(channels, kernel, stride, affine, dilation=2))

    return factory


def _dense(kernel: int) -> Factory:
    """ReLU, dense convolution, BatchNorm."""

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        conv = _conv(channels, channels, kernel, stride)
        return Normalised(nn.ReLU(), conv, BatchNorm(channels, affine=affine))

    return factory


def _factored(kernel: int) -> Factory:
    """ReLU, 1 x k, k x 1, BatchNorm."""

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        return Normalised(
            nn.ReLU(),
            _conv(channels, channels, (1, kernel), (1, stride)),
            _conv(channels, channels, (kernel, 1), (stride, 1)),
            BatchNorm(channels, affine=affine),
        )

    return factory


def _bottleneck(kernel: int) -> Factory:
    """1x1, k x k, 1x1 to four times the width, ReLU, 1x1 back; BatchNorm after each (an expanding block)."""

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        return Normalised(
            nn.ReLU(),
            _conv(channels, channels, 1),
            BatchNorm(channels, affine=affine),
            _conv(channels, channels, kernel, stride),
            BatchNorm(channels, affine=affine),
            _conv(channels, 4 * channels, 1),
            BatchNorm(4 * channels, affine=affine),
            nn.ReLU(),
            _conv(4 * channels, channels, 1),
            BatchNorm(channels, affine=affine),
        )

    return factory


#: Factory (channels, stride, affine) by operation name. Pools carry no BatchNorm: the supernet adds one.
OPERATIONS: Table[Factory] = Table(
    "operation",
    {
        "none": _none,
        "max_pool_3x3": _max_pool,
        "avg_pool_3x3": _avg_pool,
        "skip_connect": _skip,
        "sep_conv_3x3": _separable(3),
        "sep_conv_5x5": _separable(5),
        "sep_conv_7x7": _separable(7),
        "dil_conv_3x3": _dilated(3),
        "dil_conv_5x5": _dilated(5),
        "conv_3x1_1x3": _factored(3),
        "conv_7x1_1x7": _factored(7),
        "simple_conv_1x1": _dense(1),
        "simple_conv_3x3": _dense(3),
        "simple_conv_5x5": _dense(5),
        "bottleneck_1x3x1": _bottleneck(3),
    },
)


def build(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """The module of an operation.

    Raises:
        UserError: the operation is not in `OPERATIONS`.

    Example:
        >>> build("sep_conv_3x3", 8, 1, True)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """
    return OPERATIONS.known(name)(channels, stride, affine)


def checked(name: str, factory: Factory) -> Factory:
    """A factory that refuses to make a module that is not an operation; each combination of arguments is tried once.

    Args:
        name: the name of the operation, for messages.
        factory: the factory of a plug-in.
    """
    tried: set[tuple[int, int, bool, str]] = set()

    def build_checked(channels: int, stride: int, affine: bool) -> nn.Module:
        what = f"operation {name!r} of {channels} channels and stride {stride}"
        try:
            op = factory(channels, stride, affine)
        except Exception as error:  # of the plug-in's own code
            raise UserError(f"{what} cannot be made: {type(error).__name__}: {one_line(str(error))[:300]}") from error
        if not isinstance(op, nn.Module):
            raise UserError(f"{what}: its factory makes {op!r}, which is no torch.nn.Module")
        x = torch.zeros(2, channels, 9, 8)
        key = (channels, stride, affine, str(x.device))
        if key not in tried:
            _check_shape(op, x, stride, what)
            tried.add(key)
        return op

    return build_checked


def _check_shape(op: nn.Module, x: Tensor, stride: int, what: str) -> None:
    training = op.training
    try:
        state = {key: value.clone() for key, value in op.state_dict().items()}
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            found = op.eval()(x)
        op.load_state_dict(state)
    except Exception as error:  # of the plug-in's own code
        raise UserError(
            f"{what} fails on images of {list(x.shape)}: {type(error).__name__}: {one_line(str(error))[:300]}"
        ) from error
    finally:
        op.train(training)
    wanted = [x.shape[0], x.shape[1], -(-x.shape[2] // stride), -(-x.shape[3] // stride)]
    if not isinstance(found, Tensor) or list(found.shape) != wanted:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(f"{what} makes {shape} of {list(x.shape)}: an operation makes {wanted} of it")


def build_candidate(name: str, channels: int, stride: int) -> nn.Module:
    """The module of an operation in a supernet: without affine normalisation, and a pool is normalised."""
    op = build(name, channels, stride, affine=False)
    if isinstance(op, (nn.MaxPool2d, nn.AvgPool2d)):
        return NormalisedPool(op, BatchNorm(channels, affine=False))
    return op
