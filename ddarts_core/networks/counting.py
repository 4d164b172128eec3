"""Parameters and multiply-adds of a network by arithmetic on its layers' sizes: torch-free, in milliseconds.

`measured_cost` builds the network and counts what is there. Both give the same numbers
(tests/core/test_cost.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..genotypes.blocks import Block, StagedGenotype, squeezed
from ..genotypes.genotype import AnyGenotype, Cell, Edge, Genotype
from ..genotypes.links import joined_width
from ..genotypes.shapes import STRIDES, auxiliary_position, halved, stem_widths
from ..genotypes.spaces import operations_of

if TYPE_CHECKING:
    from ..settings.search_settings import SearchConfig


@dataclass
class Tally:
    """Sums of parameters and multiply-adds over the layers of a network.

    `conv` is the number of multiply-adds of convolutions and linear layers, and `weights` is the number of their
    parameters without biases. `norm`, `pool` and `relu` are numbers of outputs of such layers.
    """

    parameters: int = 0
    weights: int = 0
    conv: int = 0
    norm: int = 0
    pool: int = 0
    relu: int = 0

    def convolve(self, inputs: int, outputs: int, size: int, area: int = 1, groups: int = 1) -> None:
        """Count a convolution without bias whose kernel has `area` weights, to `size` x `size` pixels."""
        weights = inputs // groups * outputs * area
        self.parameters += weights
        self.weights += weights
        self.conv += weights * size * size

    def normalise(self, channels: int, size: int) -> None:
        """Count a batch normalisation with a factor and a term for each channel."""
        self.parameters += 2 * channels
        self.norm += channels * size * size

    def activate(self, channels: int, size: int) -> None:
        """Count a ReLU."""
        self.relu += channels * size * size

    def connect(self, inputs: int, outputs: int, bias: bool = True) -> None:
        """Count a linear layer, or a convolution of one pixel."""
        self.parameters += (inputs + bias) * outputs
        self.weights += inputs * outputs
        self.conv += inputs * outputs


Operation = Callable[[Tally, int, int, int], None]
"""A function that counts an operation, given the number of channels, the input's size in pixels and the stride."""


def _nothing(tally: Tally, channels: int, size: int, stride: int) -> None:
    """A max pool has no parameters and no multiply-adds."""


def _average(tally: Tally, channels: int, size: int, stride: int) -> None:
    tally.pool += channels * halved(size, stride) ** 2


def _skip(tally: Tally, channels: int, size: int, stride: int) -> None:
    if stride == 2:
        _reduce(tally, channels, channels, size)


def _reduce(tally: Tally, inputs: int, outputs: int, size: int) -> None:
    """ReLU, two convolutions of half of the channels each, batch normalisation (`FactorizedReduce`)."""
    tally.activate(inputs, size)
    tally.convolve(inputs, outputs, halved(size, 2))
    tally.normalise(outputs, halved(size, 2))


def _fit(tally: Tally, inputs: int, outputs: int, size: int) -> None:
    """Count a `ReLUConvBN`."""
    tally.activate(inputs, size)
    tally.convolve(inputs, outputs, size)
    tally.normalise(outputs, size)


def _separable(kernel: int, halves: int, tally: Tally, channels: int, size: int, stride: int) -> None:
    for _ in range(halves):
        tally.activate(channels, size)
        size, stride = halved(size, stride), 1
        tally.convolve(channels, channels, size, kernel * kernel, groups=channels)
        tally.convolve(channels, channels, size)
        tally.normalise(channels, size)


def _dense(kernel: int, tally: Tally, channels: int, size: int, stride: int) -> None:
    tally.activate(channels, size)
    tally.convolve(channels, channels, halved(size, stride), kernel * kernel)
    tally.normalise(channels, halved(size, stride))


