"""Images in memory as one tensor, and their batches, shuffled, augmented and normalised as a whole on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class DataInfo:
    """What a network must know of a data set: classes, channels, image side in pixels, channel statistics of 0..1."""

    name: str
    num_classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images, each drawn per image; 0 and False are off.

    Attributes:
        crop_padding: crop to the old size at a random place after padding with so many black pixels.
        flip: mirror left to right with probability 0.5.
        cutout: side of a square set to the mean colour, centred anywhere in the image and cut at its border.
        autoaugment: the AutoAugment policy for CIFAR.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    autoaugment: bool = False

    def shift_and_flip(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What precedes normalisation: crop, flip, AutoAugment; [batch, channels, height, width] to the same shape."""
        if self.crop_padding:
            images = _random_crop(images, self.crop_padding, generator)
        if self.flip:
            mirrored = _draw(2, len(images), generator, images.device).bool()
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if self.autoaugment:
            images = _autoaugment(images, generator)
        return images

    def cut(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What follows normalisation: the square of each image set to 0, which is the mean colour."""
        if not self.cutout:
            return images
        height, width = images.shape[-2:]
        inside = []
        for size in (height, width):
            first = _draw(size, len(images), generator, images.device) - self.cutout // 2
            offset = torch.arange(size, device=images.device) - first[:, None]
            inside.append((offset >= 0) & (offset < self.cutout))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images.masked_fill(hole, 0.0)


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
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass: normalised float32 images and int64 labels on the device.

        Args:
            batch_size: images per batch; the last may be smaller.
            info: the statistics to normalise by.
            generator: draws the order, then the augmentation of each batch; None keeps the order (evaluation).
            device: where the batches are wanted; the set is moved there once.
            augment: needs a generator; None leaves the images as they are.
            drop_last: leave out the last batch if it is smaller than the others.
        """
        if augment is not None and generator is None:
            raise ValueError("augmentation needs a generator")
        here = self.to(device)
        place = here.images.device
        scale, shift = _affine(here.images, info)
        order = None
        if generator is not None:
            order = torch.randperm(len(here), generator=generator, device=generator.device).to(place)
        stop = len(here) // batch_size * batch_size if drop_last else len(here)
        for start in range(0, stop, batch_size):
            chosen = slice(start, start + batch_size) if order is None else order[start : start + batch_size]
            images = here.images[chosen]
            if augment is not None and generator is not None:
                images = augment.shift_and_flip(images, generator)
            normalised = images.to(torch.float32) * scale + shift
            if augment is not None and generator is not None:
                normalised = augment.cut(normalised, generator)
            yield normalised, here.labels[chosen]


def _affine(images: Tensor, info: DataInfo) -> tuple[Tensor, Tensor]:
    """Scale and shift [channels, 1, 1] that take pixels to mean 0 and standard deviation 1."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (info.mean, info.std))
    full = 1.0 if images.is_floating_point() else 255.0
    return (1 / (full * std)).to(images.device, torch.float32), (-mean / std).to(images.device, torch.float32)


def _draw(high: int, number: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Integers below `high`, drawn where the generator lives, so that its device alone decides the numbers."""
    return torch.randint(high, (number,), generator=generator, device=generator.device).to(device)


def _random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    number, channels, height, width = images.shape
    padded = functional.pad(images, (padding, padding, padding, padding))
    device = images.device
    rows = _draw(2 * padding + 1, number, generator, device)[:, None] + torch.arange(height, device=device)
    columns = _draw(2 * padding + 1, number, generator, device)[:, None] + torch.arange(width, device=device)
    return padded[
        torch.arange(number, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """One policy per image. torchvision draws from the CPU's global generator, which is lent a seed and given back.

    `torch.manual_seed` would also reseed every GPU, hence the default generator by name.
    """
    from torchvision.transforms import v2

    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return torch.stack([policy(image) for image in images])
