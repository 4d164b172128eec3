"""Images that spell their own number, so that tests can tell one from another."""

from __future__ import annotations

import torch

from ddarts_core.data.images import ImageSet


def numbered(labels: list[int], size: int = 6, channels: int = 1) -> ImageSet:
    """Images whose first pixels spell their number, so that one can be told from another."""
    images = torch.zeros(len(labels), channels, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(labels)) % 256
    images[:, 0, 0, 1] = torch.arange(len(labels)) // 256
    return ImageSet(images, torch.tensor(labels))


def numbers(images: ImageSet) -> list[int]:
    pixels = images.images[:, 0, 0].to(torch.int64)
    return (pixels[:, 0] + 256 * pixels[:, 1]).tolist()