def _factored(kernel: int, tally: Tally, channels: int, size: int, stride: int) -> None:
    """The first convolution, 1 x k, halves the width alone."""
    out = halved(size, stride)
    tally.activate(channels, size)
    weights = channels * channels * kernel
    tally.parameters += 2 * weights
    tally.weights += 2 * weights
    tally.conv += weights * (size * out + out * out)
    tally.normalise(channels, out)


def _bottleneck(kernel: int, tally: Tally, channels: int, size: int, stride: int) -> None:
    out, wide = halved(size, stride), 4 * channels
    tally.activate(channels, size)
    tally.convolve(channels, channels, size)
    tally.normalise(channels, size)
    tally.convolve(channels, channels, out, kernel * kernel)
    tally.normalise(channels, out)
    tally.convolve(channels, wide, out)
    tally.normalise(wide, out)
    tally.activate(wide, out)
    tally.convolve(wide, channels, out)
    tally.normalise(channels, out)


#: By name, all that a genotype may have of `operations.OPERATIONS`; a network with another operation is measured.
COUNTED: Mapping[str, Operation] = MappingProxyType(
    {
        "max_pool_3x3": _nothing,
        "avg_pool_3x3": _average,
        "skip_connect": _skip,
        "sep_conv_3x3": partial(_separable, 3, 2),
        "sep_conv_5x5": partial(_separable, 5, 2),
        "sep_conv_7x7": partial(_separable, 7, 2),
        "dil_conv_3x3": partial(_separable, 3, 1),
        "dil_conv_5x5": partial(_separable, 5, 1),
        "conv_3x1_1x3": partial(_factored, 3),
        "conv_7x1_1x7": partial(_factored, 7),
        "simple_conv_1x1": partial(_dense, 1),
        "simple_conv_3x3": partial(_dense, 3),
        "simple_conv_5x5": partial(_dense, 5),
        "bottleneck_1x3x1": partial(_bottleneck, 3),
    }
)


def is_counted(genotype: AnyGenotype) -> bool:
    """Whether all operations of a genotype can be counted here: blocks can, and so can the operations in `COUNTED`."""
    return isinstance(genotype, StagedGenotype) or all(name in COUNTED for *_, name in genotype.operations())


def count(
    genotype: AnyGenotype, channels: int, num_classes: int, in_channels: int, image_size: int, form: str
) -> tuple[Tally, int]:
    """The sums over a network's layers, and the parameters that an auxiliary head would have; 0 if it cannot have one.

    Args:
        genotype: the genotype as built (`derive.as_built`), whose operations can be counted (`is_counted`).
        channels: width of the first cells, for a genotype of cells.
        num_classes: number of outputs.
        in_channels: number of channels of the images.
        image_size: height and width of the images, in pixels.
        form: the form of the stem, for a genotype of cells.
    """
    if isinstance(genotype, StagedGenotype):
        return _count_stages(genotype, num_classes, in_channels, image_size)
    return _count_cells(Genotype.narrowed(genotype), channels, num_classes, in_channels, image_size, form)


def _count_stages(genotype: StagedGenotype, num_classes: int, in_channels: int, size: int) -> tuple[Tally, int]:
    tally, auxiliary, last = Tally(), 0, in_channels
    for position, block in enumerate(genotype.blocks):
        size = count_block(tally, block, last, size)
        last = block.channels
        if position == genotype.auxiliary_position:
            auxiliary = _auxiliary(last, num_classes)
    tally.pool += last
    if genotype.hidden:
        tally.connect(last, genotype.hidden, bias=False)
        tally.relu += genotype.hidden * (genotype.activation == "relu")
    tally.connect(genotype.hidden or last, num_classes)
    return tally, auxiliary


