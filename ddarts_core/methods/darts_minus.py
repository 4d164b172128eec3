"""DARTS-: an auxiliary skip connection on every edge, whose weight decays to zero while the search goes on."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ..ground.validation import Strict
from . import darts
from .method import Method
from .parts import Edge, Progress


class AuxiliarySkip(Edge):
    """o(x) = beta x + sum_k gate_k o_k(x); with stride 2 the skip is a FactorizedReduce (DARTS- section 3.3)."""

    name = "auxiliary-skip"
    summary = "one more skip connection, with a weight that decays over the epochs and no alpha (DARTS-)"
    extra = ("skip_connect",)

    class Options(Strict):
        """Settings of the auxiliary skip connection."""

        auxiliary_skip: float = Field(1.0, ge=0, le=10, description="weight of the auxiliary skip in the first epoch")
        auxiliary_decay: Literal["linear", "cosine", "slow-cosine", "constant"] = Field(
            "linear", description="of that weight over all epochs"
        )

    def weights(self, progress: Progress) -> tuple[float, ...]:
        """beta(e), e of T epochs: 1 - e/T, (1 + cos(pi e/T)) / 2, cos(pi e/2T), or 1, times the first weight."""
        share = progress.epoch / progress.epochs
        factor = {
            "linear": 1 - share,
            "cosine": (1 + math.cos(math.pi * share)) / 2,
            "slow-cosine": math.cos(math.pi * share / 2),
            "constant": 1.0,
        }[self.options.auxiliary_decay]
        return (self.options.auxiliary_skip * factor,)


METHOD = Method(
    "DARTS with an auxiliary skip connection on every edge that fades out",
    "DARTS- (Chu et al. 2021), section 3.3",
    darts.settings(
        search={
            "edge": AuxiliarySkip.name,
            "options": {"auxiliary_skip": 1.0, "auxiliary_decay": "linear"},
        }
    ),
    parts=(AuxiliarySkip,),
    formula="o(x) = beta(e) x + sum_k softmax(alpha)_k o_k(x), beta(e) = 1 - e/T",
    uncertain=(
        "the score of an epoch uses the beta of that epoch; the paper does not say which beta validates",
        "the variant with a 1x1 convolution in the place of the skip is not here",
    ),
)
