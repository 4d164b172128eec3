"""Handcrafted networks written as genotypes over S_o (D-DARTS section 4.4), one cell per stage. Torch-free.

The published encodings feed every cell from its input 0, the output of the cell before the last, so that every second
cell is dead. Here a cell reads input 1, the output of the cell before it, as the handcrafted networks do;
`source=0` gives the published wiring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ..ground.errors import UserError
from .genotype import Cell, Edge, Genotype


def _check(source: int) -> None:
    if source not in (0, 1):
        raise UserError(f"source {source} of a handcrafted network: choose 1 (the cell before) or 0 (published wiring)")


def _cell(genes: Sequence[tuple[str, int, int]]) -> Cell:
    """A cell from (operation, source, target); all its nodes are concatenated."""
    edges = tuple(Edge(op=op, source=source, target=target) for op, source, target in genes)
    return Cell(edges, tuple({edge.target for edge in edges}))


def resnet18(source: int = 1) -> Genotype:
    """ResNet18: four cells of two residual blocks, each of two 3x3 convolutions beside a skip connection."""
    _check(source)
    cell = _cell(
        [
            ("simple_conv_3x3", source, 2),
            ("simple_conv_3x3", 2, 3),
            ("skip_connect", source, 3),
            ("simple_conv_3x3", 3, 4),
            ("simple_conv_3x3", 4, 5),
            ("skip_connect", 3, 5),
        ]
    )
    return Genotype((cell,) * 4, reductions=(1, 2, 3))


def resnet50(source: int = 1) -> Genotype:
    """ResNet50: cells of 3, 4, 6 and 3 bottleneck blocks, each beside a skip connection."""
    _check(source)

    def chain(blocks: int) -> Cell:
        sources = (source, *range(2, blocks + 1))
        return _cell(
            [(op, s, t) for t, s in enumerate(sources, start=2) for op in ("bottleneck_1x3x1", "skip_connect")]
        )

    return Genotype(tuple(chain(blocks) for blocks in (3, 4, 6, 3)), reductions=(1, 2, 3))


def xception(source: int = 1) -> Genotype:
    """Xception: entry flow of three cells, middle flow of eight, exit flow of two."""
    _check(source)
    separable = [("sep_conv_3x3", source, 2), ("sep_conv_3x3", 2, 3)]
    entry = _cell([*separable, ("simple_conv_1x1", source, 4), ("max_pool_3x3", 3, 4)])
    middle = _cell([*separable, ("skip_connect", source, 4), ("sep_conv_3x3", 3, 4)])
    final = _cell(separable)
    return Genotype((entry,) * 3 + (middle,) * 8 + (entry, final), reductions=(1, 2, 11, 12))


def xception_5(source: int = 1) -> Genotype:
    """Xception with the five distinct cells that the paper counts, where the published encoding has three.

    The stem here has only one of the two convolutions of Xception's stem, so the first cell has the second one. The
    cell of the exit flow that halves the image widens after its first separable convolution, by a 1x1 convolution; the
    other cells that halve it widen before theirs.
    """
    _check(source)
    separable = [("sep_conv_3x3", source, 2), ("sep_conv_3x3", 2, 3)]
    entry = _cell([*separable, ("simple_conv_1x1", source, 4), ("max_pool_3x3", 3, 4)])
    middle = _cell([*separable, ("skip_connect", source, 4), ("sep_conv_3x3", 3, 4)])
    first, leaving = (
        _cell([*chain, ("simple_conv_1x1", source, 5), ("max_pool_3x3", 4, 5)])
        for chain in (
            [("simple_conv_3x3", source, 2), ("sep_conv_3x3", 2, 3), ("sep_conv_3x3", 3, 4)],
            [("sep_conv_3x3", source, 2), ("simple_conv_1x1", 2, 3), ("sep_conv_3x3", 3, 4)],
        )
    )
    cells = (first, entry, entry, *[middle] * 8, leaving, _cell(separable))
    return Genotype(cells, reductions=(1, 2, 11, 12))


def inception_v4(source: int = 1) -> Genotype:
    """InceptionV4: cells A (four), B (seven) and C (three), and a cell that halves before B and before C.

    A branch's first 1x1 convolution is the one that fits the input of every cell to the cell's width. In Inception the
    branches of C part into a 1x3 and a 3x1 convolution; here these two follow one another.
    """
    _check(source)

    def branches(long: str) -> Cell:
        return _cell(
            [
                ("simple_conv_1x1", source, 2),
                (long, source, 3),
                (long, source, 4),
                (long, 4, 5),
                ("avg_pool_3x3", source, 6),
                ("simple_conv_1x1", 6, 7),
            ]
        )

    def halving(long: str) -> Cell:
        pool = ("max_pool_3x3", source, 2)
        return _cell([pool, ("simple_conv_3x3", source, 3), (long, source, 4), ("simple_conv_3x3", 4, 5)])

    a, b, c = (branches(long) for long in ("simple_conv_3x3", "conv_7x1_1x7", "conv_3x1_1x3"))
    cells = (*[a] * 4, halving("simple_conv_3x3"), *[b] * 7, halving("conv_7x1_1x7"), *[c] * 3)
    return Genotype(cells, reductions=(4, 12))


#: Builder by name; each takes the input that its cells read (1, or 0 as in the published encodings).
HANDCRAFTED: Mapping[str, Callable[[int], Genotype]] = MappingProxyType(
    {
        "ResNet18": resnet18,
        "ResNet50": resnet50,
        "Xception": xception,
        "Xception_5": xception_5,
        "InceptionV4": inception_v4,
    }
)

#: Those of which there is a published encoding.
ENCODED = ("ResNet18", "ResNet50", "Xception")
