"""Settings of `search`, `alpha`, `ablation` and `discretise`: from the supernet to the genotype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..genotypes.spaces import SPACES, default_reductions
from ..ground.errors import unknown_name
from ..ground.table import Table
from ..ground.validation import DEVICE, Strict

Removal = Literal["identity", "zero", "uniform", "random"]
Hessian = Literal["finite", "exact"]

AMP = "Computes convolutions in lower precision. none is float32 in full. tf32 and fp16 need a GPU."


class RegulariserConfig(Strict):
    """A term of the loss of the alphas."""

    weight: float = Field(1.0, ge=0, le=1000, description="The factor of the term.")
    schedule: Literal["constant", "rising", "falling", "early"] = Field(
        "constant",
        description="How the weight changes over the epochs that train alphas: it is constant, it is rising from "
        "0, or it is falling to 0; early is falling to 0 in their first fifth.",
    )


class CostConfig(RegulariserConfig):
    """What a genotype costs, as a term of the loss of the alphas, where the network can say what to expect."""

    target: float | None = Field(
        None,
        gt=0,
        description="The cost that the search looks for: the term is weight * log(cost / target)^2. With null it is "
        "weight * log(cost), so that cheaper genotypes are better.",
    )
    of: Literal["macs", "parameters"] = Field(
        "macs",
        description="What counts: multiply-adds of convolutions and linear layers for one image, or parameters.",
    )


class StopConfig(Strict):
    """When a search that starts from a genotype has found what it will find (the published code's rule)."""

    distance: float = Field(
        0.001, ge=0, le=1, description="The largest change of the distance to the start that counts as none."
    )
    epochs: int = Field(
        4, ge=1, le=10_000, description="For how many epochs, one after the other, it must not have changed."
    )
    after: int = Field(
        5,
        ge=0,
        le=10_000,
        description="How many epochs of the alphas do not count at the beginning, when few are decided.",
    )


class SearchConfig(Strict):
    """The supernet and the loop that trains its weights."""

    space: str = Field("S", description="The operations that an edge chooses from.")
    num_cells: int = Field(8, ge=1, le=64, description="How many cells the supernet has (n).")
    channels: int = Field(
        16, ge=2, le=512, description="How many channels the first cells have (C). Each reduction doubles the number."
    )
    steps: int = Field(4, ge=1, le=8, description="How many intermediate nodes each cell has.")
    form: Literal["cifar", "imagenet"] = Field(
        "cifar",
        description="The stem of the network: cifar keeps the full size, imagenet halves it three times before cell 0.",
    )
    reductions: tuple[int, ...] | None = Field(
        None, description="The positions of the reduction cells. null is n//3 and 2n//3."
    )
    sharing: Literal["own", "normal_reduce", "identical"] = Field(
        "own",
        description="Which cells share alphas: none (own), all normal and all reduction cells as in DARTS "
        "(normal_reduce), or the equal cells of `start` as in DARTOpti (identical).",
    )
    start: str | None = Field(
        None,
        description="The genotype that the alphas start from, as a file or zoo:NAME (DARTOpti). num_cells, "
        "reductions, steps, space and data.image_size follow from it, with sharing identical also w_zero_one and "
        "alpha.weight_decay.",
    )
    number: int | None = Field(
        None,
        ge=0,
        description="The number of a genotype in the space. It is trained as it is, and nothing is searched: what each "
        "trial of `ddarts truth` does. null searches.",
    )
    network: str = Field("cells", description="What network is searched. See `ddarts methods --parts`.")
    gates: str = Field(
        "sigmoid", description="How alphas become the weights of operations. See `ddarts methods --parts`."
    )
    edge: str = Field(
        "mixed", description="What an edge computes from its operations and their gates. See `ddarts methods --parts`."
    )
    share_weights: bool = Field(
        False,
        description="Whether identical cells of `start` that have equal width share the weights of their operations "
        "too. Needs sharing identical.",
    )
    regularisers: dict[str, RegulariserConfig] = Field(
        {},
        description="Terms that are added to the loss of the alphas: name -> {weight, schedule}. zero-one needs "
        "w_zero_one 0. An ablation loss that is named here is kept in the group `ablation`.",
    )
    cost: CostConfig | None = Field(
        None,
        description="Lets the expected cost of the genotypes count in the loss of the alphas. Only some networks know "
        "it (search.network).",
    )
    stages: str = Field(
        "standard", description="What is trained when, and on which network. See `ddarts methods --parts`."
    )
    freezing: str = Field(
        "none", description="Which operations stop being trained during the search. See `ddarts methods --parts`."
    )
    options: dict[str, Any] = Field({}, description="Settings of the parts in use. See `ddarts methods --parts`.")
    order: Literal["first", "second", "single_level"] = Field(
        "first",
        description="The order of DARTS' gradient of the alphas, first or second. single_level takes it on the "
        "batch that trains the weights.",
    )
    hessian: Hessian = Field(
        "finite",
        description="For order second: how its product with a gradient is computed. finite is DARTS' difference "
        "of radius 0.01, which is coarse on small networks. exact is a double backward pass through "
        "the readable form.",
    )
    stop: StopConfig | None = Field(
        None, description="Ends the search before `epochs` when its distance to `start` stands still. null: never."
    )
    epochs: int = Field(50, ge=1, le=10_000, description="How many epochs train weights and alphas in turn.")
    warmup_epochs: int = Field(0, ge=0, description="How many epochs train only the weights, before `epochs`.")
    batch_size: int = Field(
        128, ge=1, le=65_536, description="How many images one step takes, for weights and for alphas alike."
    )
    lr: float = Field(
        0.005, gt=0, le=10, description="The learning rate of SGD on the weights. It falls as a cosine to lr_min."
    )
    lr_min: float = Field(0.001, ge=0, le=10, description="The learning rate at the end of the cosine.")
    momentum: float = Field(0.9, ge=0, lt=1, description="The momentum of SGD on the weights.")
    weight_decay: float = Field(3e-4, ge=0, le=1, description="The weight decay of the weights.")
    grad_clip: float = Field(
        5.0, gt=0, description="The largest norm of the weights' gradient. A larger gradient is scaled down to it."
    )
    w_zero_one: float = Field(1.0, ge=0, le=1000, description="The weight of the zero-one loss (eq. 3, 4).")
    recalibration_batches: int = Field(
        4,
        ge=0,
        le=100_000,
        description="Before each score, the statistics of batch normalisation are estimated anew from so many "
        "batches of the images that train the weights (precise BN). 0 scores by running statistics, "
        "which lag behind, so nothing may stop trials then.",
    )
    head_norm: bool = Field(
        False, description="Puts a normalisation and a ReLU before the pooling of the classifier, as in DOTS."
    )
    probe: int = Field(
        0,
        ge=0,
        le=100_000,
        description="At the end of the search, so many genotypes of a small space are scored with the weights of the "
        "supernet, on the images of the alphas, so that `ddarts regret` can compare these scores with a truth.",
    )
    record_alphas: bool = Field(True, description="Whether the record of each epoch holds all alphas.")
    device: str = Field(
        "auto", pattern=DEVICE, description="Where the search runs. auto takes the GPU if there is one."
    )
    implementation: Literal["auto", "readable", "fast"] = Field(
        "auto",
        description="How cells are computed: by the fast form or by the readable one, with the same result. auto "
        "takes fast.",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto", description="How images lie in memory. auto takes channels_last."
    )
    amp: Literal["none", "tf32", "bf16", "fp16"] = Field("none", description=AMP)
    compile: Literal["none", "default", "reduce-overhead"] = Field(
        "none",
        description="Joins the operations of edges by torch.compile, in one of its modes. This takes minutes at "
        "the start. reduce-overhead replays them as CUDA graphs.",
    )
    checkpoint_cells: bool = Field(
        False, description="Keeps only the inputs of cells and computes cells twice, which needs less memory."
    )

    @field_validator("space")
    @classmethod
    def _known_space(cls, value: str) -> str:
        SPACES.known(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, data: Any) -> Any:
        """Accept the earlier name of a setting; its value overrides what a preset says under the name of today."""
        if isinstance(data, Mapping) and "relaxation" in data:
            data = {**data, "gates": data["relaxation"]}
            del data["relaxation"]
        return data

    @field_validator("network", "gates", "edge", "regularisers", "stages", "freezing")
    @classmethod
    def _known_parts(cls, value: Any, info: ValidationInfo) -> Any:
        from .. import methods

        tables: dict[str | None, Table[Any]] = {
            "network": methods.NETWORKS,
            "gates": methods.GATES,
            "edge": methods.EDGES,
            "regularisers": methods.REGULARISERS,
            "stages": methods.PLANS,
            "freezing": methods.FREEZINGS,
        }
        for name in [value] if isinstance(value, str) else value:
            tables[info.field_name].known(name)
        return value

    @model_validator(mode="after")
    def _possible(self) -> SearchConfig:
        from ..methods import check_options, parts_in_use
        from ..methods.parts import Ablation

        if ablations := [name for name in self.regularisers if name.startswith(Ablation.PREFIX)]:
            raise ValueError(f"regularisers {ablations[0]} is set by ablation.loss of the whole experiment")
        check_options(self, parts_in_use(self))
        named = self.regularisers.get("zero-one")
        if self.w_zero_one and named not in (None, RegulariserConfig(weight=self.w_zero_one)):
            raise ValueError(
                f"w_zero_one {self.w_zero_one:g} and regularisers.zero-one both weigh the zero-one loss: set "
                "w_zero_one to 0, also where the method sets it, or leave regularisers.zero-one out"
            )
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} must not exceed lr {self.lr:g}")
        if self.sharing == "identical" and self.start is None:
            raise ValueError("sharing identical needs `start`, the genotype whose identical cells share alphas")
        if self.share_weights and (self.sharing != "identical" or self.freezing != "none"):
            raise ValueError("share_weights needs sharing identical and freezing none")
        if self.stop is not None and (self.start is None or self.stages != "standard"):
            raise ValueError(
                "stop compares one network with `start` after each epoch: name a start, and keep stages standard"
            )
        positions = self.reduction_positions
        if list(positions) != sorted(set(positions)) or any(not 0 <= p < self.num_cells for p in positions):
            raise ValueError(
                f"reductions {list(positions)} must be positions from 0 to {self.num_cells - 1}, in ascending order, "
                "each once"
            )
        if self.reductions is None and self.num_cells < 3:
            raise ValueError(
                f"num_cells {self.num_cells} is too few for two reduction cells at n//3 and 2n//3: "
                "use 3 or more, or name the positions in search.reductions"
            )
        if self.sharing == "normal_reduce" and not 0 < len(positions) < self.num_cells:
            raise ValueError(
                f"sharing normal_reduce needs cells of both kinds: of {self.num_cells}, {len(positions)} are reduction "
                "cells (see reductions)"
            )
        return self

    @property
    def independent_gates(self) -> bool:
        """Whether each gate of an edge is decided by itself (sigmoid) and not against the others (softmax)."""
        from ..methods import GATES

        return GATES[self.gates].independent

    @property
    def reduction_positions(self) -> tuple[int, ...]:
        """The positions of the reduction cells in the supernet, from 0."""
        return default_reductions(self.num_cells) if self.reductions is None else self.reductions


