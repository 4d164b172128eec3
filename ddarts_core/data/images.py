"""Sets of images and their batches, which are shuffled, augmented and normalised as a whole on the device.

`ImageSet` keeps all images in one tensor. `streaming.StreamedSet` reads the images from their files, for sets that do
not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..datasets.facts import DataInfo
from ..ground.errors import UserError
from .augment import Augment, Draws

__all__ = ["WHOLE", "DataInfo", "ImageSet", "Images", "Share", "Unfit", "check_read", "epoch_plan", "normalised"]


class Unfit(UserError):
    """A reader of a data set gives something that no network can be trained on."""


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process computes, when `count` processes compute each batch together.

    Attributes:
        rank: the number of this process, from 0.
        count: how many processes there are.

    Example:
        >>> Share(1, 2).of(6)
        slice(3, 6, None)
    """

    rank: int = 0
    count: int = 1

    def of(self, number: int) -> slice:
        """Return the positions of this process's images in a batch of `number` images."""
        return slice(self.rank * number // self.count, (self.rank + 1) * number // self.count)


WHOLE = Share()


class Images(Protocol):
    """A set of labelled images, wherever they are kept."""

    @property
    def labels(self) -> Tensor:
        """The class of each image, int64 [number]."""

    @property
    def pictures(self) -> Tensor | None:
        """The number of the picture that each image shows, int64 [number]: equal for copies. None: no copy is known."""

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor | Sequence[int]) -> Images:
        """Return the images at these positions, in this order."""

    def joined(self, other: Images) -> Images:
        """Return these images, followed by the images of another set of the same kind."""

    def batches(
        self,
        batch_size: int,
        *,
        info: DataInfo,
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
        augment: Augment | None = None,
        drop_last: bool = False,
        share: Share = WHOLE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass once through the set, and yield batches of normalised float32 images with int64 labels on the device.

        Args:
            batch_size: how many images a batch has. The last batch may be smaller.
            info: the facts of the data set, with the mean and standard deviation to normalise by.
            generator: draws the order of the images, then the augmentation of each batch. None keeps the order, as in
                an evaluation.
            device: the device on which the batches are wanted.
            augment: the random changes of the images, which need a generator. None leaves the images as they are.
            drop_last: whether the last batch is left out if it is smaller than the others.
            share: the part of each batch that is wanted here. The order and the augmentation are drawn for the whole
                batch.
        """


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory with their labels.

    Attributes:
        images: uint8, or float of 0..1, [number, channels, height, width].
        labels: int64 [number].
        pictures: see `Images.pictures`.

    Example:
        >>> images = ImageSet(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> info = DataInfo("zeros", 5, 1, 8, (0.5,), (0.5,))
        >>> [len(y) for _, y in images.batches(2, info=info)]
        [2, 2, 1]
    """

    images: Tensor
    labels: Tensor
    pictures: Tensor | None = None
    _copies: dict[torch.device, ImageSet] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"images {tuple(self.images.shape)} and labels {tuple(self.labels.shape)} do not match")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int]) -> ImageSet:
        """Return the images at these positions, in this order."""
        where = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return ImageSet(self.images[where], self.labels[where], some_of(self.pictures, where))

    def joined(self, other: Images) -> ImageSet:
        """Return these images, followed by the images of another set in memory."""
        assert isinstance(other, ImageSet)
        pictures = both_of(self.pictures, other.pictures)
        return ImageSet(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), pictures)

    def to(self, device: str | torch.device) -> ImageSet:
        """Return this set on a device. The copy is kept, so that a set is copied once and not in every epoch."""
        target = torch.empty(0, device=device).device
        if target == self.images.device:
            return self
        if target not in self._copies:
            self._copies[target] = ImageSet(self.images.to(target), self.labels.to(target))
        return self._copies[target]

    def batches(
        self,
        batch_size: int,
        *,
        info: DataInfo,
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
        augment: Augment | None = None,
        drop_last: bool = False,
        share: Share = WHOLE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Images.batches`. The whole set is copied to the device once."""
        here = self.to(device)
        order, sizes = epoch_plan(len(here), batch_size, generator, augment, drop_last)
        if order is not None:
            order = order.to(here.images.device)
        start = 0
        for size in sizes:
            part = share.of(size)
            mine = slice(start + part.start, start + part.stop)
            chosen = mine if order is None else order[mine]
            draws = None if generator is None else Draws(generator, size, part, here.images.device)
            images = here.images[chosen]
            if augment is not None and draws is not None:
                images = augment.before_normalisation(images, draws)
            yield normalised(images, info, augment, draws), here.labels[chosen]
            start += size


def check_read(found: Any, info: DataInfo) -> None:
    """Check what a reader of a data set gives: two tensors, or a data set with `targets`.

    Raises:
        Unfit: it is neither, or its shapes, types or values are others than the facts say. The message is a clause.
    """
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(one, Tensor) for one in found)):
        if not hasattr(found, "targets"):
            raise Unfit("it gives neither two tensors, images and labels, nor a data set with `targets`")
        labels = torch.as_tensor(found.targets)
    else:
        images, labels = found
        wanted = f"images uint8, or float of 0..1, of [number, {info.channels}, height, width]"
        if images.ndim != 4 or images.shape[1] != info.channels:
            raise Unfit(f"its images are {list(images.shape)}, and wanted are {wanted}")
        if images.shape[:1] != labels.shape:
            raise Unfit(f"its images are {list(images.shape)} and its labels {list(labels.shape)}: each has one label")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise Unfit(f"its images are {_name(images)}, and wanted are {wanted}")
        if images.is_floating_point() and len(images) and not (images.min() >= 0 and images.max() <= 1):
            raise Unfit(f"its images are {_name(images)} of {_range(images)}, and wanted are {wanted}")
    if labels.dtype != torch.int64:
        raise Unfit(f"its labels are {_name(labels)}, and wanted are int64")
    if not len(labels):
        raise Unfit("it gives no images")
    if not (labels.min() >= 0 and labels.max() < info.num_classes):
        raise Unfit(f"its labels are {_range(labels)}, and wanted are 0..{info.num_classes - 1}")


def _name(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _range(values: Tensor) -> str:
    return f"{values.min().item():.6g}..{values.max().item():.6g}"


def some_of(pictures: Tensor | None, where: Tensor) -> Tensor | None:
    """The numbers of the pictures at some positions; see `Images.pictures`."""
    return None if pictures is None else pictures[where.to(pictures.device)]


def both_of(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The numbers of the pictures of two sets with copies that are known, or of none; see `Images.pictures`."""
    return None if first is None or second is None else torch.cat([first, second])


def epoch_plan(
    number: int, batch_size: int, generator: torch.Generator | None, augment: Augment | None, drop_last: bool
) -> tuple[Tensor | None, list[int]]:
    """Return the order of the images in one pass (None: as they are) and the sizes of its batches.

    Raises:
        ValueError: there is augmentation but no generator.
    """
    if augment is not None and generator is None:
        raise ValueError("augmentation needs a generator")
    order = None if generator is None else torch.randperm(number, generator=generator, device=generator.device)
    whole, rest = divmod(number, batch_size)
    return order, [batch_size] * whole + ([rest] if rest and not drop_last else [])


def normalised(images: Tensor, info: DataInfo, augment: Augment | None, draws: Draws | None) -> Tensor:
    """Return the images as float32, with mean 0 and standard deviation 1, and then augmented after normalisation.

    Args:
        images: uint8, or float of 0..1, [batch, channels, height, width].
        info: the facts of the data set, with the statistics to normalise by.
        augment: the random changes, of which cutout follows the normalisation. None changes nothing.
        draws: the random integers for these images. None changes nothing.
    """
    scale, shift = _affine(images, info)
    result = images.to(torch.float32) * scale + shift
    return result if augment is None or draws is None else augment.after_normalisation(result, draws)


def _affine(images: Tensor, info: DataInfo) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift, each [channels, 1, 1], that give pixels mean 0 and standard deviation 1."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (info.mean, info.std))
    full = 1.0 if images.is_floating_point() else 255.0
    return (1 / (full * std)).to(images.device, torch.float32), (-mean / std).to(images.device, torch.float32)
