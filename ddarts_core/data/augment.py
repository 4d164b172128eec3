"""Random changes of training images.

Crops, flips and cutout change a whole batch at once. The other changes are torchvision's, and are applied to one image
at a time; torchvision is imported by them only, since that takes longer than importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

#: torchvision's AutoAugment policy by the size of the images that it was found on.
Policy = Literal["CIFAR10", "IMAGENET"]


@dataclass(frozen=True)
class Draws:
    """Draws one random integer for each image of a batch, of which this process may hold only a part.

    The integers are drawn for the whole batch, on the device of the generator. So they depend neither on the number of
    processes nor on the device of the images.

    Attributes:
        generator: the generator of the epoch.
        number: how many images the whole batch has.
        part: the positions in the batch of the images that this process holds.
        device: the device on which the integers are wanted.
    """

    generator: torch.Generator
    number: int
    part: slice
    device: torch.device

    def below(self, high: int) -> Tensor:
        """Draw integers from 0 to high - 1, one for each image that this process holds: [images held]."""
        drawn = torch.randint(high, (self.number,), generator=self.generator, device=self.generator.device)
        return drawn[self.part].to(self.device)

    @property
    def held(self) -> int:
        """How many images of the batch this process holds."""
        return len(range(self.number)[self.part])


@dataclass(frozen=True)
class Augment:
    """Random changes of training images. Each change is drawn anew for each image. 0 and False switch a change off.

    Attributes:
        crop_padding: how many black pixels are added on each side, before the image is cropped back to its size at a
            random place.
        flip: whether an image is mirrored, left to right, with probability 0.5.
        cutout: the side in pixels of a square that is set to the mean colour. The centre of the square lies anywhere in
            the image, and what lies outside the image is cut off.
        autoaugment: whether AutoAugment is applied, with the policy that `policy` names.
        resized_crop: whether a random part of the image is resized to the whole size, as in the training of ImageNet.
            The part has 8 to 100 % of the area and sides of 3:4 to 4:3.
        color_jitter: the strength s of random changes of colour. Brightness, contrast and saturation are multiplied by
            1 ± s at most, and the hue is shifted by s/2 at most.
        policy: the data set on which AutoAugment's policy was found.
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
        """Whether all changes are switched off."""
        return self == Augment(policy=self.policy)

    def before_normalisation(self, images: Tensor, draws: Draws) -> Tensor:
        """Apply resized crop, crop, flip, AutoAugment and colour, in this order, to images that are not normalised.

        Args:
            images: [batch, channels, height, width]. The result has the same shape.
            draws: the random integers for these images.
        """
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
        """Set a square of each normalised image to 0, which is the mean colour (cutout)."""
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
        """Return torchvision's transforms that cut a part out of one image and resize it, if `resized_crop` is on."""
        if not self.resized_crop:
            return []
        from torchvision.transforms import v2

        return [v2.RandomResizedCrop(size, antialias=True)]

    def colours(self) -> list[Any]:
        """Return torchvision's transforms that change the colours of one image, after it is cut out and flipped."""
        if not self.autoaugment and not self.color_jitter:
            return []
        from torchvision.transforms import v2

        transforms: list[Any] = []
        if self.autoaugment:
            transforms.append(v2.AutoAugment(v2.AutoAugmentPolicy[self.policy]))
        if self.color_jitter:
            strength = self.color_jitter
            transforms.append(v2.ColorJitter(strength, strength, strength, strength / 2))
        return transforms


def apply_seeded(transform: Any, image: Any, seed: int) -> Any:
    """Apply a transform of torchvision to one image, with random draws that follow from a seed.

    torchvision draws from the CPU's global generator. The generator gets the seed for this call only, and has its
    earlier state again afterwards. `torch.manual_seed` would also reseed every GPU, so only the default generator of
    the CPU is seeded here.
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
    mirrored = draws.below(2).bool()
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _random_crop(images: Tensor, padding: int, draws: Draws) -> Tensor:
    number, channels, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
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
