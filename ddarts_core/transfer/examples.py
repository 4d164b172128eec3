"""Images with their objects, as every data set here gives them, whatever its files look like."""

from __future__ import annotations

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
        path: of the image.
        image: uint8 [3, height, width].
        boxes: float32 [objects, 4], x1, y1, x2, y2 in pixels; the right and lower ends are not part of the box.
        labels: int64 [objects], from 0, in the order of the classes.
        areas: float32 [objects], pixels of the object itself, by which scores tell small from large.
        crowds: bool [objects], a group whose members are not told apart: it trains nothing, and an answer within it is
            neither right nor wrong.
        masks: uint8 [objects, height, width] of 0 and 1; None where the task has none.
    """

    path: Path
    image: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowds: Tensor
    masks: Tensor | None = None

    def of_training(self) -> Example:
        """The example without crowds and without boxes of no width or height, which torchvision refuses."""
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
        """Left and right exchanged."""
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
    """What a look at an image says before anything is trained.

    Attributes:
        width: of the image, in pixels.
        height: of the image, in pixels.
        objects: that train.
        crowds: groups.
        flat: boxes without width or height.
    """

    width: int
    height: int
    objects: int
    crowds: int
    flat: int


class ImageSet(Dataset[Example], ABC):
    """One split of a data set.

    Attributes:
        name: of the split.
        classes: names, in label order.
        paths: of the images, in a fixed order.
        source: file or folder of the annotations, for messages.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    source: Path

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    @abstractmethod
    def look(self, index: int) -> Look:
        """Check an image and its objects without decoding more than it takes.

        Raises:
            UserError: one sentence with the file.
        """

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Read an image and its objects."""


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image, from the head of its file.

    Raises:
        UserError: the file is missing or no image.
    """
    return opened(path, lambda image: image.size)


def read_image(path: Path) -> Tensor:
    """An image as uint8 [3, height, width].

    Raises:
        UserError: the file is missing or no image.
    """
    image: Tensor = opened(path, lambda image: pil_to_tensor(image.convert("RGB")))
    return image


def opened(path: Path, read: Callable[[Image.Image], Read]) -> Read:
    """What `read` makes of the opened image.

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
