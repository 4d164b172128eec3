"""Genotypes whose blocks are grouped in stages, as in FBNetV2: frozen, torch-free data.

A network of this kind is a chain. Each block reads the block before it. A stage halves the image at most once, in its
first block. Every block has a width of its own. So, unlike for networks of cells, no width follows from one number of
channels, and no size from positions of reductions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from ..ground.errors import UserError
from .genotype import SCHEMA_VERSION, AnyGenotype, Operation, as_int

Activation = Literal["relu", "hswish"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "hswish")

#: Channels that a rounded number is a multiple of.
DIVISOR = 8


def rounded(target: float) -> int:
    """Channels for a number that need not be whole: the nearest multiple of 8.

    If this multiple is smaller than the number by more than 5 %, it is the next larger one.

    Example:
        >>> rounded(24 * 1.7912), rounded(88 / 4)
        (48, 24)
    """
    nearest = max(DIVISOR, int(target + DIVISOR / 2) // DIVISOR * DIVISOR)
    return nearest + DIVISOR if nearest < 0.95 * target else nearest


def squeezed(middle: int) -> int:
    """Channels within the squeeze-excitation of `middle` channels: a quarter of them, rounded (`rounded`)."""
    return rounded(middle / 4)


@dataclass(frozen=True)
class Block:
    """An inverted residual block (MobileNetV2, MobileNetV3), or a plain convolution.

    An inverted block is a 1x1 convolution to `middle` channels, a depthwise convolution, squeeze-excitation if it
    has it, and a 1x1 convolution to `channels`. If its input and output have the same shape, the input is added to the
    output. A plain block is one convolution. No convolution has a bias, and a normalisation follows each of them.

    Attributes:
        channels: number of channels of the output.
        kernel: width of the convolution, an odd number.
        stride: stride of the first of the repeated blocks; the others have stride 1.
        middle: number of channels between the two 1x1 convolutions; 0 stands for a plain convolution.
        expand: whether the block has the first 1x1 convolution; without it, `middle` is the number of input channels.
        squeeze: whether the block has squeeze-excitation (`squeezed`).
        activation: the activation after every normalisation, except after the one that ends an inverted block.
        repeats: how many such blocks follow each other.

    Raises:
        UserError: one of the numbers is one that no block can have.
    """

    channels: int
    kernel: int
    stride: int = 1
    middle: int = 0
    expand: bool = True
    squeeze: bool = False
    activation: Activation = "hswish"
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.channels < 1 or self.middle < 0 or self.repeats < 1:
            raise UserError(f"{self.words}: channels and repeats of a block are 1 or more, and middle is not negative")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.stride not in (1, 2):
            raise UserError(f"{self.words}: the kernel of a block is odd, and its stride 1 or 2")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation {self.activation!r} of a block: choose {' or '.join(ACTIVATIONS)}")
        if not self.middle and (self.squeeze or not self.expand):
            raise UserError(f"{self.words}: only a block with middle channels has squeeze-excitation or no expansion")

    @property
    def words(self) -> str:
        """What the block is, in a few words.

        Example:
            >>> Block(24, 5, 2, middle=88).words
            'inverted 5x5 /2 to 24 by 88, hswish'
        """
        parts = ["inverted" if self.middle else "convolution", f"{self.kernel}x{self.kernel}"]
        parts += ["/2"] if self.stride == 2 else []
        parts += [f"to {self.channels}"]
        parts += [f"by {self.middle}"] if self.middle and self.expand else []
        return " ".join(parts) + (", squeeze" if self.squeeze else "") + f", {self.activation}"


Stage = tuple[Block, ...]


@dataclass(frozen=True)
class StagedGenotype(AnyGenotype):
    """A discrete architecture of blocks in stages, with the classifier's head.

    Equal blocks that follow each other are stored as one block with `repeats`, however they were written.

    Attributes:
        stages: the stages of the network, in order; the first block of each stage may halve the image.
        hidden: number of outputs of a linear layer without bias between pooling and classifier; 0 means no such layer.
        activation: the activation after this layer.
        image_size: height and width in pixels that the architecture is meant for; the network takes other sizes too.

    Raises:
        UserError: a stage is empty or halves the image behind its first block, or a size is impossible.

    Example:
        >>> stem, block = Block(8, 3, 2), Block(16, 3, 2, middle=24)
        >>> StagedGenotype(((stem,), (block, replace(block, stride=1))), image_size=32).words
        '3 blocks in 2 stages'
    """

    stages: tuple[Stage, ...]
    hidden: int = 0
    activation: Activation = "hswish"
    image_size: int = 224
    layout: Literal["stages"] = field(default="stages", init=False)

    layouts: ClassVar[tuple[str, ...]] = ("stages",)
    part: ClassVar[str] = "block"
    rows: ClassVar[str] = "stages"

    def __post_init__(self) -> None:
        if not self.stages or not all(self.stages):
            raise UserError("a genotype of stages needs at least one stage, and each stage a block")
        if any(block.stride == 2 for stage in self.stages for block in stage[1:]):
            raise UserError("only the first block of a stage may halve the image: begin another stage there")
        if self.hidden < 0 or self.image_size < 1 or self.activation not in ACTIVATIONS:
            raise UserError(
                f"hidden {self.hidden} and image_size {self.image_size} of a genotype must be 0 or more and 1 or more, "
                f"and its activation {self.activation!r} {' or '.join(ACTIVATIONS)}"
            )
        object.__setattr__(self, "stages", tuple(_merged(stage) for stage in self.stages))
        widths = (None, *(block.channels for block in self.blocks))
        for position, (block, width) in enumerate(zip(self.blocks, widths, strict=False)):
            if not block.expand and block.middle != width:
                raise UserError(
                    f"block {position} has no expansion, so that its middle is its input of {width or 'any'} channels "
                    f"and not {block.middle}"
                )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks of the network in order, each repeated one on its own."""
        return tuple(
            replace(block, stride=block.stride if number == 0 else 1, repeats=1)
            for stage in self.stages
            for block in stage
            for number in range(block.repeats)
        )

    @property
    def auxiliary_position(self) -> int | None:
        """Position of the block that an auxiliary head reads; None if there is no such block.

        It is the block before the last block that halves the image.
        """
        halving = [position for position in self.reductions if position > 0]
        return halving[-1] - 1 if halving else None

    @property
    def reductions(self) -> tuple[int, ...]:
        """Positions of the blocks that halve the image."""
        return tuple(position for position, block in enumerate(self.blocks) if block.stride == 2)

    @property
    def num_cells(self) -> int:
        """Number of blocks of the network."""
        return len(self.blocks)

    @property
    def words(self) -> str:
        """What the genotype is made of, in words."""
        return f"{self.num_cells} blocks in {len(self.stages)} stages"

    def operations(self) -> Iterator[Operation]:
        """Every block, as the one operation between its input (node 1) and its output (node 2)."""
        yield from ((position, 2, 1, block.words) for position, block in enumerate(self.blocks))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the inverse."""
        return {
            "schema": SCHEMA_VERSION,
            "layout": self.layout,
            "image_size": self.image_size,
            "hidden": self.hidden,
            "activation": self.activation,
            "stages": [[{name: getattr(block, name) for name in _FIELDS} for block in stage] for stage in self.stages],
        }

    @classmethod
    def of_fields(cls, data: Mapping[str, Any]) -> StagedGenotype:
        """Read what `to_dict` wrote; see `AnyGenotype`."""
        try:
            stages = tuple(tuple(_block(block) for block in stage) for stage in data["stages"])
            hidden, size = as_int(data["hidden"]), as_int(data["image_size"])
            return cls(stages, hidden, data["activation"], size)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"not a genotype: `stages` must be lists of blocks with {', '.join(_FIELDS)}, beside `hidden`, "
                "`activation` and `image_size`"
            ) from error


_FIELDS = tuple(Block.__dataclass_fields__)


def _block(data: Mapping[str, Any]) -> Block:
    flags = {name: data[name] for name in ("expand", "squeeze")}
    if set(data) != set(_FIELDS) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise TypeError("fields of a block")
    numbers = {name: as_int(data[name]) for name in ("channels", "kernel", "stride", "middle", "repeats")}
    fields: dict[str, Any] = {**flags, **numbers}
    return Block(activation=data["activation"], **fields)


def _merged(stage: Stage) -> Stage:
    """The stage, in which equal blocks that follow each other are one; a stride counts only for the first of them."""
    merged: list[Block] = []
    for block in stage:
        if merged and replace(merged[-1], stride=1, repeats=block.repeats) == block:
            merged[-1] = replace(merged[-1], repeats=merged[-1].repeats + block.repeats)
        else:
            merged.append(block)
    return tuple(merged)
