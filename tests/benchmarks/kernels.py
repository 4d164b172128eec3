"""Single convolutions on one thread or one GPU: what the choices in `depthwise` and `execution` rest on."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from ddarts_core.networks import depthwise
from ddarts_core.networks.separable import separable
from tests.benchmarks.works import Shape

#: Kernel, stride and dilation of the depthwise convolutions of the search space.
CONVOLUTIONS = ((3, 1, 1), (5, 1, 1), (3, 1, 2), (5, 1, 2), (3, 2, 1), (5, 2, 1), (3, 2, 2), (5, 2, 2))
#: Edges whose inputs are stacked as one tensor.
STACKED = (1, 2, 4)
Row = dict[str, float]


def milliseconds(work: Callable[[], object], device: str, rounds: int = 9) -> float:
    """Median over rounds, the first one left out."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return median(times[1:])


def depthwise_row(shape: Shape, kernel: int, stride: int, dilation: int) -> Row:
    """A forward pass, and both gradients as the library computes them and as ours are rewritten."""
    padding = dilation * (kernel // 2)
    x = _images(shape, shape.channels, shape.image)
    weight = torch.randn(shape.channels, 1, kernel, kernel, device=shape.device)
    gradient = torch.randn_like(depthwise.convolve(x, weight, stride, dilation))

    def library(of_input: bool) -> Callable[[], object]:
        pads = (padding, padding)
        return lambda: depthwise._library(gradient, x, weight, stride, pads, dilation, of_input=of_input)

    work: dict[str, Callable[[], object]] = {
        "forward": lambda: depthwise.convolve(x, weight, stride, dilation),
        "library_input": library(True),
        "our_input": lambda: depthwise.input_gradient(gradient, weight, x, stride, dilation),
        "library_weight": library(False),
        "our_weight": lambda: depthwise.weight_gradient(gradient, weight, x, stride, dilation),
    }
    return {name: milliseconds(run, shape.device) for name, run in work.items()}


def merged_row(shape: Shape, channels: int, image: int, edges: int) -> Row:
    """Per edge: a separable half forwards and backwards, the edges' inputs stacked as one tensor."""
    x = _images(shape, channels, image).requires_grad_()
    stacked = torch.cat([x.detach()] * edges, dim=1)
    first = torch.randn(edges * channels, 1, 3, 3, device=shape.device)
    second = torch.randn(edges * channels, channels, 1, 1, device=shape.device)

    def step() -> None:
        separable(x, first, second, 1, 1, stacked).sum().backward()

    return {"mebibytes": stacked.nbytes / 2**20, "per_edge": milliseconds(step, shape.device) / edges}


def rates(shape: Shape) -> Row:
    """What this machine does per second: multiply-adds of a dense 3x3 convolution, and bytes read or written by a copy.

    The convolution has the step's images and four times its channels, more products per byte than any of the step's.
    The copy is larger than caches.
    """
    images = _images(shape, 4 * shape.channels, shape.image)
    weight = torch.randn(4 * shape.channels, 4 * shape.channels, 3, 3).contiguous(memory_format=torch.channels_last)
    source = torch.zeros(2**24)
    target = torch.zeros_like(source)
    macs = images.numel() * 9 * 4 * shape.channels
    return {
        "macs": 1000 * macs / milliseconds(lambda: torch.nn.functional.conv2d(images, weight, padding=1), shape.device),
        "bytes": 1000 * 2 * source.nbytes / milliseconds(lambda: target.copy_(source), shape.device),
    }


def _images(shape: Shape, channels: int, size: int) -> Tensor:
    images = torch.randn(shape.batch, channels, size, size, device=shape.device)
    return images.contiguous(memory_format=torch.channels_last)
