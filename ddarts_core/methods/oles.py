"""OLES: an operation stops being trained when its gradients on the two splits no longer point the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..ground.validation import Strict
from . import darts
from .method import Method
from .parts import Freezing

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig


class GradientDirection(Freezing):
    """Freezes an operation whose gradients of both splits have a mean cosine below a bound (OLES section 3.2)."""

    name = "gradient-direction"
    summary = "an operation is frozen when its gradients on the splits of weights and of alphas disagree (OLES)"

    class Options(Strict):
        """Settings of the comparison of gradients."""

        freeze_every: int = Field(21, ge=1, le=100_000, description="steps between decisions, which the mean is over")
        freeze_below: float = Field(0.4, ge=-1, le=1, description="mean cosine below which an operation is frozen")

    @property
    def period(self) -> int | None:
        """The option `freeze_every`."""
        every: int = self.options.freeze_every
        return every

    def freezes(self, means: Tensor) -> Tensor:
        """Whether the mean cosine of each operation lies below `freeze_below`, [operations]."""
        below: float = self.options.freeze_below
        return means < below

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse alpha steps of the second order and of the published mode: first-order gradients are compared."""
        if config.search.order == "second" or config.alpha.grad_mode == "published":
            return (
                f"search.freezing {cls.name} compares first-order gradients: "
                "set search.order to first and alpha.grad_mode to clean"
            )
        return None


METHOD = Method(
    "DARTS that stops training the weights of an operation when they begin to fit their own split alone",
    "OLES (Jiang et al. 2023), section 3.2",
    darts.settings(search={"freezing": GradientDirection.name, "options": {"freeze_every": 21, "freeze_below": 0.4}}),
    parts=(GradientDirection,),
    formula="every 21 steps w_o is frozen if mean cos(dL_train / dw_o, dL_val / dw_o) < 0.4 over these steps",
    uncertain=(
        "the cosine is of the gradients by all weights of an operation together, each cell's operations on their own",
        "dL_val is clean; the published code does not clear gradients and compares g_train with g_train + g_val, where "
        "0.4 is a cosine of -0.68 for gradients of equal length: here far more is frozen",
        "a frozen weight does not decay; under old versions of torch the published code goes on to decay it",
        "weights follow their own split alone, but which of them still do depends on the split of the alphas",
        "a search of fewer than 21 steps decides nothing: lower search.options.freeze_every",
    ),
)
