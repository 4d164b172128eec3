"""Images that are given as tensors or as a data set of torch's, instead of by the settings `data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ddarts_core.data.images import DataInfo, Images, ImageSet
from ddarts_core.data.sets import load_train
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.data_settings import DataConfig

#: Images [number, channels, height, width] and labels [number], or a data set of (image, label).
Data = tuple[Tensor, Tensor] | Dataset[Any]

#: The name of such a data set in what is recorded.
NAME = "given"


def train_images(
    config: DataConfig, data: Data | None, classes: Sequence[str] | None = None
) -> tuple[DataInfo, Images]:
    """The training images and their facts: those that are given, or those of the settings.

    Args:
        config: the settings of the data; only the split and the augmentation count if images are given.
        data: images and their labels; None reads those of the settings. The images are of uint8, or of floats from 0 to
            1 that were not normalised, and all are squares of one size. The labels are integers from 0.
        classes: names of the classes in the order of their labels; None calls the classes by their numbers.

    Raises:
        UserError: the images or labels are of another kind, a channel has the same value everywhere, or the images of
            the settings cannot be read.
    """
    if data is None:
        return load_train(config)
    images = image_set(data)
    shares = images.images.float() / (255 if images.images.dtype == torch.uint8 else 1)
    mean, std = shares.mean((0, 2, 3)), shares.std((0, 2, 3), correction=0)
    if (std == 0).any():
        raise UserError(f"channel {int((std == 0).nonzero()[0])} of the images has the same value everywhere")
    number = int(images.labels.max()) + 1 if classes is None else len(classes)
    info = DataInfo(
        NAME, number, shares.shape[1], shares.shape[-1], tuple(mean.tolist()), tuple(std.tolist()), tuple(classes or ())
    )
    _check_labels(images, number)
    return info, images


def test_images(info: DataInfo, data: Data) -> ImageSet:
    """The given test images as one set; they must have the form of the training images.

    Raises:
        UserError: the images or labels are of another kind than `train_images` says, the images have other channels or
            another size than the training images, or a label is none of the classes.
    """
    images = image_set(data)
    found = replace(info, channels=images.images.shape[1], image_size=images.images.shape[-1])
    if found != info:
        raise UserError(
            f"the test images have {found.channels} channels and {found.image_size} pixels a side, and the training "
            f"images {info.channels} and {info.image_size}"
        )
    _check_labels(images, info.num_classes)
    return images


def image_set(data: Data) -> ImageSet:
    """Make one tensor of the given images, and one of their labels.

    Raises:
        UserError: the images or labels are of another kind than `train_images` says.

    Example:
        >>> len(image_set((torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))))
        5
    """
    images, labels = data if isinstance(data, tuple) else _stacked(data)
    if images.ndim != 4 or labels.shape != images.shape[:1] or images.shape[2] != images.shape[3] or not len(images):
        raise UserError(
            f"images {list(images.shape)} and labels {list(labels.shape)}: give images [number, channels, height, "
            "width], as high as wide, and one label each"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(f"labels of type {labels.dtype}: give the numbers of the classes, from 0, as integers")
    if images.dtype != torch.uint8:
        low, high = images.min().item(), images.max().item()
        if not images.is_floating_point() or not 0 <= low <= high <= 1:
            raise UserError(
                f"images of type {images.dtype} from {low:g} to {high:g}: give uint8, or floats from 0 to 1 before any "
                "normalisation, which ddarts does itself"
            )
        images = images.float()
    return ImageSet(images.detach().cpu(), labels.detach().cpu().long())


def _check_labels(images: ImageSet, number: int) -> None:
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= number:
        raise UserError(f"labels from {low} to {high}: of {number} classes they are from 0 to {number - 1}")


def _stacked(data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """All images and labels of a data set as two tensors; each image is read once."""
    pairs = [data[index] for index in range(len(data))]  # type: ignore[arg-type]  # torch's has no length in its type
    images = [_pixels(image) for image, _ in pairs]
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            raise UserError(
                f"image {index} is {list(image.shape)} and image 0 {list(images[0].shape)}: resize them to one size, "
                "for example with torchvision.transforms.v2.Resize and CenterCrop"
            )
    if not images:
        raise UserError("the data set holds no images")
    return torch.stack(images), torch.tensor([int(label) for _, label in pairs])


def _pixels(image: Any) -> Tensor:
    """The pixels of an image as a tensor [channels, height, width].

    Args:
        image: a tensor [channels, height, width], a picture or array [height, width, channels], or any of these without
            channels, [height, width].
    """
    if isinstance(image, Tensor):
        return image[None] if image.ndim == 2 else image
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
