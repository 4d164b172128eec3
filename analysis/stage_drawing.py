"""Drawings of genotypes of stages: one row of boxes per stage, one box per block, with what the block is."""

from __future__ import annotations

from ddarts_core.genotypes.blocks import Block, Stage, StagedGenotype

from .palette import colour_of
from .pens import Pen

# Sizes in inches.
_WIDTH, _HEIGHT, _GAP, _LABEL, _ROW = 1.12, 0.62, 0.16, 1.35, 0.86

#: Height of a row, and the room on the left for what the stage is.
ROW, LABEL = _ROW, _LABEL


def row_width(genotype: StagedGenotype) -> float:
    """Width, in inches, that every row of a genotype fits into."""
    return _LABEL + max(len(stage) for stage in genotype.stages) * (_WIDTH + _GAP)


def stage_words(genotype: StagedGenotype, number: int) -> str:
    """What the row of stage `number` shows, in words for readers who do not see it."""
    stage = genotype.stages[number]
    blocks = "; ".join(block.words + (f", {block.repeats} times" if block.repeats > 1 else "") for block in stage)
    return f"stage {number}: {blocks}"


def head_words(genotype: StagedGenotype) -> str:
    """What follows the last stage, in words."""
    hidden = f", linear layer to {genotype.hidden} ({genotype.activation})" if genotype.hidden else ""
    return f"then mean over all pixels{hidden}, classifier"


def draw_stage(pen: Pen, genotype: StagedGenotype, number: int, left: float, bottom: float) -> None:
    """Draw the stage `number` with the lower left corner of its row at (left, bottom), in inches."""
    stage = genotype.stages[number]
    middle = bottom + _ROW / 2
    size = _size(genotype, number)
    pen.write((left, middle + 0.09), f"stage {number}", 9, "ink", anchor="left", style="bold", on_line=False)
    pen.write((left, middle - 0.1), f"to {size} × {size} pixels", 7, "soft", anchor="left", on_line=False)
    for place, block in enumerate(stage):
        x = left + _LABEL + place * (_WIDTH + _GAP)
        if place:
            pen.arrow((x - _GAP, middle), (x, middle))
        _draw_block(pen, block, x, middle - _HEIGHT / 2)


def _size(genotype: StagedGenotype, number: int) -> int:
    """Height and width of a stage's output, for images of the size that the genotype is meant for."""
    size = genotype.image_size
    for stage in genotype.stages[: number + 1]:
        size = -(-size // _stride(stage))
    return size


def _stride(stage: Stage) -> int:
    return stage[0].stride


def _draw_block(pen: Pen, block: Block, left: float, bottom: float) -> None:
    """A box whose left edge has the colour of the kernel."""
    halving = block.stride == 2
    edge, card = ("warm", "warm-card") if halving else ("edge", "card")
    pen.box((left, bottom), (_WIDTH, _HEIGHT), card, edge)
    pen.box((left, bottom), (0.07, _HEIGHT), _colour(block), None, radius=0)
    kind = "inverted" if block.middle else "conv"
    times = f"  ×{block.repeats}" if block.repeats > 1 else ""
    first = f"{kind} {block.kernel}×{block.kernel}{' /2' if halving else ''}{times}"
    second = f"{block.middle} → {block.channels}" if block.middle and block.expand else f"→ {block.channels}"
    third = ("SE, " if block.squeeze else "") + block.activation
    centre = left + _WIDTH / 2 + 0.03
    for line, (words, size) in enumerate(((first, 7.5), (second, 8.5), (third, 7))):
        pen.write((centre, bottom + _HEIGHT * (0.8 - 0.3 * line)), words, size, "soft" if line == 2 else "ink")


def _colour(block: Block) -> str:
    """The colour of the operation of a cell that it is most like."""
    if not block.middle:
        return colour_of(f"simple_conv_{block.kernel}x{block.kernel}")
    return colour_of(f"sep_conv_{block.kernel}x{block.kernel}")