def count_block(tally: Tally, block: Block, inputs: int, size: int) -> int:
    """Count one block that stands alone (`repeats` 1), and return the size of its output in pixels."""
    out = halved(size, block.stride)
    area = block.kernel**2

    def layer(channels: int, pixels: int, activated: bool = True) -> None:
        tally.normalise(channels, pixels)
        if activated and block.activation == "relu":
            tally.activate(channels, pixels)

    if not block.middle:
        tally.convolve(inputs, block.channels, out, area)
        layer(block.channels, out)
        return out
    middle = block.middle
    if block.expand:
        tally.convolve(inputs, middle, size)
        layer(middle, size)
    tally.convolve(middle, middle, out, area, groups=middle)
    layer(middle, out)
    if block.squeeze:
        few = squeezed(middle)
        tally.pool += middle
        tally.connect(middle, few)
        tally.activate(few, 1)
        tally.connect(few, middle)
    tally.convolve(middle, block.channels, out)
    layer(block.channels, out, activated=False)
    return out


def _auxiliary(channels: int, num_classes: int) -> int:
    """Parameters of an auxiliary head."""
    return channels * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + (768 + 1) * num_classes


def _count_cells(
    genotype: Genotype, channels: int, num_classes: int, in_channels: int, image_size: int, form: str
) -> tuple[Tally, int]:
    tally = Tally()
    before, size = _count_stem(tally, form, channels, in_channels, image_size)
    before_last = last = stem_widths(form, channels)
    head = auxiliary_position(genotype) if genotype.num_cells > 1 else None
    auxiliary, width, halve = 0, channels, len(STRIDES[form]) > 1
    outputs: list[int] = []
    for index, cell in enumerate(genotype.cells):
        reduction = index in genotype.reductions
        width *= 1 + reduction
        if cell.link is not None:
            before_last = joined_width(before_last, outputs[cell.link])
        (_reduce if halve else _fit)(tally, before_last, width, before)
        _fit(tally, last, width, size)
        before, size = size, _count_cell(tally, cell, width, size, reduction)
        before_last, last, halve = last, len(cell.concat) * width, reduction
        outputs.append(last)
        if index == head:
            auxiliary = _auxiliary(last, num_classes)
    tally.pool += last
    tally.connect(last, num_classes)
    return tally, auxiliary


def count_supernet(search: SearchConfig, in_channels: int, image_size: int) -> Tally:
    """The sums over a supernet in which each edge has all operations at full width; only counted operations are in."""
    tally = Tally()
    before, size = _count_stem(tally, search.form, search.channels, in_channels, image_size)
    before_last = last = stem_widths(search.form, search.channels)
    nodes = range(2, search.steps + 2)
    names = [name for name in operations_of(search.space) if name in COUNTED]
    edges = tuple(Edge(target, source, name) for target in nodes for source in range(target) for name in names)
    width = search.channels
    for index in range(search.num_cells):
        reduction = index in search.reduction_positions
        width *= 1 + reduction
        _fit(tally, before_last, width, before)
        _fit(tally, last, width, size)
        if edges:
            before, size = size, _count_cell(tally, Cell(edges, tuple(nodes)), width, size, reduction)
        else:  # all operations are a plug-in's
            before, size = size, halved(size, 2) if reduction else size
        before_last, last = last, search.steps * width
    return tally


def _count_stem(tally: Tally, form: str, channels: int, in_channels: int, size: int) -> tuple[int, int]:
    """The sizes in pixels of the first cell's two inputs."""
    first, *others = STRIDES[form]
    size = halved(size, first)
    width = channels // 2 if others else stem_widths(form, channels)
    tally.convolve(in_channels, width, size, 9)
    tally.normalise(width, size)
    before = size
    for stride in others:
        tally.activate(width, size)
        before, size = size, halved(size, stride)
        tally.convolve(width, channels, size, 9)
        tally.normalise(channels, size)
        width = channels
    return (before if others else size), size


def _count_cell(tally: Tally, cell: Cell, width: int, size: int, reduction: bool) -> int:
    """The size of the cell's output in pixels."""
    out = halved(size, 1 + reduction)
    for edge in cell.edges:
        outer = edge.source < 2
        COUNTED[edge.op](tally, width, size if outer else out, 1 + (reduction and outer))
    return out
