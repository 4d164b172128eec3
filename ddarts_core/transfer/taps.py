"""The outputs of a derived network that a detector reads: the last one at each of the strides 4, 8, 16 and 32.

Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from ..genotypes.genotype import Genotype
from ..genotypes.shapes import STRIDES, stem_widths
from ..ground.errors import UserError

#: Pixels of the image between two pixels of a feature map, finest first: C2 to C5 of a feature pyramid.
PYRAMID = (4, 8, 16, 32)

FormChoice = Literal["auto", "imagenet", "imagenet-published"]

#: Place of the stem's first output in the sequence of outputs; its second is 1, and cell i is `FIRST_CELL + i`.
STEM = 0
FIRST_CELL = 2


@dataclass(frozen=True)
class Tap:
    """One output of a network that a detector reads.

    Attributes:
        place: the place in the sequence of outputs: 0 and 1 are the stem's outputs, and the cells begin at 2.
        stride: how many pixels of the image lie between two pixels of the output.
        channels: how many channels the output has.
    """

    place: int
    stride: int
    channels: int

    @property
    def name(self) -> str:
        """The name that people read: `stem0`, `stem1` or `cell 3`."""
        return f"stem{self.place}" if self.place < FIRST_CELL else f"cell {self.place - FIRST_CELL}"


def form_of(genotype: Genotype, form: FormChoice) -> Literal["imagenet", "imagenet-published"]:
    """Return the form of the stem. `auto` becomes the form that puts the last cell at stride 32.

    For a genotype with three reductions, `auto` is `imagenet-published`, which halves the image twice in front of the
    cells, as in the four-cell ResNets. Else it is `imagenet`, which halves the image three times, as in DARTS' network
    with two reductions. Both stems have the same weights.
    """
    if form != "auto":
        return form
    return "imagenet-published" if len(genotype.reductions) == 3 else "imagenet"


def taps(genotype: Genotype, channels: int, form: str) -> tuple[Tap, ...]:
    """Return the last output of the network at each stride of `PYRAMID`, the finest first.

    In DARTS' form with L cells, these are stem0 and the cells L/3 - 1, 2L/3 - 1 and L - 1. With four cells, each of
    which begins a stage, they are the cells 0 to 3.

    Args:
        genotype: the genotype with individual cells, as the network is built from it.
        channels: the width C of the first cell.
        form: the form of the stem.

    Raises:
        UserError: the network has no output at one of the strides.

    Example:
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> [(tap.name, tap.channels) for tap in taps(ZOO["ResNet18"].genotype, 64, "imagenet-published")]
        [('cell 0', 256), ('cell 1', 512), ('cell 2', 1024), ('cell 3', 2048)]
    """
    *before, last = STRIDES[form]
    width = stem_widths(form, channels)
    stem0 = prod(before)
    stride = stem0 * last
    outputs = [Tap(0, stem0, width), Tap(1, stride, width)]
    for position, cell in enumerate(genotype.cells):
        if position in genotype.reductions:
            stride, channels = 2 * stride, 2 * channels
        outputs.append(Tap(FIRST_CELL + position, stride, channels * len(cell.concat)))
    by_stride = {tap.stride: tap for tap in outputs}
    missing = [stride for stride in PYRAMID if stride not in by_stride]
    if missing:
        there = ", ".join(str(stride) for stride in sorted(by_stride))
        raise UserError(
            f"a detector reads strides 4, 8, 16 and 32, and this network of form {form} with "
            f"{len(genotype.reductions)} reductions has {there}: use form imagenet with 2 reductions or "
            "imagenet-published with 3"
        )
    return tuple(by_stride[stride] for stride in PYRAMID)
