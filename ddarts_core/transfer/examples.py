"""Images with their objects, in the form that every data set here gives them, whatever its files look like."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from ..ground.errors import UserError

Read = TypeVar("Read")


@dataclass(frozen=True)
class Example:
    """One image and its objects.

    Attributes:
        path: the file of the image.
        image: the pixels, uint8 [3, height, width].
        boxes: the box of each object, float32 [objects, 4], as x1, y1, x2, y2 in pixels. The right and lower ends are
            not part of the box.
        labels: the class of each object, int64 [objects], from 0, in the order of the classes.
        areas: how many pixels each object itself has, float32 [objects]. Scores tell small from large objects by it.
        crowds: whether an object is a group whose members are not told apart, bool [objects]. A group trains nothing,
            and an answer within it is neither right nor wrong.
        masks: the mask of each object, uint8 [objects, height, width] of 0 and 1; None if the task has no masks.
    """

    path: Path
    image: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowds: Tensor
    masks: Tensor | None = None

    def of_training(self) -> Example:
        """Return the example without crowds, and without boxes of no width or height, which torchvision refuses."""
        kept = ~self.crowds & (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        masks = None if self.masks is None else self.masks[kept]
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            areas=self.areas[kept],
            crowds=self.crowds[kept],
            masks=masks,
        )

    def mirrored(self) -> Example:
        """Return the example with left and right exchanged."""
        width = self.image.shape[2]
        boxes = self.boxes.clone()
        boxes[:, [0, 2]] = width - self.boxes[:, [2, 0]]
        return replace(
            self,
            image=self.image.flip(-1),
            boxes=boxes,
            masks=None if self.masks is None else self.masks.flip(-1),
        )


@dataclass(frozen=True)
class Look:
    """What is known about an image after a look at it, before anything is trained.

    Attributes:
        width: the width of the image in pixels.
        height: the height of the image in pixels.
        objects: how many objects can train.
        crowds: how many groups there are, whose members are not told apart.
        flat: how many boxes have no width or no height.
        size: the size of the image's file in bytes.
        hashed: a hash of the objects: of everything about them that trains or scores.
    """

    width: int
    height: int
    objects: int
    crowds: int
    flat: int
    size: int
    hashed: str


class ImageSet(Dataset[Example], ABC):
    """One split of a data set.

    Attributes:
        name: the name of the split.
        classes: the names of the classes in the order of the labels.
        paths: the files of the images, in a fixed order.
        source: the file or the folder of the annotations, for messages.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    source: Path

    def __len__(self) -> int:
        """Return how many images the split has."""
        return len(self.paths)

    @abstractmethod
    def look(self, index: int) -> Look:
        """Check an image and its objects, and decode no more than this takes.

        Raises:
            UserError: the image or its objects are wrong. The message is one sentence that names the file.
        """

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Read an image and its objects."""


def hash_of(objects: bytes) -> str:
    """Return 16 hex digits of the SHA-256 of objects, for `Look.hashed`."""
    return hashlib.sha256(objects).hexdigest()[:16]


def size_of(path: Path) -> tuple[int, int]:
    """Return the width and the height of an image in pixels, from the head of its file.

    Raises:
        UserError: the file is missing or no image.
    """
    return opened(path, lambda image: image.size)


def read_image(path: Path) -> Tensor:
    """Read an image as uint8 [3, height, width].

    Raises:
        UserError: the file is missing or no image.
    """
    image: Tensor = opened(path, lambda image: pil_to_tensor(image.convert("RGB")))
    return image


def opened(path: Path, read: Callable[[Image.Image], Read]) -> Read:
    """Open an image and return what `read` makes of it.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return read(image)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: its annotations are there, the image is not") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
