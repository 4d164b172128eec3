"""What a genotype costs that is drawn by the gates of a masked supernet: its expected size, differentiable (FBNetV2).

Each decision is drawn by itself. So the expectation of a product of numbers that different decisions choose is the
product of their expectations: the effective width of a layer is the mean of its widths, and so for its pixels and its
kernel. If all decisions are made, the expectation is the cost of the genotype, as `networks.counting` counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ..genotypes.blocks import squeezed
from ..genotypes.shapes import halved
from ..genotypes.stage_space import BlockChoices, StageSpace
from .masked import by_block


def expected_macs(space: StageSpace, gates: Tensor, in_channels: int, num_classes: int) -> Tensor:
    """Expected multiply-adds of convolutions and linear layers for one image: sum of k^2 h w c_in c_out / groups.

    Args:
        space: the space of the genotypes.
        gates: the gates, [decisions, options], in the order of `StageSpace.decisions`.
        in_channels: the number of channels of the images.
        num_classes: the number of outputs of the classifier.
    """
    steps, of_blocks = by_block(space, gates)
    sizes = [halved(space.image_size, step) for step in space.steps]
    total, widths = gates.new_zeros(()), _Widths((in_channels,), gates.new_ones(1))
    for block, of_block in zip(space.blocks, of_blocks, strict=True):
        inputs = widths.mean
        before = _mean([size**2 for size in sizes], steps)
        sizes = [halved(size, block.stride) for size in sizes]
        pixels = _mean([size**2 for size in sizes], steps)
        area = _mean([kernel**2 for kernel in block.kernel], of_block["kernel"])
        outputs = _mean(block.channels, of_block["channels"])
        if block.inverted:
            middles = widths.between(block, of_block)
            if block.expand:
                total = total + inputs * middles.mean * before
            excited = _mean([2 * m * squeezed(m) for m in middles.options], middles.gates)
            total = total + area * middles.mean * pixels + middles.mean * outputs * pixels
            total = total + _mean(block.squeeze, of_block["squeeze"]) * excited
        else:
            total = total + area * inputs * outputs * pixels
        widths = _Widths(block.channels, of_block["channels"])
    return total + _head(space, widths.mean, num_classes)


def expected_parameters(space: StageSpace, gates: Tensor, in_channels: int, num_classes: int) -> Tensor:
    """Expected number of parameters, normalisations and biases included; the arguments are those of `expected_macs`."""
    _, of_blocks = by_block(space, gates)
    total, widths = gates.new_zeros(()), _Widths((in_channels,), gates.new_ones(1))
    for block, of_block in zip(space.blocks, of_blocks, strict=True):
        inputs = widths.mean
        area = _mean([kernel**2 for kernel in block.kernel], of_block["kernel"])
        outputs = _mean(block.channels, of_block["channels"])
        total = total + 2 * outputs
        if block.inverted:
            middles = widths.between(block, of_block)
            if block.expand:
                total = total + (inputs + 2) * middles.mean
            excited = [2 * m * squeezed(m) + squeezed(m) + m for m in middles.options]
            total = total + (area + 2 + outputs) * middles.mean
            total = total + _mean(block.squeeze, of_block["squeeze"]) * _mean(excited, middles.gates)
        else:
            total = total + area * inputs * outputs
        widths = _Widths(block.channels, of_block["channels"])
    return total + _head(space, widths.mean, num_classes) + num_classes


class _Widths(NamedTuple):
    """The numbers of channels that there may be between two layers, and the gates of these options."""

    options: Sequence[int]
    gates: Tensor

    @property
    def mean(self) -> Tensor:
        """The effective width."""
        return _mean(self.options, self.gates)

    def between(self, block: BlockChoices, of_block: Mapping[str, Tensor]) -> _Widths:
        """The numbers of channels in the middle of a block whose input has these numbers of channels."""
        return _Widths(block.middle, of_block["middle"]) if block.expand else self


def _mean(options: Sequence[float], gates: Tensor) -> Tensor:
    """Expectation of a number that a decision chooses."""
    return gates @ gates.new_tensor([float(option) for option in options])


def _head(space: StageSpace, inputs: Tensor, num_classes: int) -> Tensor:
    """Number of weights in the linear layers behind the blocks, which is their number of multiply-adds too."""
    if not space.hidden:
        return inputs * num_classes
    return inputs * space.hidden + space.hidden * num_classes
