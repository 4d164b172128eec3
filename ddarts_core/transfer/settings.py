"""Settings of a training on another task, and the recipes that they come from. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, model_validator

from ..ground.errors import UserError, unknown_name
from ..ground.nested import merge, parse_override, set_path
from ..ground.validation import DEVICE, Strict, validate
from .taps import FormChoice

Task = Literal["coco-detection", "cityscapes-instances"]

TASKS: tuple[Task, ...] = ("coco-detection", "cityscapes-instances")

#: Recipe of each task unless another is named.
DEFAULT_RECIPE: Mapping[str, str] = MappingProxyType(
    {"coco-detection": "retinanet-1x", "cityscapes-instances": "mask-rcnn-cityscapes"}
)

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))
    }
)


class TransferData(Strict):
    """Where images and annotations lie; see docs/transfer.md for both layouts."""

    root: str = Field("data", description="folder of the data set")
    train: str = Field("", description="split that trains; empty: train2017 (COCO) or train (Cityscapes)")
    held_out: str = Field("", description="split that scores and never trains; empty: val2017 or val")
    num_workers: int = Field(0, ge=0, le=64, description="processes that read images")


class TransferNetwork(Strict):
    """The backbone and what stands on it."""

    channels: int = Field(16, ge=2, le=1024, description="width C of the first cells; that of the weights if given")
    num_cells: int | None = Field(None, ge=1, le=200, description="derive so many cells; null keeps")
    reductions: Literal["thirds", "genotype"] | tuple[int, ...] | None = Field(
        None, description="n//3 and 2n//3, as the genotype says, or positions; null: thirds if derived deeper"
    )
    derive_order: Literal["paper", "published"] = Field("paper", description="order of Algorithm 1")
    on_dead_cell: Literal["warn", "connect", "error"] = Field("warn", description="cells that nothing reads")
    form: FormChoice = Field("auto", description="stem; auto puts the last cell at stride 32")
    pyramid: int = Field(256, ge=8, le=2048, description="channels of the feature pyramid, RetinaNet's heads, masks")
    p6: Literal["p5", "c5"] = Field("p5", description="what RetinaNet's level P6 is made from")
    head_init: Literal["published", "he"] = Field(
        "published", description="weights that RetinaNet's heads begin with; he: for narrow heads and short trainings"
    )
    head_width: int = Field(1024, ge=8, le=8192, description="of Mask R-CNN's box head")
    anchor_scale: float | None = Field(
        None, gt=0, le=64, description="side of the smallest anchor in strides; null: 4 (RetinaNet), 8 (Mask R-CNN)"
    )
    frozen_stages: int = Field(0, ge=0, le=4, description="1: nothing up to stride 4 is trained, 2: to stride 8, ...")
    frozen_statistics: bool = Field(False, description="batch normalisation of the backbone keeps its statistics")


class TransferTraining(Strict):
    """SGD with a warm-up in steps and a learning rate that falls at given epochs."""

    epochs: int = Field(12, ge=1, le=10_000, description="of the training")
    repeat: int = Field(1, ge=1, le=1000, description="how often an epoch goes through the images")
    batch_size: int = Field(16, ge=1, le=4096, description="images of a step")
    lr: float = Field(0.01, gt=0, le=10, description="SGD on a batch of `lr_batch_size` images")
    lr_batch_size: int = Field(16, ge=1, le=4096, description="batch that lr is meant for; others scale it")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="of the weights")
    grad_clip: float | None = Field(None, gt=0, description="largest gradient norm; null is none")
    lr_epochs: tuple[int, ...] = Field((8, 11), description="epochs after which the learning rate falls")
    lr_decay: float = Field(0.1, gt=0, le=1, description="by which factor")
    warmup_steps: int = Field(500, ge=0, description="in which the learning rate grows linearly")
    warmup_factor: float = Field(0.001, gt=0, le=1, description="of the learning rate in the first step")
    flip: bool = Field(True, description="mirror half of the images")
    shortest_side: tuple[int, int] = Field((800, 800), description="images are scaled so: least and most pixels")
    longest_side: int = Field(1333, ge=32, le=16_384, description="most pixels of the longer side")
    smallest_image: int = Field(32, ge=1, description="images with a shorter side do not train")
    drop_empty: bool = Field(True, description="images without an object do not train")
    box_loss: Literal["l1", "smooth_l1"] = Field("l1", description="of RetinaNet's boxes")
    boxes_per_image: int = Field(512, ge=1, le=4096, description="proposals that train Mask R-CNN's heads")
    amp: Literal["none", "tf32", "bf16"] = Field("none", description="none is float32; bf16 also on a CPU")
    evaluate_every: int = Field(1, ge=1, description="epochs between scores on held-out images; the last has one")
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints")
    device: str = Field("auto", pattern=DEVICE, description="auto is the GPU if there is one")

    @property
    def sides(self) -> tuple[int, ...]:
        """Every length in pixels that the shorter side of an image may get in training. Scores use the last one."""
        low, high = self.shortest_side
        return tuple(range(low, high + 1))

    @property
    def scaled_lr(self) -> float:
        """The learning rate for batches of `batch_size` images, by the linear rule of Goyal et al. 2017."""
        return self.lr * self.batch_size / self.lr_batch_size

    @model_validator(mode="after")
    def _possible(self) -> TransferTraining:
        low, high = self.shortest_side
        if not 32 <= low <= high <= self.longest_side:
            raise ValueError(
                f"shortest_side {[low, high]} must be two ascending numbers from 32 to longest_side {self.longest_side}"
            )
        if list(self.lr_epochs) != sorted(set(self.lr_epochs)) or any(epoch < 1 for epoch in self.lr_epochs):
            raise ValueError(f"lr_epochs {list(self.lr_epochs)} must be epochs from 1 on in ascending order, each once")
        return self


class TransferDetections(Strict):
    """What of the network's answers is kept."""

    score: float = Field(0.05, ge=0, lt=1, description="least score")
    overlap: float = Field(0.5, gt=0, le=1, description="boxes of a class that overlap more are one")
    number: int = Field(100, ge=1, le=1000, description="most of an image; the score counts 100")


