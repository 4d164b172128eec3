"""PC-DARTS: only a share of the channels goes through the operations, and edges have weights as operations have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ..ground.validation import Strict
from . import darts
from .common import Softmax
from .method import Method
from .parts import Edge, Parameters, Progress, Shape, initial

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..settings.config import ExperimentConfig


class EdgeNormalised(Softmax):
    """Softmax over the operations of an edge, times a softmax over the edges that enter a node (PC-DARTS eq. 5)."""

    name = "softmax-edges"
    summary = "softmax over operations times softmax over the edges that enter a node (PC-DARTS)"

    def parameters(self, shape: Shape, stream: torch.Generator | None) -> dict[str, Tensor]:
        """`alphas`, and `edges` [groups, edges]."""
        return {**super().parameters(shape, stream), "edges": initial((shape.groups, shape.edges), stream)}

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; they sum to 1 over all edges into a node."""
        return super().gates(parameters, progress) * softmax_per_node(parameters["edges"])[..., None]


def softmax_per_node(edges: Tensor) -> Tensor:
    """Softmax over the edges that enter each node, [..., edges]; node i has i + 2 of them, one after the other."""
    import torch

    parts, first, into = [], 0, 2
    while first < edges.shape[-1]:
        parts.append(edges[..., first : first + into].softmax(-1))
        first, into = first + into, into + 1
    return torch.cat(parts, -1)


class PartialChannels(Edge):
    """The first 1/K of the channels go through the operations, and the others past them.

    Then the channels are shuffled.
    """

    name = "partial-channels"
    summary = "a share 1/K of the channels through the operations, the rest bypasses them (PC-DARTS)"

    class Options(Strict):
        """Settings of partial channels."""

        channel_share: int = Field(4, ge=1, le=64, description="K: one in so many channels goes through the operations")

    def build(self, names: Sequence[str], channels: int, stride: int) -> nn.Module:
        """A `partial_channels.PartialMixedOp`."""
        from ..supernets.partial_channels import PartialMixedOp

        return PartialMixedOp(names, channels, stride, self.options.channel_share)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse independent gates.

        The bypass weighs as much as all gates of its edge together, and independent gates leave this sum open.
        """
        search = config.search
        share = cls(search).options.channel_share
        if search.independent_gates:
            return f"search.edge {cls.name} needs gates that sum to the weight of their edge, such as softmax"
        if search.channels % share:
            return f"search.channels {search.channels} must be a multiple of search.options.channel_share {share}"
        return None


METHOD = Method(
    "DARTS on a quarter of the channels, with normalised weights of edges: four times the batch in the same memory",
    "PC-DARTS (Xu et al. 2020), eq. 3 to 5",
    darts.settings(
        search={
            "gates": EdgeNormalised.name,
            "edge": PartialChannels.name,
            "options": {"channel_share": 4},
            "batch_size": 256,
            "lr": 0.1,
            "lr_min": 0.0,
            "warmup_epochs": 15,
            "epochs": 35,
        },
        alpha={"lr": 6e-4, "lr_min": 6e-4},
    ),
    parts=(EdgeNormalised, PartialChannels),
    formula="node = sum_j softmax(b)_j shuffle([sum_k softmax(alpha_j)_k o_k(x_j[: C/K]), x_j[C/K :]])",
    uncertain=("which channels go through the operations: the first C/K, as in the published code",),
)
