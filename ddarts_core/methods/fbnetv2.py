"""FBNetV2: one masked network holds all widths, kernels and resolutions of a space of inverted residual blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from ..genotypes.blocks import Activation, StagedGenotype, rounded
from ..genotypes.stage_space import BlockChoices, Decision, StageSpace
from ..ground.errors import UserError, unknown_name
from ..ground.validation import Strict
from .common import Mixed, Standard, Unfrozen
from .method import Method
from .parts import Gates, Kept, Parameters, Progress, Shape
from .searched_network import Network, Place

if TYPE_CHECKING:
    from torch import Tensor

    from ..datasets.facts import DataInfo
    from ..genotypes.genotype import AnyGenotype
    from ..search.discretise import Derivation
    from ..settings.config import ExperimentConfig
    from ..settings.search_settings import DiscretiseConfig
    from ..supernets.masked import MaskedSupernet


class BlockRow(Strict):
    """What some blocks that follow each other may be; of every list one value is chosen for each block."""

    channels: tuple[int, ...] = Field(description="numbers of channels of the output")
    middle: tuple[int, ...] = Field((), description="numbers of channels in the middle; empty: a plain convolution")
    kernel: tuple[int, ...] = Field((3,), description="widths of the kernel")
    squeeze: tuple[bool, ...] = Field((False,), description="whether it has squeeze-excitation")
    activation: tuple[Activation, ...] = Field(("hswish",), description="activations")
    stride: int = Field(1, ge=1, le=2, description="2 halves the image in the first of these blocks")
    expand: bool = Field(True, description="whether it has the first convolution; without it there is no middle")
    repeats: int = Field(1, ge=1, le=32, description="how many such blocks follow each other")

    @property
    def choices(self) -> list[BlockChoices]:
        """The choices of each of the blocks.

        Raises:
            UserError: see `BlockChoices`.
        """
        of_first = {name: getattr(self, name) for name in type(self).model_fields if name != "repeats"}
        return [BlockChoices(**{**of_first, "stride": self.stride if k == 0 else 1}) for k in range(self.repeats)]


def _row(inputs: int, channels: Sequence[int], repeats: int = 1, stride: int = 1) -> list[dict[str, Any]]:
    """Blocks with all choices of FBNetV2: expansions 0.75 to 4.5 of the widest input, in steps of 0.75.

    Args:
        inputs: the largest number of channels of the input.
        channels: numbers of channels of the output.
        repeats: number of blocks.
        stride: stride of the first block.
    """
    kinds = {"kernel": [3, 5], "squeeze": [False, True], "activation": ["relu", "hswish"]}
    rows = []
    for number in range(repeats):
        widest = inputs if number == 0 else max(channels)
        middle = sorted({rounded(widest * 0.75 * k) for k in range(1, 7)})
        rows.append({"channels": [*channels], "middle": middle, **kinds, "stride": stride if number == 0 else 1})
    return rows


#: Spaces of blocks by name, as `search.options.blocks` may also list them.
BLOCKS: Mapping[str, list[dict[str, Any]]] = MappingProxyType(
    {
        "mobile": [  # FBNetV2's space for 288 pixels
            {"channels": [16], "stride": 2},
            {"channels": [12, 16], "expand": False},
            *_row(16, range(16, 29, 4), 3, 2),
            *_row(28, range(16, 41, 8), 3, 2),
            *_row(40, range(48, 97, 8), 3, 2),
            *_row(96, range(72, 129, 8), 4, 1),
            *_row(128, range(112, 217, 8), 4, 2),
            {"channels": [1344], "kernel": [1]},
        ],
        "small": [  # for images of 8 to 32 pixels
            {"channels": [8, 12, 16]},
            *_row(16, (8, 12, 16, 20, 24), 1, 2),
            *_row(24, (16, 24, 32, 40), 2, 2),
            {"channels": [32, 48, 64], "kernel": [1]},
        ],
    }
)


class Masked(Network):
    """A network of inverted residual blocks with masks of channels and kernels, at several resolutions (FBNetV2).

    It has a decision, which is a group of gates, for every choice of the space.
    """

    name = "masked"
    summary = "inverted residual blocks whose widths, kernels, kinds and resolution are chosen by masks (FBNetV2)"
    choice = "decision"
    costs = ("macs", "parameters")
    reduced_by = ("search.options.blocks",)

    class Options(Strict):
        """Settings of the space."""

        blocks: str | tuple[BlockRow, ...] = Field(
            "mobile", description="the blocks: mobile, small, or a list of rows with channels, middle, kernel, ..."
        )
        resolutions: tuple[int, ...] = Field(
            (1, 2),
            description="the resolutions, or one, each by its step: 1 the whole image, 2 every second pixel",
        )
        hidden: int = Field(1984, ge=0, le=8192, description="outputs of a layer before the classifier; 0: none")

        @field_validator("resolutions", mode="before")
        @classmethod
        def _one_alone(cls, value: Any) -> Any:
            """The space of a sweep has numbers, and no lists."""
            return (value,) if isinstance(value, int) and not isinstance(value, bool) else value

        @field_validator("blocks")
        @classmethod
        def _known_blocks(cls, value: Any) -> Any:
            if isinstance(value, str) and value not in BLOCKS:
                raise unknown_name("space of blocks", value, BLOCKS)
            return value

    def space(self, image_size: int) -> StageSpace:
        """What the search chooses from, for images of a height and width.

        Raises:
            UserError: the options are of no space, or a resolution leaves too few pixels.
        """
        blocks = self.options.blocks
        rows = [BlockRow(**row) for row in BLOCKS[blocks]] if isinstance(blocks, str) else blocks
        try:
            choices = [block for row in rows for block in row.choices]
            return StageSpace(tuple(choices), self.options.resolutions, self.options.hidden, image_size=image_size)
        except UserError as error:
            raise UserError(f"search.options of search.network {self.name}: {error}") from error

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The choices, in order; they do not depend on the size of the images."""
        return self.space(8 * max(self.options.resolutions, default=1)).decisions

    @property
    def words(self) -> str:
        """Number of blocks and of decisions."""
        return f"{len(self.space(8 * max(self.options.resolutions)).blocks)} blocks with {self.groups} decisions"

    @property
    def layout(self) -> str:
        """`stages`."""
        return "stages"

    @property
    def groups(self) -> int:
        """Number of decisions."""
        return len(self.decisions)

    @property
    def one_loss(self) -> bool:
        """True: a cost is one number of the whole network."""
        return True

    def shape(self, groups: int, kept: Kept | None = None, linked: bool = False) -> Shape:
        """One row of options for each decision; rows are as long as the longest."""
        options = tuple(len(decision.options) for decision in self.decisions)
        return Shape(groups, 1, max(options), options=options)

    def build(self, info: DataInfo, kept: Kept | None = None) -> MaskedSupernet:
        """A `masked.MaskedSupernet`."""
        from ..supernets.masked import MaskedSupernet

        return MaskedSupernet(self.space(info.image_size), info.num_classes, info.channels)

    def of_parts(self, values: Tensor) -> Any:
        """[decisions][1][options], without what is beyond the options of a decision."""
        rows = zip(values.tolist(), self.decisions, strict=True)
        return [[row[: len(decision.options)] for row in group] for group, decision in rows]

    def derive(
        self, scores: Tensor, config: DiscretiseConfig, image_size: int, links: Sequence[int | None] | None = None
    ) -> Derivation:
        """The option with the largest score of each decision, the earlier one of equals."""
        from ..search.discretise import Derivation

        rows = [row for (row,) in self.of_parts(scores)]
        return Derivation(self.space(image_size).genotype([row.index(max(row)) for row in rows]))

    def heaviest(self, config: DiscretiseConfig, image_size: int) -> AnyGenotype:
        """The widest blocks with the largest kernels and squeeze-excitation, at the highest resolution."""
        space = self.space(image_size)
        largest = [min if decision.field == "step" else max for decision in space.decisions]
        rows = zip(largest, space.decisions, strict=True)
        return space.genotype([decision.options.index(most(decision.options)) for most, decision in rows])

    @property
    def places(self) -> tuple[Place, ...]:
        """By block, its decisions in order; the resolution is the first decision of block 0."""
        found: list[Place] = []
        number: dict[int, int] = {}
        for decision in self.decisions:
            cell = decision.place or 0
            edge = number[cell] = number.get(cell, -1) + 1
            found += [Place(cell, edge, f"{decision.field}={value}") for value in decision.options]
        return tuple(found)

    def trained_size(self, genotype: AnyGenotype) -> int | None:
        """The image size of a genotype of stages."""
        return genotype.image_size if isinstance(genotype, StagedGenotype) else None

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse what looks into cells, and gates that do not know how many options a decision has."""
        from . import GATES, PLANS

        search, ablation = config.search, config.ablation
        network = cls(search)
        if not network.decisions:
            return f"search.network {cls.name} has nothing to decide: give search.options.blocks some values"
        if not GATES[search.gates].uneven:
            return f"search.network {cls.name} has rows of different lengths: use search.gates {Annealed.name}"
        if ablation.loss != "none" or ablation.shapley_permutations:
            return f"search.network {cls.name} has no cells to remove: set ablation.loss to none"
        plan = PLANS[search.stages](search)
        of_cells = any(s.kept is not None or s.decides or s.beside is not None or s.settings for s in plan.stages())
        if plan.has_heads or of_cells:
            return f"search.stages {search.stages} is for cells: use {Standard.name} with search.network {cls.name}"
        given: dict[str, Any] = {
            "edge": Mixed.name,
            "regularisers": {},
            "freezing": Unfrozen.name,
            "start": None,
            "number": None,
            "probe": 0,
            "head_norm": False,
            "compile": "none",
            "checkpoint_cells": False,
        }
        for name, value in given.items():
            if getattr(search, name) != value:
                return f"search.{name} is for cells, which search.network {cls.name} has not: leave it out"
        return None


class Annealed(Gates):
    """Gumbel softmax softmax((alpha + G) / T), with T that falls by the same factor in every epoch (FBNetV2).

    In a step, one G is drawn for each decision. Outside steps there is no noise.
    """

    name = "gumbel-annealed"
    summary = "softmax of alpha plus Gumbel noise, over a temperature that falls by a factor in each epoch (FBNetV2)"
    exact = True
    uneven = True

    class Options(Strict):
        """Settings of the temperature."""

        start_temperature: float = Field(5.0, gt=0, le=1000, description="temperature in the first epoch")
        temperature_factor: float = Field(0.956, gt=0, le=1, description="its factor from one epoch to the next")

    @cached_property
    def _options(self) -> tuple[int, ...]:
        from . import network_of

        return network_of(self.search).shape(0).options

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; sums to 1 over the last axis, and is 0 beyond the options of a decision."""
        import torch

        from ..supernets.masks import annealed, gumbel_softmax

        alphas = parameters["alphas"]
        if self._options:
            numbers = torch.tensor(self._options, device=alphas.device)[:, None, None]
            beyond = torch.arange(alphas.shape[-1], device=alphas.device) >= numbers
            alphas = alphas.masked_fill(beyond, -float("inf"))
        options = self.options
        temperature = annealed(progress.epoch, options.start_temperature, options.temperature_factor)
        if progress.draw is None:
            return gumbel_softmax(alphas, temperature)
        stream = progress.draw()
        uniform = torch.rand(alphas.shape, generator=stream, dtype=alphas.dtype, device=alphas.device)
        return gumbel_softmax(alphas, temperature, uniform)


