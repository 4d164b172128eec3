"""C-DARTS: the supernet and the network of its genotype teach each other, in cycles that build this network anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..genotypes.spaces import operations_of
from ..ground.validation import Strict
from . import darts
from .common import Standard
from .method import Method
from .parts import Beside, Parameters, Regulariser, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig


class Cycles(Standard):
    """Warm-up, then cycles: discretise, build the network, warm it up, train it with the alphas (C-DARTS)."""

    name = "cycles"
    summary = "warm-up, then cycles that build the genotype's network anew and train it with the alphas (C-DARTS)"
    has_heads = True

    class Options(Strict):
        """Settings of the network that is derived, and of its losses."""

        cycle_epochs: int = Field(1, ge=1, le=10_000, description="epochs until the network is built anew")
        derived_warmup: int = Field(1, ge=0, le=1000, description="passes of the alphas' split that warm it up")
        derived_cells: int = Field(20, ge=3, le=200, description="its cells")
        derived_lr: float = Field(0.2, gt=0, le=10, description="its learning rate, constant")
        joint_weight: float = Field(1.0, gt=0, le=100, description="a of (CE + CE) / a + a T^2 KL")
        joint_temperature: float = Field(2.0, gt=0, le=100, description="T of the same")

    def stages(self) -> tuple[Stage, ...]:
        """One stage or two, of one supernet."""
        options = self.options
        beside = Beside(
            options.cycle_epochs,
            options.derived_warmup,
            options.derived_cells,
            options.derived_lr,
            options.joint_weight,
            options.joint_temperature,
        )
        *before, last = super().stages()
        return (*before, Stage(last.phase, last.epochs, beside=beside))

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse what does not go with the network beside the supernet.

        Two shared cells make a network of any depth; heads look at whole passes, and one loss is differentiated.
        """
        search, ablation = config.search, config.ablation
        if search.sharing != "normal_reduce":
            return f"search.stages {cls.name} stacks two cells: use search.sharing normal_reduce"
        if ablation.loss != "none" or ablation.shapley_permutations:
            return f"search.stages {cls.name} has heads, which removed cells do not feed: set ablation.loss to none"
        if search.order != "first" or config.alpha.grad_mode != "clean" or search.amp in ("fp16", "bf16"):
            return (
                f"search.stages {cls.name} differentiates one loss of two networks: use search.order first, "
                "alpha.grad_mode clean and no search.amp but tf32"
            )
        return None


#: Operations whose alphas the regulariser holds small.
HELD = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")


class WeightlessL1(Regulariser):
    """Sum of |alpha| over pools and skip connections (C-DARTS, published code)."""

    name = "weightless-l1"
    summary = "sum of absolute alphas of pools and skip connections (C-DARTS)"
    summed = True

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups]."""
        held = [k for k, name in enumerate(operations_of(self.search.space)) if name in HELD]
        return parameters["alphas"][..., held].abs().sum((1, 2))

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse edges that lack operations: this term needs all operations of the space on every edge."""
        from . import PLANS

        search = config.search
        if any(stage.kept is not None for stage in PLANS[search.stages](search).stages()):
            return f"search.regularisers {cls.name} is of all operations, which search.stages {search.stages} drops"
        return None


METHOD = Method(
    "supernet and the network of its genotype teach each other, in cycles that build the network anew",
    "C-DARTS (Yu et al. 2022) and its published code",
    darts.settings(
        search={
            "stages": Cycles.name,
            "regularisers": {WeightlessL1.name: {"weight": 5.0, "schedule": "early"}},
            "options": {
                "cycle_epochs": 1,
                "derived_warmup": 1,
                "derived_cells": 20,
                "derived_lr": 0.2,
                "joint_weight": 1.0,
                "joint_temperature": 2.0,
            },
            "batch_size": 256,
            "lr": 0.2,
            "lr_min": 0.0,
            "weight_decay": 0.0,
            "warmup_epochs": 2,
            "epochs": 30,
        },
        alpha={"weight_decay": 0.0},
    ),
    parts=(Cycles, WeightlessL1),
    formula="L(alpha, w') = (CE(s) + CE(e)) / a + a T^2 mean p(e) log(p(e) / p(s)) + 5 max(0, 1 - 5 t / E) |alpha|_1, "
    "p = softmax(logits / T), s of the supernet, e of its genotype's network w', each the mean of three heads",
    uncertain=(
        "the settings are those of the authors' scripts for another library, with 32 epochs of which 2 are the warm-up",
        "their own script for CIFAR-10 has learning rates of 0.08, decay 3e-4, 32 iterations after the warm-up, and "
        "the term over two thirds of them; that for ImageNet has learning rates of 0.8 and 40 iterations",
        "the divergence is the mean over images and classes, as in the published code, whose teacher is not detached",
        "the term holds alphas of pools and skips, as the published code does; the other library's holds dilated too",
        "the published code sums the term over three stages that share their alphas; here it counts once per alpha",
        "stem and heads are not shared between the two networks; in the authors' scripts they are",
        "the learning rate of the derived network is constant, as that of the published code in effect is",
        "weights of edges (beta) and learned weights of heads, options of the published code, are not here",
    ),
)