class AlphaConfig(Strict):
    """The architecture parameters. Each group of alphas has one Adam and one schedule."""

    lr: float = Field(3e-3, gt=0, le=10, description="The learning rate of Adam on the alphas.")
    lr_min: float = Field(1e-3, ge=0, le=10, description="The learning rate at the end of the cosine.")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine",
        description="How the learning rate changes over the epochs: it falls as a cosine to lr_min, or stays constant.",
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="How fast Adam forgets: the decay of its first and of its second moment."
    )
    weight_decay: float = Field(1.1e-4, ge=0, le=1, description="The weight decay of the alphas.")
    init: Literal["zeros", "normal"] = Field(
        "zeros", description="What alphas are at the start: zeros, or normal, which draws them from 1e-3 * N(0, 1)."
    )
    grad_clip: float | None = Field(
        None, gt=0, description="The largest norm of the gradient of all alphas. null sets no limit."
    )
    start_margin: float = Field(
        2.0,
        gt=0,
        le=20,
        description="With `search.start`: the alphas begin at + this for operations of the start, and at - this "
        "for the others.",
    )
    grad_mode: Literal["clean", "published"] = Field(
        "clean",
        description="clean gives each alpha one gradient of its loss. published accumulates gradients as the "
        "published code does.",
    )

    @model_validator(mode="after")
    def _possible(self) -> AlphaConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} must not exceed lr {self.lr:g}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must both be 0 or more, and less than 1")
        return self


