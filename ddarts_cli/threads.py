"""How many threads torch gets: small networks are slower on several, which wait for each other at every operation."""

from __future__ import annotations

import os

#: Values of one feature map of a batch below which one thread does the work of an operation alone.
SMALL = 2**18


def limit_threads(batch_size: int, channels: int, image_size: int) -> None:
    """Let torch use one thread if the feature maps are small; an explicit OMP_NUM_THREADS is left alone.

    Args:
        batch_size: the number of images in a batch.
        channels: the number of channels of a feature map.
        image_size: height and width of the images, in pixels.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and batch_size * channels * image_size**2 < SMALL:
        torch.set_num_threads(1)
