"""Sets of images and their batches, shuffled, augmented and normalised as a whole on the device.

`ImageSet` keeps all images in one tensor; `streaming.StreamedSet`, for sets that do not fit, reads files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..datasets.facts import DataInfo
from .augment import Augment, Draws

__all__ = ["WHOLE", "DataInfo", "ImageSet", "Images", "Share", "epoch_plan", "normalised"]


@dataclass(frozen=True)
class Share:
    """Which part of every batch is computed here, when `count` processes compute each batch together.

    Example:
        >>> Share(1, 2).of(6)
        slice(3, 6, None)
    """

    rank: int = 0
    count: int = 1

    def of(self, number: int) -> slice:
        """Positions in a batch of `number` images."""
        return slice(self.rank * number // self.count, (self.rank + 1) * number // self.count)


WHOLE = Share()


class Images(Protocol):
    """A set of labelled images, wherever they are kept."""

    @property
    def labels(self) -> Tensor:
        """Classes, int64 [number]."""

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor | Sequence[int]) -> Images:
        """The images at these positions, in this order."""

    def joined(self, other: Images) -> Images:
        """These images, then those of another set of the same kind."""

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
        """One pass: normalised float32 images and int64 labels on the device.

        Args:
            batch_size: images per batch; the last may be smaller.
            info: the statistics to normalise by.
            generator: draws the order, then the augmentation of each batch; None keeps the order (evaluation).
            device: where the batches are wanted.
            augment: needs a generator; None leaves the images as they are.
            drop_last: leave out the last batch if it is smaller than the others.
            share: the part of each batch that is wanted here; order and augmentation are those of the whole batch.
        """


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 (or float in 0..1) [number, channels, height, width] with labels int64 [number].

    Example:
        >>> images = ImageSet(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> info = DataInfo("zeros", 5, 1, 8, (0.5,), (0.5,))
        >>> [len(y) for _, y in images.batches(2, info=info)]
        [2, 2, 1]
    """

    images: Tensor
    labels: Tensor
    _copies: dict[torch.device, ImageSet] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"images {tuple(self.images.shape)} and labels {tuple(self.labels.shape)} do not match")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int]) -> ImageSet:
        """The images at these positions, in this order."""
        where = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return ImageSet(self.images[where], self.labels[where])

    def joined(self, other: Images) -> ImageSet:
        """These images, then those of another set in memory."""
        assert isinstance(other, ImageSet)
        return ImageSet(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))

    def to(self, device: str | torch.device) -> ImageSet:
        """This set on a device; the copy is kept, so that a set is moved once and not in every epoch."""
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
        """See `Images.batches`; the set is moved to the device once."""
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


def epoch_plan(
    number: int, batch_size: int, generator: torch.Generator | None, augment: Augment | None, drop_last: bool
) -> tuple[Tensor | None, list[int]]:
    """Order of the images (None: as they are) and sizes of the batches of one pass."""
    if augment is not None and generator is None:
        raise ValueError("augmentation needs a generator")
    order = None if generator is None else torch.randperm(number, generator=generator, device=generator.device)
    whole, rest = divmod(number, batch_size)
    return order, [batch_size] * whole + ([rest] if rest and not drop_last else [])


def normalised(images: Tensor, info: DataInfo, augment: Augment | None, draws: Draws | None) -> Tensor:
    """Pixels to mean 0 and standard deviation 1, float32, then what follows normalisation."""
    scale, shift = _affine(images, info)
    result = images.to(torch.float32) * scale + shift
    return result if augment is None or draws is None else augment.after_normalisation(result, draws)


def _affine(images: Tensor, info: DataInfo) -> tuple[Tensor, Tensor]:
    """Scale and shift [channels, 1, 1] that take pixels to mean 0 and standard deviation 1."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (info.mean, info.std))
    full = 1.0 if images.is_floating_point() else 255.0
    return (1 / (full * std)).to(images.device, torch.float32), (-mean / std).to(images.device, torch.float32)
