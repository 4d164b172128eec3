"""Shapley-NAS: alphas follow the Shapley values of the operations in the accuracy on their split, not a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..genotypes.spaces import num_edges, operations_of
from ..ground.validation import Strict
from . import darts
from .method import Method
from .parts import Plan, Stage
from .pcdarts import PartialChannels

if TYPE_CHECKING:
    from torch import Tensor

    from ..search.examination import Examination
    from ..settings.config import ExperimentConfig


class ShapleyValued(Plan):
    """Weights alone; after the warm-up alphas move by Shapley values before every epoch (Shapley-NAS eq. 7 to 9)."""

    name = "shapley"
    summary = "weights alone, alphas by Shapley values of all operations before every epoch (Shapley-NAS)"

    class Options(Strict):
        """Settings of the Shapley values."""

        value_orders: int = Field(10, ge=1, le=1000, description="orders in which the operations are removed")
        value_floor: float = Field(0.5, ge=0, lt=1, description="share of the accuracy below which an order ends")
        value_momentum: float = Field(0.8, ge=0, lt=1, description="of the standardised values over the epochs")
        value_step: float = Field(0.1, gt=0, le=10, description="factor of what they add to the alphas")

    def stages(self) -> tuple[Stage, ...]:
        """At least one epoch of warm-up: values of a network that was never trained say nothing."""
        warmup = max(1, self.search.warmup_epochs)
        rest = self.search.warmup_epochs + self.search.epochs - warmup
        return Stage("warmup", warmup), Stage("search", rest, decides=True, by_gradient=False)

    def decide(self, found: Examination) -> None:
        """s <- momentum s + (1 - momentum) z, alpha <- alpha + step s; z are the values, standardised in each group."""
        import torch

        of_orders = torch.stack([self.lost(found) for _ in range(self.options.value_orders)])
        values = of_orders.mean(0) - of_orders.std(0, correction=0)
        centred = values - values.mean((1, 2), keepdim=True)
        standardised = centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
        if "values" not in found.memory:
            noise = torch.randn(values.shape, generator=found.stream, device=values.device)
            found.memory["values"] = 1e-3 * noise
        keep = self.options.value_momentum
        found.memory["values"] = keep * found.memory["values"] + (1 - keep) * standardised
        found.parameters["alphas"] += self.options.value_step * found.memory["values"]

    def passes(self, stage: Stage, groups: int, batches: int) -> int:
        """One pass without removals and one after each removal, in every order; fewer where an order ends early."""
        players = groups * num_edges(self.search.steps) * len(operations_of(self.search.space))
        orders: int = self.options.value_orders
        return stage.epochs * orders * (players + 1)

    def lost(self, found: Examination) -> Tensor:
        """Accuracy, a fraction of 1, that each operation costs when it is removed: [groups, edges, operations].

        The operations are removed one after the other in a random order, and the accuracy is that on one batch. The
        order ends early when the accuracy is below `value_floor` times that of the whole network. Operations that are
        not removed by then cost 0.
        """
        import torch

        gates, batch = found.gates, found.batch()
        order = torch.randperm(gates.numel(), generator=found.stream, device=found.stream.device).tolist()
        left, values = gates.flatten().clone(), torch.zeros(gates.numel(), device=gates.device)
        full = before = found.worth(gates, batch)[0]
        for player in order:
            left[player] = 0
            after = found.worth(left.view_as(gates), batch)[0]
            values[player] = before - after
            before = after
            if after < self.options.value_floor * full:
                break
        return values.view_as(gates)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Values need a network that was trained."""
        if config.search.warmup_epochs + config.search.epochs < 2:
            return f"search.stages {cls.name} values a network that was trained: use search.warmup_epochs 1 or more"
        return None


METHOD = Method(
    "alphas by Shapley values of the operations in the accuracy of the supernet, sampled, with momentum",
    "Shapley-NAS (Xiao et al. 2022), eq. 7 to 9",
    darts.settings(
        search={
            "space": "S",
            "edge": PartialChannels.name,
            "stages": ShapleyValued.name,
            "options": {"channel_share": 4, "value_orders": 10, "value_floor": 0.5},
            "batch_size": 256,
            "lr": 0.1,
            "lr_min": 0.0,
            "warmup_epochs": 25,
            "epochs": 25,
        }
    ),
    parts=(ShapleyValued,),
    formula="phi = mean - std over 10 orders of the accuracy lost by an operation's removal, on the alphas' split; "
    "s <- 0.8 s + 0.2 (phi - mean) / std, alpha <- alpha + 0.1 s",
    uncertain=(
        "an order is valued on one batch of search.batch_size images; the published code takes 1024",
        "accuracies are by statistics of the batch; the published code goes from one kind to the other by epochs",
        "gradients of the alphas, which the published code counts in the norm that it clips, are not computed",
    ),
)
