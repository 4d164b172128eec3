"""SDARTS-RS: weights are trained under gates that are disturbed at random, so that they suit all gates around."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..ground.validation import Strict
from . import darts
from .common import Softmax
from .method import Method
from .parts import Parameters, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Smoothed(Softmax):
    """Softmax gates, to which noise U(-eps, eps) is added in steps of the weights (SDARTS eq. 5).

    The noisy gates are clipped to 0..1 and divided by their sum.
    """

    name = "softmax-smoothed"
    summary = "softmax, plus uniform noise that grows with the epochs in steps of the weights (SDARTS-RS)"

    class Options(Strict):
        """Settings of the noise."""

        first_noise: float = Field(0.03, ge=0, lt=1, description="largest noise of a gate in the first epoch")
        last_noise: float = Field(0.3, ge=0, lt=1, description="largest noise of a gate after the last epoch")

    def radius(self, progress: Progress) -> float:
        """The radius eps of the noise, which grows by the same amount in every epoch."""
        first, last = self.options.first_noise, self.options.last_noise
        return float(first + (last - first) * progress.epoch / progress.epochs)

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; sums to 1 over the last axis."""
        gates = super().gates(parameters, progress)
        if progress.purpose != "weights" or progress.draw is None:
            return gates
        return self.disturbed(gates, self.radius(progress), progress.draw())

    def disturbed(self, gates: Tensor, radius: float, stream: torch.Generator) -> Tensor:
        """Gates with noise.

        Args:
            gates: the gates, [groups, edges, operations].
            radius: the radius eps of the noise.
            stream: the random stream that the noise is drawn from.
        """
        import torch

        uniform = torch.rand(gates.shape, generator=stream, dtype=gates.dtype, device=gates.device)
        return onto_simplex(gates + radius * (2 * uniform - 1), gates)


def onto_simplex(moved: Tensor, gates: Tensor) -> Tensor:
    """Gates that were moved, clipped to 0..1 and divided by their sum over the last axis.

    If every gate of an edge is smaller than the noise, all of them may be clipped to 0. Then the edge keeps its gates.

    Args:
        moved: the gates after they were moved.
        gates: the gates before.
    """
    moved = moved.clamp(0, 1)
    total = moved.sum(-1, keepdim=True)
    return (moved / total.clamp_min(1e-12)).where(total > 0, gates)


METHOD = Method(
    "DARTS whose weights are trained under randomly disturbed gates, which smooths the loss over alpha",
    "SmoothDARTS (Chen and Hsieh 2020), eq. 3, 5",
    darts.settings(search={"gates": Smoothed.name, "options": {"first_noise": 0.03, "last_noise": 0.3}}),
    parts=(Smoothed,),
    formula="w follows dL_train(w, p + U(-eps, eps)) / dw, p = softmax(alpha), eps(e) = 0.03 + 0.27 e / E; "
    "alpha follows dL_val(w, p)",
    uncertain=("an edge whose gates are all clipped to 0, which the published code divides by 0, is left undisturbed",),
)
