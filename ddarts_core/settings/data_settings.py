"""Settings of `data`: the images, how they are split, and what changes them at random."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..ground.errors import unknown_name
from ..ground.validation import Strict

#: Names of the data sets; `data.DATASETS` has their readers.
DATA_SETS = ["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet", "folder", "arrays", "parquet"]

#: Side in pixels of the images of each published set.
IMAGE_SIZES = {"digits": 8, "fashion_mnist": 28, "cifar10": 32, "cifar100": 32, "imagenet": 224}


class SplitConfig(Strict):
    """Shares of the training images: for the weights, for the alphas, and held out for the score.

    The test split is separate and never part of a search.
    """

    weights: float = Field(0.4, gt=0, lt=1, description="The share of the training images that trains the weights.")
    alphas: float = Field(0.4, gt=0, lt=1, description="The share that trains the alphas.")
    held_out: float = Field(0.2, gt=0, lt=1, description="The share that trains nothing and gives the score.")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="Which images go where follows from this number, so that runs with other seeds share the split. "
        "null takes the seed of the experiment.",
    )

    @model_validator(mode="after")
    def _at_most_one(self) -> SplitConfig:
        total = self.weights + self.alphas + self.held_out
        if total > 1 + 1e-9:
            raise ValueError(f"weights + alphas + held_out must be at most 1, not {total:g}")
        return self


class AugmentConfig(Strict):
    """Random changes of training images, drawn anew for each image. 0 and false switch a change off."""

    crop_padding: int = Field(
        0,
        ge=0,
        le=64,
        description="Adds so many pixels around each image, then crops it back to its size at a random place.",
    )
    flip: bool = Field(False, description="Flips each image horizontally, or not, at random.")
    cutout: int = Field(0, ge=0, le=256, description="Cuts a square with this side, in pixels, out of each image.")
    autoaugment: bool = Field(
        False, description="Applies the AutoAugment policy for ImageNet on ImageNet, and the one for CIFAR elsewhere."
    )
    resized_crop: bool = Field(
        False, description="Takes a random part of 8 to 100 % of each image's area and resizes it, as for ImageNet."
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Changes brightness, contrast and saturation at random, at most this much, and the hue half "
        "as much.",
    )


class DataConfig(AugmentConfig):
    """The data set, how much of it, and how it is split and augmented for the search."""

    name: str = Field("digits", description="The data set.")
    root: str = Field("data", description="The folder of the data set's files, or the one file. See docs/data.md.")
    num_train: int | None = Field(
        None, gt=0, description="Use only so many training images, of each class in proportion. null uses all."
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=512,
        description="Resize images to this many pixels a side. null or auto keeps the size, or chooses one for "
        "your own images.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 turns your own images grey, 3 makes them coloured. null or auto looks at them and decides."
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="The mean of each channel, of pixels in 0..1, that images are normalised by. null takes that "
        "of the training images.",
    )
    std: tuple[float, ...] | None = Field(
        None,
        description="The deviation of each channel that images are normalised by. null takes that of the training"
        " images.",
    )
    in_memory: bool | None = Field(
        None,
        description="Whether your own images are kept decoded in memory, or read from their files again and "
        "again. null or auto keeps up to 2 GiB.",
    )
    on_broken: Literal["error", "skip"] = Field(
        "error",
        description="What happens if your own images cannot be decoded: error refuses them, skip leaves them out "
        "and counts them.",
    )
    split: SplitConfig = SplitConfig()
    num_workers: Annotated[int, Field(ge=0, le=128)] | Literal["auto"] = Field(
        "auto",
        description="How many processes read images that stay in their files. 0: the search reads them itself. "
        "auto: one less than the search, training or trial has cores, between 1 and 16.",
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
