"""U-DARTS: sub-networks drawn uniformly, each trained for some steps; cells that read an earlier one; small gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field

from ..genotypes.links import num_sources
from ..genotypes.spaces import operations_of
from ..ground.validation import Strict
from . import darts
from .common import Sigmoid, Standard
from .method import Method
from .parts import Edge, Parameters, Progress, Regulariser, Shape, Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..settings.config import ExperimentConfig


class SubNetworkOptions(Strict):
    """Settings of the sub-networks."""

    path_steps: int = Field(100, ge=1, le=1_000_000, description="steps that a sub-network is trained for")


class Paths(Sigmoid):
    """Gates sigma(alpha); in steps only those of a sub-network, which is drawn uniformly, are not 0.

    A sub-network has one operation of each edge and one link of each cell. Steps of weights and alphas share it until
    `path_steps` are done or the epoch ends.
    """

    name = "sigmoid-paths"
    summary = "sigma(alpha) of one operation per edge, drawn uniformly for a number of steps (U-DARTS)"
    exact = True

    class Options(SubNetworkOptions):
        """Settings of the sub-networks and their links."""

        global_links: bool = Field(True, description="whether cells 3 and later read one of the cells 0 to k - 3 too")

    @property
    def has_links(self) -> bool:
        """The option `global_links`."""
        return bool(self.options.global_links)

    def parameters(self, shape: Shape, stream: torch.Generator | None) -> dict[str, Tensor]:
        """`alphas`, and `links` [groups, links]: zeros, or 0.1 sigma(N(0, 1)) from a stream."""
        import torch

        sizes: dict[str, tuple[int, ...]] = {"alphas": (shape.groups, shape.edges, shape.operations)}
        if shape.links:
            sizes["links"] = (shape.groups, shape.links)
        start = {name: torch.zeros(*size) for name, size in sizes.items()}
        if stream is None:
            return start
        return {name: 0.1 * values.normal_(generator=stream).sigmoid() for name, values in start.items()}

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; in a step 0 but for the sub-network."""
        gates = super().gates(parameters, progress)
        drawn = self.trained(parameters, progress)
        return gates * drawn["alphas"] if drawn else gates

    def links(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, links]: the parameters themselves, which may be negative; in a step -inf but for the sub-network."""
        drawn = self.trained(parameters, progress)
        values = parameters["links"]
        return values.masked_fill(~drawn["links"], -float("inf")) if drawn else values

    def trained(self, parameters: Parameters, progress: Progress) -> dict[str, Tensor]:
        """The sub-network of a step: by name of the parameters, true where it has an operation or a link.

        Outside steps there is no sub-network, and the result is empty.
        """
        import torch

        if progress.draw_once is None:
            return {}
        stream = progress.draw_once(self.options.path_steps)
        drawn = {}
        for name, values in parameters.items():
            uniform = torch.rand(values.shape[:-1], generator=stream, device=values.device)
            number: Tensor | int = values.shape[-1]
            if name == "links":  # of a group's own; of one that has none the first, which is not read
                own = [max(num_sources(position), 1) for position in range(len(values))]
                number = torch.tensor(own, device=values.device)
            chosen = (uniform * number).long().clamp_max(number - 1)  # rounding may reach the number itself
            drawn[name] = chosen[..., None] == torch.arange(values.shape[-1], device=values.device)
        return drawn

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Only an edge that computes one operation is a sub-network. A link is a cell's own, and not ablated yet."""
        search, ablation = config.search, config.ablation
        if search.edge != OneOperation.name:
            return f"search.gates {cls.name} are of one operation per edge: use search.edge {OneOperation.name}"
        if not cls(search).has_links:
            return None
        if search.sharing != "own":
            return f"search.gates {cls.name} has links of every cell: use search.sharing own, or global_links false"
        if ablation.loss != "none" or ablation.shapley_permutations:
            return f"search.gates {cls.name} links cells, which cannot be removed: set ablation.loss to none"
        from . import PLANS

        if any(stage.decides for stage in PLANS[search.stages](search).stages()):
            return f"search.stages {search.stages} measures gates without links: set global_links to false"
        return None


