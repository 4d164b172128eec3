"""What a cell reads through a link: an earlier cell's output, averaged and joined to input 0 (U-DARTS)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..genotypes.links import SHARE


def joined(x: Tensor, far: Tensor) -> Tensor:
    """Input 0 and, behind its channels, a quarter as many channels of an earlier cell, averaged over neighbours.

    If the earlier cell has as many channels as input 0, these are means of 4 channels. If it has half as many channels,
    at twice the size, they are means of 2 channels and 2 x 2 pixels. If it has a quarter, at four times the size, they
    are means of 4 x 4 pixels.

    Args:
        x: input 0, [batch, channels, height, width].
        far: output of the earlier cell; its channels are a multiple of channels / 4, its size is no smaller.

    Returns:
        [batch, 5 / 4 channels, height, width].
    """
    channels = x.shape[1] // SHARE
    narrow = far.unflatten(1, (channels, -1)).mean(2)  # type: ignore[no-untyped-call]  # untyped in torch
    return torch.cat([x, F.adaptive_avg_pool2d(narrow, x.shape[2:])], 1)  # type: ignore[arg-type]  # a size is a tuple