class AblationConfig(RegulariserConfig):
    """The ablation loss (eq. 6, 7), and what removing a cell means. See docs/ablation.md."""

    loss: str = Field(
        "centered",
        description="What becomes of the marginal contributions of cells. none does not measure them. See "
        "docs/ablation.md.",
    )
    options: dict[str, Any] = Field({}, description="Settings of the ablation loss, if it has any.")
    removal: Removal = Field(
        "identity", description="What takes the place of a cell that is removed. See docs/ablation.md."
    )
    weight: float = Field(0.5, ge=0, le=1000, description="The weight of the ablation loss, w_AB (eq. 8).")
    eps: float = Field(0.05, gt=0, le=10, description="The smallest denominator: |mean M| is held above it.")
    every: int = Field(1, ge=1, description="Contributions are computed at every so many steps of the alphas.")
    sample_cells: int | None = Field(
        None,
        ge=2,
        description="At each step, only so many cells are removed, chosen at random. null removes each cell.",
    )
    num_draws: int = Field(
        1, ge=1, le=100, description="For removal random: over how many draws of the gates it takes the mean."
    )
    shapley_permutations: int = Field(
        0,
        ge=0,
        le=100_000,
        description="From how many orders of the cells Shapley values are estimated at the end of the search. 0 "
        "estimates none.",
    )

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        from ..methods import ablation_losses

        if value not in (choices := ("none", *ablation_losses())):
            raise unknown_name("ablation loss", value, choices)
        return value

    @model_validator(mode="after")
    def _possible(self) -> AblationConfig:
        from ..methods import ablation_losses, check_options

        loss = ablation_losses().get(self.loss)
        check_options(self, [loss] if loss else [])
        if self.shapley_permutations == 1:
            raise ValueError("shapley_permutations must be 0, or 2 or more: a single order gives no standard error")
        if self.shapley_permutations and self.removal == "random":
            raise ValueError(
                "shapley_permutations needs removal identity, zero or uniform: random gives other values at every call"
            )
        return self


