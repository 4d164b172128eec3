"""The mixed edge of PC-DARTS (eq. 3): a part of the channels goes through the operations, the rest past them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..tensors.layout import layout_of
from .supernet import MixedOp


class PartialMixedOp(nn.Module):
    """An edge whose operations see the first channels only.

    Args:
        names: the names of the operations.
        channels: the number of channels of the edge, a multiple of `share`.
        stride: the stride of the edge; with stride 2 the channels that bypass the operations are max-pooled.
        share: K; one in K channels goes through the operations.

    Example:
        >>> edge = PartialMixedOp(("skip_connect",), 4, stride=1, share=2)
        >>> edge(torch.arange(4.0).view(1, 4, 1, 1), torch.ones(1)).flatten().tolist()
        [0.0, 2.0, 1.0, 3.0]
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int, share: int) -> None:
        super().__init__()
        self.share = share
        self.stride = stride
        self.mixed = MixedOp(names, channels // share, stride)

    @property
    def ops(self) -> nn.ModuleList:
        """The operations."""
        return self.mixed.ops

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[batch, channels, height, width] and [operations] -> [batch, channels, height / stride, width / stride].

        The bypass is weighed by the sum of the gates: that is the weight of the edge.
        """
        through, past = x.tensor_split([x.shape[1] // self.share], dim=1)
        mixed: Tensor = self.mixed(through.contiguous(memory_format=layout_of(x)), gates)
        if self.share == 1:
            return mixed
        if self.stride == 2:
            past = F.max_pool2d(past, 2, 2, ceil_mode=True)
        past = gates.sum() * past
        # Shuffled with `share` groups: channel c of group g becomes channel c * share + g.
        shuffled = torch.stack([mixed, *past.chunk(self.share - 1, dim=1)], dim=2).flatten(1, 2)
        return shuffled.contiguous(memory_format=layout_of(x))
