"""GDAS: every step samples one operation per edge; the temperature of the sampling falls while the search goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ..ground.validation import Strict
from . import darts
from .common import Softmax
from .method import Method
from .parts import Edge, Parameters, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..settings.config import ExperimentConfig


class Gumbel(Softmax):
    """Gumbel softmax: softmax((log softmax(alpha) + G) / temperature), G drawn anew in each step (GDAS eq. 5).

    The largest gate of an edge is that of operation k with the probability softmax(alpha)_k. Outside steps nothing is
    drawn: there the gates are these probabilities.
    """

    name = "gumbel"
    summary = "softmax of alpha plus Gumbel noise, over a temperature that falls with the epochs (GDAS)"

    class Options(Strict):
        """Settings of the temperature."""

        first_temperature: float = Field(10.0, gt=0, le=1000, description="temperature of the gates in the first epoch")
        last_temperature: float = Field(0.1, gt=0, le=1000, description="temperature of the gates in the last epoch")

    def temperature(self, progress: Progress) -> float:
        """The temperature of an epoch, which falls by the same amount in every epoch."""
        first, last = self.options.first_temperature, self.options.last_temperature
        return float(first - (first - last) * progress.epoch / max(progress.epochs - 1, 1))

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; sums to 1 over the last axis."""
        import torch

        if progress.draw is None:
            return super().gates(parameters, progress)
        logits = parameters["alphas"].log_softmax(-1)
        uniform = torch.rand(logits.shape, generator=progress.draw(), dtype=logits.dtype, device=logits.device)
        gumbel = -(-uniform.clamp_min(1e-30).log()).log()  # of 0 it would be infinite
        return ((logits + gumbel) / self.temperature(progress)).softmax(-1)


class Sampled(Edge):
    """The operation with the largest gate alone, as if its gate were 1: straight-through (GDAS section 3.2)."""

    name = "sampled"
    summary = "the operation with the largest gate alone, whose gate is passed straight through (GDAS)"

    def build(self, names: Sequence[str], channels: int, stride: int) -> nn.Module:
        """A `sampled_op.SampledOp`."""
        from ..supernets.sampled_op import SampledOp

        return SampledOp(names, channels, stride)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Gates must be decided against each other, and a pass leaves most weights without a gradient."""
        search = config.search
        if search.independent_gates:
            return f"search.edge {cls.name} takes one operation per edge: use gates that compare them, such as gumbel"
        if search.order == "second" or config.alpha.grad_mode == "published":
            return (
                f"search.edge {cls.name} gives gradients to the sampled operations only: "
                "set search.order to first and alpha.grad_mode to clean"
            )
        if search.compile != "none":
            return f"search.edge {cls.name} chooses while it runs, which search.compile cannot fuse: set it to none"
        return None


METHOD = Method(
    "every step samples one operation per edge, by Gumbel softmax of falling temperature: a step costs one path",
    "GDAS (Dong and Yang 2019), eq. 3 to 6",
    darts.settings(
        search={
            "gates": Gumbel.name,
            "edge": Sampled.name,
            "options": {"first_temperature": 10.0, "last_temperature": 0.1},
            "epochs": 250,
            "batch_size": 256,
            "weight_decay": 5e-4,
        }
    ),
    parts=(Gumbel, Sampled),
    formula="o(x) = o_k(x), k = argmax p, p = softmax((log softmax(alpha) + G) / T), dL/dalpha through p_k; "
    "T(e) = 10 - 9.9 e / (E - 1)",
    uncertain=(
        "momentum of the weights is not Nesterov's, as it is in the published code",
        "an edge keeps one operation, as in DARTS; the published code may keep two operations on one edge of a node",
        "scores between epochs use the most probable operation of each edge; the published code samples there too",
        "weights of operations that a step did not sample do not decay in it",
    ),
)
