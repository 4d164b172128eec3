"""The stem before the first cell: it turns images into the two inputs of the first cell (DARTS)."""

from __future__ import annotations

from torch import Tensor, nn

from ..genotypes.shapes import STRIDES, halved, stem_widths
from .operations import BatchNorm


class Stem(nn.ModuleList):
    """Convolutions from images to both inputs of the first cell, in stages of one input each.

    `cifar` is one 3x3 convolution to 3 C channels, whose output is both inputs. `imagenet` is three convolutions of
    stride 2, the last two to C channels: input 0 comes after the second, and input 1 after the third, at half the size
    of input 0. In `imagenet-published` the second convolution has stride 1, as in D-DARTS' code.

    Attributes:
        widths: numbers of channels of the two inputs.
        halves: whether input 0 has twice the height and width of input 1.

    Example:
        >>> import torch
        >>> [tuple(s.shape) for s in Stem("imagenet", 4, 3)(torch.zeros(1, 3, 32, 32))]
        [(1, 4, 8, 8), (1, 4, 4, 4)]
    """

    def __init__(self, form: str, channels: int, in_channels: int) -> None:
        width = stem_widths(form, channels)
        if form == "cifar":
            stages = [nn.Sequential(*_convolution(in_channels, width, 1))]
        else:
            half = channels // 2
            first, second, third = STRIDES[form]
            stages = [
                nn.Sequential(
                    *_convolution(in_channels, half, first), nn.ReLU(), *_convolution(half, channels, second)
                ),
                nn.Sequential(nn.ReLU(), *_convolution(channels, channels, third)),
            ]
        super().__init__(stages)
        self.widths = (width, width)
        self.halves = len(stages) == 2
        self.strides = STRIDES[form]

    @staticmethod
    def halvings(form: str) -> int:
        """How often a form halves the size of the images."""
        return sum(stride == 2 for stride in STRIDES[form])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [batch, in_channels, height, width] -> inputs 0 and 1 of the first cell."""
        first: Tensor = self[0](x)
        return first, self[1](first) if self.halves else first

    def output_size(self, size: int) -> int:
        """Height and width of input 1 for images of `size` pixels."""
        for stride in self.strides:
            size = halved(size, stride)
        return size


def _convolution(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False), BatchNorm(out_channels)]
