"""Sizes of a derived network that follow from its form and its genotype; which sizes can be built. Torch-free."""

from __future__ import annotations

from typing import Literal

from ..ground.errors import UserError
from .genotype import Genotype

Form = Literal["cifar", "imagenet", "imagenet-published"]

#: Image size of each form.
IMAGE_SIZE: dict[str, int] = {"cifar": 32, "imagenet": 224, "imagenet-published": 224}

SMALLEST_IMAGE = 8

#: Strides of the stem's convolutions of each form; the last makes input 1 from input 0, where there are several.
STRIDES: dict[str, tuple[int, ...]] = {"cifar": (1,), "imagenet": (2, 2, 2), "imagenet-published": (2, 1, 2)}


def halved(size: int, stride: int = 2) -> int:
    """Height and width, in pixels, after an operation with a stride."""
    return -(-size // stride)


def stem_widths(form: str, channels: int) -> int:
    """Number of channels of both inputs of the first cell."""
    return 3 * channels if form == "cifar" else channels


def check_sizes(form: str, channels: int, num_classes: int, in_channels: int, image_size: int | None) -> int:
    """The height and width of the images in pixels: those of the form, unless a size is given.

    Raises:
        UserError: no network can be built with one of the sizes, or the form is unknown.
    """
    if form not in IMAGE_SIZE:
        raise UserError(f"unknown form {form!r} of a network: choose one of {', '.join(IMAGE_SIZE)}")
    size = IMAGE_SIZE[form] if image_size is None else image_size
    smallest = 1 if form == "cifar" else 2
    if channels < smallest:
        raise UserError(f"channels {channels} of a network in form {form} must be {smallest} or more")
    check_images(num_classes, in_channels, size)
    return size


def check_images(num_classes: int, in_channels: int, image_size: int) -> None:
    """Refuse images and classes that no network can be built for.

    Raises:
        UserError: one of the numbers is too small.
    """
    for name, value in {"num_classes": num_classes, "in_channels": in_channels}.items():
        if value < 1:
            raise UserError(f"{name} {value} of a network must be 1 or more")
    if image_size < SMALLEST_IMAGE:
        raise UserError(f"image_size {image_size} is too small for a network: it must be {SMALLEST_IMAGE} or more")


def auxiliary_position(genotype: Genotype) -> int:
    """Position of the cell that the auxiliary head reads: the last reduction cell that is not the last cell.

    If there is no such reduction cell, it is cell 2n//3, or the last cell but one if that comes earlier.

    Raises:
        UserError: there is only one cell.
    """
    count = genotype.num_cells
    if count < 2:
        raise UserError("an auxiliary head needs a network of 2 cells or more: set auxiliary_weight to 0")
    inner = [position for position in genotype.reductions if position < count - 1]
    return inner[-1] if inner else min(2 * count // 3, count - 2)
