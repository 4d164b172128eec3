"""Settings of `retrain`: the training of a derived network from scratch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..ground.validation import DEVICE
from .data_settings import AugmentConfig
from .search_settings import AMP


class RetrainConfig(AugmentConfig):
    """How a derived network is trained from scratch (D-DARTS section 5.1)."""

    recipe: str = Field("quick", description="A preset of the settings of this group.")
    num_cells: int | None = Field(
        None,
        ge=1,
        le=200,
        description="Derive a network of so many cells by Algorithm 1. null keeps those of the genotype.",
    )
    reductions: Literal["thirds", "genotype"] | tuple[int, ...] | None = Field(
        None,
        description="Where the reduction cells are: thirds (n//3 and 2n//3), genotype (as it says), or a list of "
        "positions. null is thirds if the network is derived deeper than the genotype.",
    )
    derive_order: Literal["paper", "published"] = Field(
        "paper", description="In which order Algorithm 1 takes the cells: as in the paper, or as in the published code."
    )
    on_dead_cell: Literal["warn", "connect", "error"] = Field(
        "warn",
        description="What to do if nothing reads a cell of the network: warn and keep it, connect it by a skip "
        "connection, or end with an error.",
    )
    channels: int = Field(
        16, ge=2, le=1024, description="How many channels the first cells have (C). Each reduction doubles the number."
    )
    epochs: int = Field(20, ge=1, le=10_000, description="How many epochs the training has, warm-up included.")
    batch_size: int = Field(64, ge=1, le=65_536, description="How many images one step takes, of all workers together.")
    lr: float = Field(0.05, gt=0, le=10, description="The learning rate of SGD on the weights.")
    lr_min: float = Field(
        0.0, ge=0, le=10, description="The learning rate at the end of the schedules cosine and linear."
    )
    schedule: Literal["cosine", "step", "linear"] = Field(
        "cosine", description="How the learning rate changes over the epochs."
    )
    step_decay: float = Field(
        0.97, gt=0, le=1, description="For schedule step: the learning rate is multiplied by this after each epoch."
    )
    warmup_epochs: int = Field(
        0, ge=0, description="In how many epochs the learning rate grows linearly, before the schedule begins."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="The momentum of SGD.")
    weight_decay: float = Field(3e-4, ge=0, le=1, description="The weight decay of the weights.")
    grad_clip: float = Field(
        5.0, gt=0, description="The largest norm of the gradient. A larger gradient is scaled down to it."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="The share of the target that is divided among all classes."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="How much the images of a class weigh in the loss. balanced weighs each by images / (classes "
        "* images of the class), and validation images then choose an epoch by balanced accuracy.",
    )
    auxiliary_weight: float = Field(
        0.0, ge=0, le=10, description="The weight of the auxiliary head's loss. 0 leaves the auxiliary head out."
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The probability at the last epoch that a path is dropped. It grows linearly over the epochs.",
    )
    drop_path_unit: Literal["operation", "node"] = Field(
        "node", description="What is dropped for an image: one operation, or a whole node."
    )
    form: Literal["cifar", "imagenet"] = Field(
        "cifar",
        description="The stem of the network: cifar keeps the full size, imagenet halves it three times before cell 0.",
    )
    amp: Literal["none", "tf32", "bf16", "fp16"] = Field("none", description=AMP)
    compile: Literal["none", "default", "reduce-overhead"] = Field(
        "none",
        description="Joins the operations of cells by torch.compile, in one of its modes. This takes minutes at the "
        "start. reduce-overhead replays them as CUDA graphs.",
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="The decay of the averaged weights. 0 averages none.")
    checkpoint_every: int = Field(
        1, ge=1, description="How many epochs pass from one checkpoint to the next. One is also written on SIGTERM."
    )
    validation_fraction: float = Field(
        0.0, ge=0, lt=1, description="The share of the training images that is kept back to choose the best epoch."
    )
    device: str = Field(
        "auto", pattern=DEVICE, description="Where the training runs. auto takes the GPU if there is one."
    )

    @model_validator(mode="after")
    def _possible(self) -> RetrainConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} must not exceed lr {self.lr:g}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be fewer than epochs {self.epochs}")
        return self
