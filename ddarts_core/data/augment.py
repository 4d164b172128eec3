"""Random changes of training images: whole batches where torchvision's functions can, else one image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

#: torchvision's AutoAugment policy by the size of the images that it was found on.
Policy = Literal["CIFAR10", "IMAGENET"]


@dataclass(frozen=True)
class Draws:
    """Random integers, one for each image of a batch, of which this process may hold only a part.

    They are drawn for the whole batch and where the generator lives, so that neither the number of processes nor the
    device of the images decides them.

    Attributes:
        generator: of the epoch.
        number: images in the whole batch.
        part: the images of the batch that this process holds.
        device: where the integers are wanted.
    """

    generator: torch.Generator
    number: int
    part: slice
    device: torch.device

    def below(self, high: int) -> Tensor:
        """Integers from 0 to high - 1, [images held]."""
        drawn = torch.randint(high, (self.number,), generator=self.generator, device=self.generator.device)
        return drawn[self.part].to(self.device)

    @property
    def held(self) -> int:
        """Number of images that this process holds."""
        return len(range(self.number)[self.part])


@dataclass(frozen=True)
class Augment:
    """Random changes of training images, each drawn per image; 0 and False are off.

    Attributes:
        crop_padding: crop to the old size at a random place after padding with so many black pixels.
        flip: mirror left to right with probability 0.5.
        cutout: side of a square set to the mean colour, centred anywhere in the image and cut at its border.
        autoaugment: the AutoAugment policy of `policy`.
        resized_crop: a random part of 8 to 100 % of the area and of 3:4 to 4:3, resized (ImageNet's training).
        color_jitter: brightness, contrast and saturation times 1 ± it, hue shifted by up to half of it.
        policy: the set of images that AutoAugment's policy was found on.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    autoaugment: bool = False
    resized_crop: bool = False
    color_jitter: float = 0.0
    policy: Policy = "CIFAR10"

    @property
    def changes_nothing(self) -> bool:
        """Whether all of it is off."""
        return self == Augment(policy=self.policy)

    def before_normalisation(self, images: Tensor, draws: Draws) -> Tensor:
        """Resized crop, crop, flip, AutoAugment and colour; [batch, channels, height, width] to the same shape."""
        if self.resized_crop:
            images = _one_by_one(_sequence(self.crops(images.shape[-1])), images, draws)
        if self.crop_padding:
            images = _random_crop(images, self.crop_padding, draws)
        if self.flip:
            images = _random_flip(images, draws)
        if colours := self.colours():
            images = _one_by_one(_sequence(colours), images, draws)
        return images

    def after_normalisation(self, images: Tensor, draws: Draws) -> Tensor:
        """The square of each image set to 0, which is the mean colour."""
        if not self.cutout:
            return images
        height, width = images.shape[-2:]
        inside = []
        for size in (height, width):
            first = draws.below(size) - self.cutout // 2
            offset = torch.arange(size, device=images.device) - first[:, None]
            inside.append((offset >= 0) & (offset < self.cutout))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images.masked_fill(hole, 0.0)

    # --- torchvision's transforms of one image ----------------------------------------------------------------------

    def crops(self, size: int) -> list[Any]:
        """Where one image is cut out of its padded self, before it is flipped."""
        from torchvision.transforms import v2

        return [v2.RandomResizedCrop(size, antialias=True)] if self.resized_crop else []

    def colours(self) -> list[Any]:
        """How the colours of one image change, after it is flipped."""
        from torchvision.transforms import v2

        transforms: list[Any] = []
        if self.autoaugment:
            transforms.append(v2.AutoAugment(v2.AutoAugmentPolicy[self.policy]))
        if self.color_jitter:
            strength = self.color_jitter
            transforms.append(v2.ColorJitter(strength, strength, strength, strength / 2))
        return transforms


def apply_seeded(transform: Any, image: Any, seed: int) -> Any:
    """One image through torchvision, which draws from the CPU's global generator: it is lent a seed and given back.

    `torch.manual_seed` would also reseed every GPU, hence the default generator by name.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return transform(image)


#: Seeds of single images are drawn below this.
SEEDS = 2**62


def _sequence(transforms: list[Any]) -> Any:
    from torchvision.transforms import v2

    return v2.Compose(transforms)


def _one_by_one(transform: Any, images: Tensor, draws: Draws) -> Tensor:
    seeds = draws.below(SEEDS).tolist()
    return torch.stack([apply_seeded(transform, image, seed) for image, seed in zip(images, seeds, strict=True)])


def _random_flip(images: Tensor, draws: Draws) -> Tensor:
    from torchvision.transforms.v2 import functional

    mirrored = draws.below(2).bool()
    return torch.where(mirrored[:, None, None, None], functional.horizontal_flip(images), images)


def _random_crop(images: Tensor, padding: int, draws: Draws) -> Tensor:
    from torchvision.transforms.v2 import functional

    number, channels, height, width = images.shape
    padded = functional.pad(images, [padding])
    device = images.device
    rows = draws.below(2 * padding + 1)[:, None] + torch.arange(height, device=device)
    columns = draws.below(2 * padding + 1)[:, None] + torch.arange(width, device=device)
    cropped: Tensor = padded[
        torch.arange(number, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
    return cropped