class OneOperation(Edge):
    """The operation with the largest gate alone, times its gate."""

    name = "one-operation"
    summary = "the operation with the largest gate alone, times that gate (U-DARTS)"

    def build(self, names: Sequence[str], channels: int, stride: int) -> nn.Module:
        """A `sampled_op.OneOp`."""
        from ..supernets.sampled_op import OneOp

        return OneOp(names, channels, stride)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse what needs a gradient of every weight, or edges that are fused."""
        if config.alpha.grad_mode == "published":
            return f"search.edge {cls.name} gives gradients to one operation only: set alpha.grad_mode to clean"
        if config.search.compile != "none":
            return f"search.edge {cls.name} chooses while it runs, which search.compile cannot fuse: set it to none"
        return None


class SubNetworks(Standard):
    """Warm-up and search; with each sub-network the optimisers of weights and alphas begin anew."""

    name = "sub-networks"
    summary = "as standard; optimisers begin anew with each sub-network, after a number of steps (U-DARTS)"

    class Options(SubNetworkOptions):
        """Settings of the sub-networks."""

    def stages(self) -> tuple[Stage, ...]:
        """One or two, of one network."""
        return tuple(Stage(stage.phase, stage.epochs, renewed=self.options.path_steps) for stage in super().stages())


#: Of each operation the depthwise convolutions, each with a pointwise one behind it, and the sides of their kernels.
DEPTH_AND_KERNEL: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "none": (0, 0),
        "max_pool_3x3": (0, 0),
        "avg_pool_3x3": (0, 0),
        "skip_connect": (0, 0),
        "sep_conv_3x3": (2, 3),
        "sep_conv_5x5": (2, 5),
        "dil_conv_3x3": (1, 3),
        "dil_conv_5x5": (1, 5),
    }
)

#: Channels at which the weights of operations are counted.
WIDTH = 36


def coefficients(names: Sequence[str]) -> list[float]:
    """Coefficient of each operation: 1 / (depth + 1) + 0.1 (weights of the operation) / (weights of all) (U-DARTS).

    The operations have stride 1. The weights are counted with `WIDTH` channels.

    Args:
        names: the names of the operations.

    Example:
        >>> names = ("none", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
        >>> [round(value, 4) for value in coefficients(names)]
        [1.0, 0.3618, 0.3715, 0.5142, 0.5191]
    """
    shapes = [DEPTH_AND_KERNEL[name] for name in names]
    # A convolution of each channel, one of all channels at each pixel, and a normalisation.
    weights = [depth * (WIDTH * kernel**2 + WIDTH**2 + 2 * WIDTH) for depth, kernel in shapes]
    return [1 / (depth + 1) + 0.1 * own / sum(weights) for (depth, _), own in zip(shapes, weights, strict=True)]


class ParameterAware(Regulariser):
    """The gates of a step's operations, each times a coefficient of the operation, summed over the edges of a cell."""

    name = "parameter-aware"
    summary = "sum over edges of gate times 1 / (depth + 1) + 0.1 share of the weights of its operation (U-DARTS)"
    summed = True

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups]."""
        return (gates * gates.new_tensor(coefficients(operations_of(self.search.space)))).sum((1, 2))

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Every edge needs all operations of a space whose depths are known."""
        search = config.search
        unknown = [name for name in operations_of(search.space) if name not in DEPTH_AND_KERNEL]
        if unknown:
            return f"search.regularisers {cls.name} knows no depth of {unknown[0]}: use search.space S or S_none"
        from . import PLANS

        if any(stage.kept is not None for stage in PLANS[search.stages](search).stages()):
            return f"search.regularisers {cls.name} is of all operations, which search.stages {search.stages} drops"
        return None


METHOD = Method(
    "individual cells that also read an earlier one; sub-networks drawn uniformly are trained for 100 steps each",
    "U-DARTS (Huang et al. 2023) and its published code",
    darts.settings(
        search={
            "sharing": "own",
            "gates": Paths.name,
            "edge": OneOperation.name,
            "stages": SubNetworks.name,
            "regularisers": {ParameterAware.name: {"weight": 0.0175}},
            "options": {"path_steps": 100, "global_links": True},
            "num_cells": 20,
            "epochs": 100,
        }
    ),
    parts=(Paths, OneOperation, SubNetworks, ParameterAware),
    formula="L = L_CE + 0.0175 sum over sampled edges of sigma(alpha) c(o), c(o) = 1 / (depth + 1) + 0.1 share of the "
    "weights; input 0 of cell k = v [out(k - 2), pool(out(j))], j <= k - 3 drawn, and argmax v in the genotype",
    uncertain=(
        "the published code replaces alpha by sigma(alpha) at every pass; here sigma(alpha) is the gate, alpha stays",
        "the published code takes the second order: search.order second does; the preset is of first order",
        "the batch is 64 as in the README; the code's default is 16, the one complete log has 100",
        "a sub-network's pools are normalised as the supernet's are; in the published code they are not",
        "sub-networks share running statistics with the supernet; in the published code each begins its own",
        "a normalisation follows v, so that its gradient is that of the rounding term eps alone, and Adam decides",
        "the genotype leaves v out, as in the published evaluation network",
        "no scheduler for the alphas, as in the published code; no auxiliary head in the search, as in its log",
    ),
)
