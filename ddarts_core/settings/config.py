"""Typed configuration: every setting of a search, its defaults and bounds, YAML files and dotted overrides. Torch-free.

Precedence, lowest first: field defaults, what follows from `search.start`, the training recipe, the method preset
(`methods.METHODS`), the file, `--set`. The merged dictionary is validated as a whole: nothing enters a run unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..genotypes.spaces import SPACES, default_reductions
from ..ground.errors import UserError, unknown_name
from ..ground.nested import merge, parse_override, read_yaml, set_path
from ..ground.plugins import needed_by
from ..ground.table import Table
from ..ground.validation import DEVICE, NAME, Strict, validate

AblationLoss = Literal["none", "monitor", "centered", "relative", "paper", "rescale", "credit"]
Removal = Literal["identity", "zero", "uniform", "random"]
Hessian = Literal["finite", "exact"]

AMP = "lower precision of convolutions; none is float32 in full; tf32 and fp16 need a GPU"

#: Names of the data sets; `data.DATASETS` has their readers.
DATA_SETS = ["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet", "folder", "arrays", "parquet"]

#: Side in pixels of the images of each published set.
IMAGE_SIZES = {"digits": 8, "fashion_mnist": 28, "cifar10": 32, "cifar100": 32, "imagenet": 224}


class SplitConfig(Strict):
    """Shares of the training images: for the weights, for the alphas, and held out for the score.

    The test split is separate and never part of a search.
    """

    weights: float = Field(0.4, gt=0, lt=1, description="share that trains the weights")
    alphas: float = Field(0.4, gt=0, lt=1, description="share that trains the alphas")
    held_out: float = Field(0.2, gt=0, lt=1, description="share that trains nothing and gives the score")

    @model_validator(mode="after")
    def _at_most_one(self) -> SplitConfig:
        total = self.weights + self.alphas + self.held_out
        if total > 1 + 1e-9:
            raise ValueError(f"weights + alphas + held_out must be at most 1, not {total:g}")
        return self


class AugmentConfig(Strict):
    """Random changes of training images, drawn for each image; 0 and false are off."""

    crop_padding: int = Field(0, ge=0, le=64, description="random crop after this padding, in pixels")
    flip: bool = Field(False, description="random horizontal flip")
    cutout: int = Field(0, ge=0, le=256, description="side of the cut-out square, in pixels")
    autoaugment: bool = Field(False, description="AutoAugment's policy for CIFAR or, on ImageNet, for ImageNet")
    resized_crop: bool = Field(False, description="random part of 8 to 100 % of the area, resized (ImageNet)")
    color_jitter: float = Field(0.0, ge=0, le=1, description="brightness, contrast, saturation; half of it for the hue")


class DataConfig(AugmentConfig):
    """The data set, how much of it, and how it is split and augmented for the search."""

    name: str = Field("digits", description="data set")
    root: str = Field("data", description="folder of the data set's files, or the one file; see docs/data.md")
    num_train: int | None = Field(None, gt=0, description="use only this many training images (stratified)")
    image_size: int | None = Field(
        None, ge=8, le=512, description="resize to this many pixels; null or auto keeps or chooses the size"
    )
    channels: Literal[1, 3] | None = Field(
        None, description="grey or red, green, blue, of one's own images; null or auto looks at them"
    )
    mean: tuple[float, ...] | None = Field(
        None, description="of each channel in 0..1, to normalise by; null is that of the training images"
    )
    std: tuple[float, ...] | None = Field(
        None, description="deviation of each channel, to normalise by; null is that of the training images"
    )
    in_memory: bool | None = Field(
        None, description="keep one's own images decoded, or stream files; null or auto keeps up to 2 GiB"
    )
    on_broken: Literal["error", "skip"] = Field(
        "error", description="what becomes of one's own images that cannot be decoded; skip counts them"
    )
    split: SplitConfig = SplitConfig()
    num_workers: Annotated[int, Field(ge=0, le=128)] | Literal["auto"] = Field(
        "auto",
        description="processes that read images of a set kept in files; 0: none but the search's own; auto: the cores "
        "that the search, training or trial has, less one, and 1 to 16",
    )

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        if value not in DATA_SETS:
            raise unknown_name("data set", value, DATA_SETS)
        return value

    @field_validator("image_size", "channels", "in_memory", mode="before")
    @classmethod
    def _auto_is_null(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @model_validator(mode="after")
    def _statistics(self) -> DataConfig:
        for name, values in (("mean", self.mean or ()), ("std", self.std or ())):
            if any(not 0 <= value <= 1 for value in values) or (name == "std" and 0 in values):
                raise ValueError(f"{name} {list(values)} must be of pixels in 0..1{', and not 0' * (name == 'std')}")
        return self


class RegulariserConfig(Strict):
    """A term of the loss of the alphas."""

    weight: float = Field(1.0, ge=0, le=1000, description="factor of the term")
    schedule: Literal["constant", "rising", "falling"] = Field(
        "constant", description="of the weight over the epochs that train alphas: rising from 0, or falling to 0"
    )


class SearchConfig(Strict):
    """The supernet and the loop that trains its weights."""

    space: str = Field("S", description="operations that an edge chooses from")
    num_cells: int = Field(8, ge=1, le=64, description="cells of the supernet, n")
    channels: int = Field(16, ge=2, le=512, description="width C of the first cells; doubles at reductions")
    steps: int = Field(4, ge=1, le=8, description="intermediate nodes per cell")
    form: Literal["cifar", "imagenet"] = Field("cifar", description="stem: full size, or three halvings before cell 0")
    reductions: tuple[int, ...] | None = Field(None, description="positions; null is n//3 and 2n//3")
    sharing: Literal["own", "normal_reduce", "identical"] = Field(
        "own", description="alphas per cell, two groups as in DARTS, or one per distinct cell of `start` (DARTOpti)"
    )
    start: str | None = Field(
        None,
        description="genotype that the alphas start from: a file or zoo:NAME (DARTOpti); num_cells, reductions, steps, "
        "space and data.image_size follow from it",
    )
    gates: str = Field("sigmoid", description="from alphas to weights of operations; see `ddarts methods --parts`")
    edge: str = Field("mixed", description="what an edge computes from its operations and their gates")
    regularisers: dict[str, RegulariserConfig] = Field(
        {}, description="terms of the alphas' loss by name, each with weight and schedule; zero-one needs w_zero_one 0"
    )
    stages: str = Field("standard", description="what is trained when, and on which network")
    freezing: str = Field("none", description="which operations' weights stop being trained")
    options: dict[str, Any] = Field({}, description="settings of the parts in use, see `ddarts methods --parts`")
    order: Literal["first", "second", "single_level"] = Field(
        "first", description="of DARTS' gradient of the alphas; single_level takes it on the weights' own batch"
    )
    hessian: Hessian = Field(
        "finite",
        description="of order second, its product with a gradient: DARTS' difference of radius 0.01, coarse on small "
        "networks, or double backward through the readable form",
    )
    epochs: int = Field(50, ge=1, le=10_000, description="that train weights and alphas in turn")
    warmup_epochs: int = Field(0, ge=0, description="epochs that train only the weights, before `epochs`")
    batch_size: int = Field(128, ge=1, le=65_536, description="images of a step, of weights and of alphas alike")
    lr: float = Field(0.005, gt=0, le=10, description="SGD on the weights, cosine to lr_min")
    lr_min: float = Field(0.001, ge=0, le=10, description="learning rate that the cosine ends at")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD on the weights")
    weight_decay: float = Field(3e-4, ge=0, le=1, description="of the weights")
    grad_clip: float = Field(5.0, gt=0, description="largest gradient norm of the weights")
    w_zero_one: float = Field(1.0, ge=0, le=1000, description="weight of the zero-one loss (eq. 3, 4)")
    recalibration_batches: int = Field(
        4,
        ge=0,
        le=100_000,
        description="batches of the weights' images that batch normalisation's statistics are estimated from anew for "
        "each score (precise BN); 0 scores by running statistics, which lag: then nothing may stop trials",
    )
    head_norm: bool = Field(False, description="normalisation and ReLU before the classifier's pooling, as in DOTS")
    record_alphas: bool = Field(True, description="keep all alphas in the record of every epoch")
    device: str = Field("auto", pattern=DEVICE, description="auto is the GPU if there is one")
    implementation: Literal["auto", "readable", "fast"] = Field("auto", description="form of a cell; auto is fast")
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field("auto", description="auto is channels_last")
    amp: Literal["none", "tf32", "bf16", "fp16"] = Field("none", description=AMP)
    compile: Literal["none", "default", "reduce-overhead"] = Field(
        "none",
        description="fuse edges by torch.compile, in one of its modes: minutes at the start; reduce-overhead replays "
        "them as CUDA graphs",
    )
    checkpoint_cells: bool = Field(False, description="keep only cells' inputs, compute cells twice: less memory")

    @field_validator("space")
    @classmethod
    def _known_space(cls, value: str) -> str:
        SPACES.known(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, data: Any) -> Any:
        """A file that names a setting as it was called before means that setting, whatever a preset says of it."""
        if isinstance(data, Mapping) and "relaxation" in data:
            data = {**data, "gates": data["relaxation"]}
            del data["relaxation"]
        return data

    @field_validator("gates", "edge", "regularisers", "stages", "freezing")
    @classmethod
    def _known_parts(cls, value: Any, info: ValidationInfo) -> Any:
        from .. import methods

        tables: dict[str | None, Table[Any]] = {
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
        positions = self.reduction_positions
        if list(positions) != sorted(set(positions)) or any(not 0 <= p < self.num_cells for p in positions):
            raise ValueError(f"reductions {list(positions)} must ascend within 0..{self.num_cells - 1}, each once")
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
        """Whether gates of an edge are decided one by one (sigmoid) and not against each other (softmax)."""
        from ..methods import GATES

        return GATES[self.gates].independent

    @property
    def reduction_positions(self) -> tuple[int, ...]:
        """Positions of the reduction cells."""
        return default_reductions(self.num_cells) if self.reductions is None else self.reductions


class AlphaConfig(Strict):
    """The architecture parameters: one Adam and one schedule per group of alphas."""

    lr: float = Field(3e-3, gt=0, le=10, description="Adam on the alphas")
    lr_min: float = Field(1e-3, ge=0, le=10, description="learning rate that the cosine ends at")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="of the learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's decays of both moments")
    weight_decay: float = Field(1.1e-4, ge=0, le=1, description="of the alphas")
    init: Literal["zeros", "normal"] = Field("zeros", description="zeros, or 1e-3 * N(0, 1)")
    grad_clip: float | None = Field(None, gt=0, description="largest gradient norm of all alphas; null is none")
    start_margin: float = Field(
        2.0, gt=0, le=20, description="alphas of `search.start`: + for its operations, - for the others"
    )
    grad_mode: Literal["clean", "published"] = Field("clean", description="published: the accumulation of the code")

    @model_validator(mode="after")
    def _possible(self) -> AlphaConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} must not exceed lr {self.lr:g}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must lie in [0, 1)")
        return self


class AblationConfig(RegulariserConfig):
    """The term of the ablation loss (eq. 6, 7) and what removing a cell means; see docs/ablation.md."""

    loss: AblationLoss = Field("centered", description="what becomes of the marginal contributions; none: not measured")
    removal: Removal = Field("identity", description="what takes the place of a removed cell")
    weight: float = Field(0.5, ge=0, le=1000, description="w_AB (eq. 8)")
    eps: float = Field(0.05, gt=0, le=10, description="smallest denominator |mean M|")
    every: int = Field(1, ge=1, description="compute contributions at every so many alpha steps")
    sample_cells: int | None = Field(None, ge=2, description="ablate a random subset of so many cells; null is all")
    num_draws: int = Field(1, ge=1, le=100, description="draws that removal `random` averages over")
    shapley_permutations: int = Field(
        0, ge=0, le=100_000, description="orders of the cells that Shapley values are sampled from at the end; 0 is off"
    )

    @model_validator(mode="after")
    def _possible(self) -> AblationConfig:
        if self.shapley_permutations == 1:
            raise ValueError("shapley_permutations must be 0, or 2 or more: one order has no standard error")
        if self.shapley_permutations and self.removal == "random":
            raise ValueError("shapley_permutations needs removal identity, zero or uniform: random is no fixed game")
        return self


class DiscretiseConfig(Strict):
    """From alphas to a genotype (section 5.1)."""

    rule: str = Field(
        "sparse", description="which operations of an edge are kept, and how many; see `ddarts methods --parts`"
    )
    options: dict[str, Any] = Field({}, description="settings of the rule, if it has any")
    threshold: float = Field(0.85, ge=0, lt=1, description="smallest sigma(alpha) of a kept operation")
    edges_per_node: int | None = Field(None, ge=1, description="keep only so many edges per node; published sparse: 2")
    max_skips: int | None = Field(
        None, ge=0, description="skip connections that a normal cell may keep (P-DARTS); null is any number"
    )
    on_empty_node: Literal["best", "drop", "error"] = Field(
        "best", description="a node that keeps no operation: its best one, no node, or no genotype"
    )
    on_dead_cell: Literal["connect", "warn", "error"] = Field(
        "warn", description="a cell that no cell reads: its successor gets an edge from it, a warning, or no genotype"
    )

    @model_validator(mode="after")
    def _possible(self) -> DiscretiseConfig:
        from ..methods import RULES, check_options

        check_options(self, [RULES.known(self.rule)])
        return self


class RetrainConfig(AugmentConfig):
    """Training of a derived network from scratch (D-DARTS section 5.1)."""

    recipe: str = Field("quick", description="preset of the settings of this group")
    num_cells: int | None = Field(None, ge=1, le=200, description="derive so many cells by Algorithm 1; null keeps")
    reductions: Literal["thirds", "genotype"] | tuple[int, ...] | None = Field(
        None,
        description="n//3 and 2n//3, as the genotype says, or positions; null: thirds if derived deeper",
    )
    derive_order: Literal["paper", "published"] = Field("paper", description="order of Algorithm 1")
    on_dead_cell: Literal["warn", "connect", "error"] = Field(
        "warn", description="cells of the trained network that nothing reads: keep, connect by a skip, or refuse"
    )
    channels: int = Field(16, ge=2, le=1024, description="width C of the first cells; doubles at reductions")
    epochs: int = Field(20, ge=1, le=10_000, description="of the training, warm-up included")
    batch_size: int = Field(64, ge=1, le=65_536, description="images of a step, of all workers together")
    lr: float = Field(0.05, gt=0, le=10, description="SGD on the weights")
    lr_min: float = Field(0.0, ge=0, le=10, description="learning rate that cosine and linear end at")
    schedule: Literal["cosine", "step", "linear"] = Field("cosine", description="of the learning rate")
    step_decay: float = Field(0.97, gt=0, le=1, description="factor per epoch of schedule `step`")
    warmup_epochs: int = Field(0, ge=0, description="in which the learning rate grows linearly")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(3e-4, ge=0, le=1, description="of the weights")
    grad_clip: float = Field(5.0, gt=0, description="largest gradient norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that all classes divide")
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="of the images of each class in the loss; balanced: images / (classes * images of the class), "
        "and validation images choose an epoch by balanced accuracy",
    )
    auxiliary_weight: float = Field(0.0, ge=0, le=10, description="0 leaves the auxiliary head out")
    drop_path: float = Field(0.0, ge=0, lt=1, description="final probability; grows linearly over the epochs")
    drop_path_unit: Literal["operation", "node"] = Field("node", description="what is dropped for an image")
    form: Literal["cifar", "imagenet"] = Field("cifar", description="stem: full size, or three halvings before cell 0")
    amp: Literal["none", "tf32", "bf16", "fp16"] = Field("none", description=AMP)
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 is off")
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints; one is written on SIGTERM too")
    validation_fraction: float = Field(0.0, ge=0, lt=1, description="share of the training images that chooses epochs")
    device: str = Field("auto", pattern=DEVICE, description="auto is the GPU if there is one")

    @model_validator(mode="after")
    def _possible(self) -> RetrainConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} must not exceed lr {self.lr:g}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be fewer than epochs {self.epochs}")
        return self


class ExperimentConfig(Strict):
    """One search: the contents of an experiment file."""

    name: str = Field("search", pattern=NAME, description="of the folder that is written")
    storage: str = Field("runs", description="folder of that folder; of a sweep also a URI")
    seed: int = Field(0, ge=0, lt=2**31, description="owns everything random")
    method: str = Field("ddarts", description="preset that the file's own settings are laid over; see `ddarts methods`")
    data: DataConfig = DataConfig()
    search: SearchConfig = SearchConfig()
    alpha: AlphaConfig = AlphaConfig()
    ablation: AblationConfig = AblationConfig()
    discretise: DiscretiseConfig = DiscretiseConfig()
    retrain: RetrainConfig = RetrainConfig()

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        from ..methods import RULES, parts_in_use

        groups = 2 if self.search.sharing == "normal_reduce" else self.search.num_cells
        if self.ablation.sample_cells is not None and self.ablation.sample_cells > groups:
            raise ValueError(f"ablation.sample_cells {self.ablation.sample_cells} exceeds the {groups} alpha groups")
        if self.ablation.sample_cells is not None and self.ablation.loss in ("rescale", "credit"):
            raise ValueError(
                f"ablation.loss {self.ablation.loss} compares all cells of a step: use ablation.sample_cells null"
            )
        for part in (*parts_in_use(self.search), RULES[self.discretise.rule]):
            if refusal := part.refuse(self):
                raise ValueError(refusal)
        if self.alpha.grad_mode == "published" and (self.search.order != "first" or self.ablation.loss != "monitor"):
            raise ValueError("alpha.grad_mode published runs only with search.order first and ablation.loss monitor")
        if self.search.order == "second" and self.ablation.loss not in ("none", "monitor"):
            raise ValueError(f"search.order second cannot use ablation.loss {self.ablation.loss}: use none or monitor")
        depth, positions = self.retrain.num_cells, self.search.reduction_positions
        deeper = self.search.sharing == "own" and depth is not None and depth > self.search.num_cells
        if deeper and self.retrain.reductions is None and positions != default_reductions(self.search.num_cells):
            raise ValueError(
                f"retrain.num_cells {depth} is derived by Algorithm 1, whose reduction cells were searched at n//3 and "
                f"2n//3: leave search.reductions {list(positions)} out, or keep the {self.search.num_cells} cells"
            )
        return self


Config = TypeVar("Config", bound=ExperimentConfig)


# --- files and overrides --------------------------------------------------------------------------------------------


def resolve(
    data: Mapping[str, Any],
    overrides: Iterable[str] = (),
    model: type[Config] = ExperimentConfig,  # type: ignore[assignment]  # mypy: default of a type variable
    where: str = "configuration",
) -> Config:
    """Defaults, method preset, file and overrides merged and validated as one.

    Raises:
        UserError: an unknown key, method or recipe, or a value out of bounds.
    """
    from ..methods import METHODS
    from .recipes import RECIPES
    from .warm_start import with_start

    merged: dict[str, Any] = dict(data)
    for text in overrides:
        path, value = parse_override(text)
        merged = set_path(merged, path, value)
    method = merged.get("method", "ddarts")
    _check_name("method", "method", method, METHODS, where)
    retrain = merged.get("retrain")
    recipe = retrain.get("recipe", "quick") if isinstance(retrain, Mapping) else "quick"
    _check_name("recipe", "retrain.recipe", recipe, RECIPES, where)
    presets = merge({"retrain": RECIPES[recipe]}, METHODS[method].settings)
    try:
        settings = with_start(merge(presets, merged))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    config: Config = validate(model, settings, where)
    if config.search.sharing == "normal_reduce" and config.retrain.num_cells is None:
        # Two shared cells say nothing of the depth: unless told otherwise, derive the depth that was searched.
        config = validate(model, set_path(settings, "retrain.num_cells", config.search.num_cells), where)
    return config


def _check_name(kind: str, path: str, name: object, table: Iterable[str], where: str) -> None:
    if not isinstance(name, str) or name not in table:
        raise UserError(f"{where}: {path}: {unknown_name(kind, name, table)}")


def load_experiment(
    path: str | Path,
    overrides: Iterable[str] = (),
    model: type[Config] = ExperimentConfig,  # type: ignore[assignment]  # mypy: default of a type variable
) -> Config:
    """Read, merge and validate an experiment file.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    with needed_by(Path(path)):
        return resolve(read_yaml(path), overrides, model, where=str(path))