class DiscretiseConfig(Strict):
    """How alphas become a genotype (section 5.1)."""

    rule: str = Field(
        "sparse", description="Which operations of an edge are kept, and how many. See `ddarts methods --parts`."
    )
    options: dict[str, Any] = Field({}, description="Settings of the rule, if it has any.")
    threshold: float = Field(0.85, ge=0, lt=1, description="The smallest sigma(alpha) of an operation that is kept.")
    edges_per_node: int | None = Field(
        None,
        ge=1,
        description="How many edges each node keeps at most. The published sparse networks have 2. null sets no limit.",
    )
    max_skips: int | None = Field(
        None, ge=0, description="How many skip connections a normal cell keeps at most (P-DARTS). null sets no limit."
    )
    on_empty_node: Literal["best", "drop", "error"] = Field(
        "best",
        description="What to do with a node that keeps no operation: keep its best one, drop the node, or end "
        "with an error.",
    )
    on_dead_cell: Literal["connect", "warn", "error"] = Field(
        "warn",
        description="What to do if no cell reads the output of a cell: connect it to the next cell, warn, or end "
        "with an error.",
    )

    @model_validator(mode="after")
    def _possible(self) -> DiscretiseConfig:
        from ..methods import RULES, check_options

        check_options(self, [RULES.known(self.rule)])
        return self
