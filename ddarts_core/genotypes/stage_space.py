"""What a search over genotypes of stages chooses from: the channels, expansion, kernel and so on of each block.

This is the space of FBNetV2 (Wan et al. 2020). Beside the kind of a block, the search chooses its width and its
expansion, and for all blocks together the resolution of the images. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..ground.errors import UserError
from .blocks import Activation, Block, Stage, StagedGenotype
from .shapes import SMALLEST_IMAGE, halved


@dataclass(frozen=True)
class BlockChoices:
    """What one block may be. If a field has several values, one of them is chosen.

    Attributes:
        channels: numbers of channels of the block's output.
        middle: numbers of channels between the block's 1x1 convolutions; empty for a plain convolution.
        expand: whether the block has the first 1x1 convolution. Without it `middle` is empty, since the middle has as
            many channels as the input.
        kernel: widths of the block's convolution.
        squeeze: whether the block has squeeze-excitation.
        activation: the activations after the block's normalisations.
        stride: the stride of the block's convolution, which is not chosen.

    Raises:
        UserError: a field has no value, or has a value twice; a plain convolution has a choice of squeeze-excitation;
            or a block without expansion has a choice of `middle`.
    """

    channels: tuple[int, ...]
    middle: tuple[int, ...] = ()
    kernel: tuple[int, ...] = (3,)
    squeeze: tuple[bool, ...] = (False,)
    activation: tuple[Activation, ...] = ("hswish",)
    stride: int = 1
    expand: bool = True

    def __post_init__(self) -> None:
        for name in CHOSEN:
            values = getattr(self, name)
            if len(set(values)) != len(values) or (not values and name != "middle"):
                raise UserError(f"{name} {list(values)} of a block: give one value or more, each once")
        if self.middle and not self.expand:
            raise UserError("a block without expansion has no middle to choose: it is what its input has")
        if not self.inverted and self.squeeze != (False,):
            raise UserError("a block without middle channels has no squeeze-excitation to choose")
        self.block({name: 0 for name in CHOSEN}, 1)

    @property
    def inverted(self) -> bool:
        """Whether the block is an inverted residual block, and not a plain convolution."""
        return bool(self.middle) or not self.expand

    def middles(self, before: Sequence[int]) -> tuple[int, ...]:
        """Numbers of channels that the block may have in its middle, given the numbers that its input may have."""
        return self.middle if self.expand else tuple(before)

    def block(self, indices: dict[str, int], inputs: int) -> Block:
        """The block with the values of these indices, for an input with `inputs` channels."""
        values: dict[str, Any] = {name: getattr(self, name)[indices[name]] for name in CHOSEN if getattr(self, name)}
        if not self.expand:
            values["middle"] = inputs
        return Block(stride=self.stride, expand=self.expand, **values)


#: Fields of a block that are chosen, in this order.
CHOSEN = tuple(field.name for field in fields(BlockChoices) if field.name not in ("stride", "expand"))


@dataclass(frozen=True)
class Decision:
    """One choice: of a field of one block, or of the resolution that all blocks have.

    Attributes:
        place: position of the block, from 0; None for the resolution.
        field: the field of the block; `step` for the resolution.
        options: the values of which one is chosen.
    """

    place: int | None
    field: str
    options: tuple[Any, ...]


@dataclass(frozen=True)
class StageSpace:
    """All genotypes of stages that a search chooses from.

    Attributes:
        blocks: the choices of each block, in order.
        steps: resolutions, each by the step at which pixels are kept: 1 is the whole image, 2 every second pixel.
        hidden: see `StagedGenotype`.
        activation: see `StagedGenotype`.
        image_size: height and width of the whole images, in pixels.

    Raises:
        UserError: there is no block, the first block is not a plain convolution, or resolutions are missing or
            impossible.

    Example:
        >>> space = StageSpace((BlockChoices((4, 8), stride=2), BlockChoices((8,), (12, 16))), image_size=8)
        >>> [(decision.place, decision.field) for decision in space.decisions], space.size
        ([(0, 'channels'), (1, 'middle')], 4)
    """

    blocks: tuple[BlockChoices, ...]
    steps: tuple[int, ...] = (1,)
    hidden: int = 0
    activation: Activation = "hswish"
    image_size: int = 224

    def __post_init__(self) -> None:
        if not self.blocks or self.blocks[0].inverted:
            raise UserError("a space of stages begins with a plain convolution")
        if not self.steps or min(self.steps) < 1 or len(set(self.steps)) != len(self.steps):
            raise UserError(f"steps {list(self.steps)} of the resolution: give numbers of 1 or more, each once")
        if (smallest := halved(self.image_size, max(self.steps))) < SMALLEST_IMAGE:
            raise UserError(
                f"step {max(self.steps)} leaves images of {smallest} pixels, and no network takes fewer than "
                f"{SMALLEST_IMAGE}: use smaller steps or larger images"
            )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All choices with several options: that of the resolution first, then those of one block after the other."""
        found = [Decision(None, "step", self.steps)]
        for place, block in enumerate(self.blocks):
            found += [Decision(place, name, getattr(block, name)) for name in CHOSEN]
        return tuple(decision for decision in found if len(decision.options) > 1)

    @property
    def size(self) -> int:
        """How many genotypes there are."""
        size = 1
        for decision in self.decisions:
            size *= len(decision.options)
        return size

    def genotype(self, choice: Sequence[int]) -> StagedGenotype:
        """The genotype for a choice: the number of one option for each of `decisions`.

        A stage begins where a block halves the image.
        """
        indices: list[dict[str, int]] = [dict.fromkeys(CHOSEN, 0) for _ in self.blocks]
        step = self.steps[0]
        for decision, index in zip(self.decisions, choice, strict=True):
            if decision.place is None:
                step = self.steps[index]
            else:
                indices[decision.place][decision.field] = index
        stages: list[Stage] = []
        for choices, chosen in zip(self.blocks, indices, strict=True):
            block = choices.block(chosen, stages[-1][-1].channels if stages else 0)
            if block.stride == 2 or not stages:
                stages.append((block,))
            else:
                stages[-1] = (*stages[-1], block)
        return StagedGenotype(tuple(stages), self.hidden, self.activation, halved(self.image_size, step))