METHOD = Method(
    "a masked network of inverted residual blocks; widths, kernels, kinds and resolution by Gumbel softmax",
    "FBNetV2 (Wan et al. 2020)",
    {
        "search": {
            "network": Masked.name,
            "gates": Annealed.name,
            "cost": {"of": "macs", "weight": 0.03},
            "options": {
                "blocks": "mobile",
                "resolutions": [1, 2],
                "hidden": 1984,
                "start_temperature": 5.0,
                "temperature_factor": 0.956,
            },
            "w_zero_one": 0.0,
            "lr": 0.1,
            "lr_min": 0.0,
            "weight_decay": 1e-4,
            "warmup_epochs": 10,
            "epochs": 80,
        },
        "alpha": {"lr": 0.01, "lr_min": 0.0, "schedule": "constant", "weight_decay": 5e-4},
        "ablation": {"loss": "none"},
        "discretise": {"rule": "darts"},
    },
    parts=(Masked, Annealed),
    formula="y = b(x) sum_i g_i 1_i, g = softmax((alpha + G) / T), T = 5 x 0.956^e; L = L_CE + 0.03 log(cost), the "
    "expected multiply-adds as cost; search.cost.target: L_CE + w log(cost / target)^2; in the genotype argmax alpha",
    uncertain=(
        "the search was never published as code, nor the coefficients of its cost: by log(cost), FBNet's L_CE 0.2 "
        "log(cost)^0.6 has L_CE 0.6 / log(cost) times its gradient by L_CE, 0.03 at L_CE = 1 and 3e8 multiply-adds",
        "the published loss multiplies cross entropy and cost; here the cost is a term, as for all methods",
        "the blocks are a third party's reading of the space for 288 pixels; a block is never left out",
        "expansions are shares of the widest input of a block, rounded to multiples of 8",
        "resolutions are whole steps of subsampling, 288 and 144 pixels; a genotype is trained on resized images",
        "the cost is of the gates without noise, as the genotype is; whether the published one is drawn is not known",
        "masks stand behind normalisations; a residual connection counts as its ends are likely to be equally wide",
        "learning rates, decays and epochs are FBNet's; batch and split are not known, and those of all methods",
        "the temperature falls in the warm-up too; scores between epochs have no noise",
    ),
)
