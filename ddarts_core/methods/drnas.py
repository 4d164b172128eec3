"""DrNAS: gates are drawn from a Dirichlet distribution, and its concentrations are learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import darts
from .common import Softmax
from .method import Method
from .parts import Parameters, Progress, Regulariser
from .pcdarts import PartialChannels
from .widening import Widening

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig


def concentration(alphas: Tensor) -> Tensor:
    """elu(alpha) + 1, which is 1 at alpha = 0; held above 1e-6, because float32 rounds e^alpha to 0 far below."""
    from torch.nn import functional as F

    return (F.elu(alphas) + 1).clamp_min(1e-6)


class Dirichlet(Softmax):
    """Gates of an edge are drawn from Dir(elu(alpha) + 1) in every step; outside steps they are its mean (DrNAS eq. 4).

    The gradient is the pathwise one: that of the sample at a fixed quantile.
    """

    name = "dirichlet"
    summary = "drawn from a Dirichlet distribution of concentration elu(alpha) + 1 in steps, else its mean (DrNAS)"

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; sums to 1 over the last axis."""
        from torch import distributions

        from ..tensors.seeding import seeded_init

        drawn = distributions.Dirichlet(concentration(parameters["alphas"]), validate_args=False)
        if progress.draw is None:
            return drawn.mean
        with seeded_init(progress.draw().initial_seed(), self.name):  # torch's distributions take no generator
            return drawn.rsample()


class DirichletDivergence(Regulariser):
    """KL divergence of the gates' Dirichlet distribution from the uniform one (DrNAS eq. 5)."""

    name = "dirichlet-kl"
    summary = "mean over edges of the divergence of the gates' Dirichlet distribution from the uniform one (DrNAS)"

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups]."""
        c = concentration(parameters["alphas"])
        total = c.sum(-1)
        constant = total.lgamma() - c.lgamma().sum(-1) - math.lgamma(c.shape[-1])
        return (constant + ((c - 1) * (c.digamma() - total.digamma()[..., None])).sum(-1)).mean(1)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """It is a function of the concentrations, so it refuses other gates."""
        if config.search.gates != Dirichlet.name:
            return (
                f"search.regularisers {cls.name} measures the distribution of search.gates {Dirichlet.name}: use both"
            )
        return None


METHOD = Method(
    "gates drawn from a Dirichlet distribution whose concentrations are learned, on partial channels, in two networks",
    "DrNAS (Chen et al. 2021), eq. 4, 5, section 3.4",
    darts.settings(
        search={
            "space": "S",
            "gates": Dirichlet.name,
            "edge": PartialChannels.name,
            "stages": Widening.name,
            "options": {"channel_shares": [6, 4], "kept_operations": [4], "channel_share": 6},
            "channels": 36,
            "num_cells": 20,
            "lr": 0.1,
            "lr_min": 0.0,
            "warmup_epochs": 20,
            "epochs": 30,
        },
        alpha={"lr": 6e-4, "lr_min": 6e-4},
    ),
    parts=(Dirichlet, DirichletDivergence, Widening),
    formula="q ~ Dir(elu(alpha) + 1) in steps, its mean elsewhere and in the genotype; alpha by the pathwise gradient",
    uncertain=(
        "the published code ranks operations by softmax(alpha); here it is by the mean of q, as in the paper",
        "the second network begins anew; the published code widens the weights of the first and keeps its alphas",
        "alpha is regularised by weight decay 1e-3, the code's default; `dirichlet-kl`, its other choice, sums 1e-3 KL "
        "over 28 edges, which is a weight of 0.028 here",
        "scores between epochs use the mean of q; the published code draws there too",
    ),
)