class TransferConfig(Strict):
    """One training on another task."""

    seed: int = Field(0, ge=0, lt=2**31, description="owns everything random")
    task: Task = Field("coco-detection", description="what is trained")
    recipe: str = Field("retinanet-1x", description="preset of all settings below")
    weights: str | None = Field(None, description="begin of the SHA-256 of the trained weights that --weights names")
    data: TransferData = TransferData()
    network: TransferNetwork = TransferNetwork()
    training: TransferTraining = TransferTraining()
    detections: TransferDetections = TransferDetections()


Config = TypeVar("Config", bound=TransferConfig)

#: Settings that determine where a run is and what it takes, not what it finds.
PLACES = ("data.root", "data.num_workers", "training.device", "training.checkpoint_every")


def settings_hash(config: TransferConfig) -> str:
    """Return 12 hex digits of the SHA-256 of everything that determines the results, except for rounding."""
    data = config.model_dump(mode="json")
    for path in PLACES:
        group, name = path.split(".")
        del data[group][name]
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def resolve(
    data: Mapping[str, Any],
    overrides: Iterable[str] = (),
    where: str = "transfer",
    model: type[Config] = TransferConfig,  # type: ignore[assignment]  # mypy: not for every Config
) -> Config:
    """Merge defaults, the recipe, settings and overrides, and validate the result as a whole.

    Args:
        data: the settings, in groups.
        overrides: texts `PATH=VALUE` with dotted paths, as `--set` takes them. They override `data`.
        where: the name of the place that messages begin with.
        model: the class of the configuration.

    Raises:
        UserError: an unknown task, recipe or key, a recipe of another task, or a value out of bounds.
    """
    merged: dict[str, Any] = dict(data)
    for text in overrides:
        path, value = parse_override(text)
        merged = set_path(merged, path, value)
    task = merged.get("task", "coco-detection")
    if task not in TASKS:
        raise UserError(f"{where}: task: {unknown_name('task', task, TASKS)}")
    recipe = merged.setdefault("recipe", DEFAULT_RECIPE[task])
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise UserError(f"{where}: recipe: {unknown_name('recipe', recipe, RECIPES)}")
    preset = RECIPES[recipe]
    if preset["task"] != task:
        fitting = ", ".join(name for name, one in RECIPES.items() if one["task"] == task)
        raise UserError(f"{where}: recipe {recipe} is one of {preset['task']}: for {task} choose one of {fitting}")
    config: Config = validate(model, merge(preset, merged), where)
    return config
