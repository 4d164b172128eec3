"""beta-DARTS: a regulariser that keeps the softmax weights of an edge alike early in the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import darts
from .method import Method
from .parts import Parameters, Regulariser

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig


class BetaDecay(Regulariser):
    """L_Beta: the mean over the edges of log sum_k exp(alpha_k) (beta-DARTS eq. 12)."""

    name = "beta-decay"
    summary = "mean over edges of log sum_k exp(alpha_k), keeps the gates of an edge alike (beta-DARTS)"

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups]."""
        return parameters["alphas"].logsumexp(-1).mean(1)

    def gradient(self, parameters: Parameters, gates_of: Callable[[Parameters], Tensor]) -> dict[str, Tensor]:
        """softmax(alpha) / edges."""
        alphas = parameters["alphas"]
        return {"alphas": alphas.softmax(-1) / alphas.shape[1]}

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse gates that are decided one by one, since this term compares the alphas of an edge."""
        if config.search.independent_gates:
            return f"search.regularisers {cls.name} compares the alphas of an edge: use gates that do, such as softmax"
        return None


METHOD = Method(
    "DARTS with a regulariser on the alphas whose weight grows with the epochs",
    "beta-DARTS (Ye et al. 2022), eq. 12, 13",
    darts.settings(search={"regularisers": {BetaDecay.name: {"weight": 25.0, "schedule": "rising"}}}),
    parts=(BetaDecay,),
    formula="L = L_val + lambda(e) mean over edges of log sum_k exp(alpha_k), lambda(e) = 25 e/E (0.5 e in 50 epochs)",
    uncertain=(
        "two cell types: the mean is taken over the edges of both (the published code has one type)",
        "the weight decay of alpha stays at 1e-3, as in the published code",
    ),
)
