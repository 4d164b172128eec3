"""SDARTS-ADV: weights are trained under the gates nearby that are worst for their own batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from . import darts
from .common import Softmax
from .method import Method
from .parts import Parameters, Progress
from .sdarts_rs import Smoothed, onto_simplex

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig


class Adversarial(Smoothed):
    """Softmax gates, which a step of the weights moves by at most eps to raise the loss of its batch (SDARTS eq. 6, 7).

    After the move they are clipped to 0..1 and divided by their sum.
    """

    name = "softmax-adversarial"
    summary = "softmax, moved against the batch of each step of the weights, further with the epochs (SDARTS-ADV)"

    class Options(Smoothed.Options):
        """Settings of the search for the worst gates."""

        attack_steps: int = Field(7, ge=1, le=100, description="sign steps up the loss, of 2 noise / attack_steps each")

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; sums to 1 over the last axis."""
        return Softmax.gates(self, parameters, progress)

    def against(self, gates: Tensor, progress: Progress, probe: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """The gates after sign steps up the loss, from a random start; the given gates if the loss is lower then."""
        assert progress.draw is not None
        radius = self.radius(progress)
        found = self.disturbed(gates, radius, progress.draw())
        for _ in range(self.options.attack_steps):
            _, gradient = probe(found)
            moved = found + 2 * radius / self.options.attack_steps * gradient.sign()
            found = onto_simplex(gates + (moved - gates).clamp(-radius, radius), gates)
        return found.where(probe(found)[0] >= probe(gates)[0], gates)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Only the signs of the gradient count, and half precision rounds it to 0."""
        if config.search.amp == "fp16":
            return (
                f"search.gates {cls.name} takes gradients that fp16 rounds to 0: set search.amp to bf16, tf32 or none"
            )
        return super().refuse(config)


METHOD = Method(
    "DARTS whose weights are trained under the worst gates nearby, which smooths the loss over alpha",
    "SmoothDARTS (Chen and Hsieh 2020), eq. 3, 6, 7",
    darts.settings(
        search={
            "gates": Adversarial.name,
            "options": {"first_noise": 0.03, "last_noise": 0.3, "attack_steps": 7},
        }
    ),
    parts=(Adversarial,),
    formula="w follows dL_train(w, p + d) / dw, d = argmax of L_train(w, p + d) over |d| <= eps(e) by 7 steps of "
    "(2 eps / 7) sign(dL / dp), p = softmax(alpha), eps(e) = 0.03 + 0.27 e / E; alpha follows dL_val(w, p)",
    uncertain=(
        "gates are clipped and divided by their sum after every step, so the last ones may lie a little beyond eps",
        "an edge whose gates are all clipped to 0 is left undisturbed, as in sdarts-rs",
        "the search for d normalises by running statistics, as in the published code",
    ),
)
