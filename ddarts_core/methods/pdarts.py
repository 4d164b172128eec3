"""P-DARTS: three networks, each deeper and with fewer operations per edge than the one before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ..ground.validation import Strict
from . import darts
from .common import networks
from .method import Method
from .parts import Edge, Plan, Progress, Stage

if TYPE_CHECKING:
    from torch import nn

    from ..settings.config import ExperimentConfig


class SkipDropout(Edge):
    """Dropout on skip connections of stride 1, whose probability falls while a network is searched (P-DARTS 3.3)."""

    name = "skip-dropout"
    summary = "dropout behind skip connections, less of it as the search goes on (P-DARTS)"

    class Options(Strict):
        """Settings of the dropout."""

        skip_dropout: float = Field(0.1, ge=0, lt=1, description="probability at the start of a network's search")

    def build(self, names: Sequence[str], channels: int, stride: int) -> nn.Module:
        """The mixed operation with `skip_dropout.DroppedIdentity` for identities."""
        from ..supernets.skip_dropout import dropped

        return dropped(super().build(names, channels, stride))

    def begin(self, net: nn.Module, progress: Progress) -> None:
        """Set the probability of the dropout in epoch e of the E epochs of a network.

        In the warm-up it is p (E - e - 1) / E, and then p exp(-0.2 (e - warm-up)), with the number of epochs of the
        warm-up. p is the option `skip_dropout`.
        """
        from ..supernets.skip_dropout import set_dropout

        factor = (progress.epochs - progress.epoch - 1) / progress.epochs
        if progress.epoch > progress.stage_epoch:
            factor = math.exp(-0.2 * progress.stage_epoch)
        set_dropout(net, self.options.skip_dropout * factor, progress)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """What a pass drops is drawn once, so no pass may be repeated."""
        if config.search.checkpoint_cells:
            return (
                f"search.checkpoint_cells computes a pass twice, and search.edge {cls.name} draws other numbers the "
                "second time: set search.checkpoint_cells to false"
            )
        if config.ablation.loss != "none":
            return f"search.edge {cls.name} draws other numbers in every ablated network: set ablation.loss to none"
        return None


class Progressive(Plan):
    """Networks one after the other; each edge keeps its best operations, all else begins anew (P-DARTS 3.2)."""

    name = "progressive"
    summary = "networks that grow deeper while their edges keep fewer operations (P-DARTS)"

    class Options(Strict):
        """Settings of the networks."""

        added_cells: tuple[int, ...] = Field((0, 6, 12), min_length=1, description="cells beyond search.num_cells")
        kept_operations: tuple[int, ...] = Field(
            (5, 3), description="operations per edge of all networks but the first"
        )
        skip_dropouts: tuple[float, ...] = Field((0.1, 0.4, 0.7), description="search.options.skip_dropout of each")

    def stages(self) -> tuple[Stage, ...]:
        """Warm-up and search of each network; search.warmup_epochs and search.epochs are shared out evenly."""
        settings = []
        for added, dropout in zip(self.options.added_cells, self.options.skip_dropouts, strict=True):
            search: dict[str, Any] = {"num_cells": self.search.num_cells + added}
            if self.search.edge == SkipDropout.name:
                search["options"] = {"skip_dropout": dropout}
            settings.append({"search": search})
        return networks(self.search, settings, self.options.kept_operations, restart=True)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Groups of cells must be the same in every network, and every network needs an epoch and its settings."""
        search = config.search
        options = cls(search).options
        number = len(options.added_cells)
        if search.sharing != "normal_reduce" or search.reductions is not None:
            return f"search.stages {cls.name} needs two shared cells: use sharing normal_reduce and no reductions"
        if len(options.kept_operations) != number - 1 or len(options.skip_dropouts) != number:
            return f"added_cells names {number} networks: give {number} skip_dropouts and {number - 1} kept_operations"
        if search.epochs < number:
            return f"search.epochs {search.epochs} must be at least {number}, one for each network"
        return None


METHOD = Method(
    "DARTS on three networks that grow deeper while edges keep 8, 5 and 3 operations; at most two skip connections",
    "P-DARTS (Chen et al. 2019), sections 3.2, 3.3",
    darts.settings(
        search={
            "edge": SkipDropout.name,
            "stages": Progressive.name,
            "options": {"added_cells": [0, 6, 12], "kept_operations": [5, 3], "skip_dropouts": [0.1, 0.4, 0.7]},
            "num_cells": 5,
            "batch_size": 96,
            "lr_min": 0.0,
            "warmup_epochs": 30,
            "epochs": 45,
        },
        alpha={"lr": 6e-4, "lr_min": 6e-4, "grad_clip": 5.0},
        discretise={"max_skips": 2},
        retrain={"num_cells": 20},
    ),
    parts=(SkipDropout, Progressive),
    formula="networks of 5, 11, 17 cells; each edge keeps its 5, then 3 largest softmax(alpha); at most 2 skips",
    uncertain=(
        "dropout 0.1, 0.4, 0.7 is the published code's README; its default is 0, the paper has 0.0, 0.4, 0.7",
        "the width stays 16 in all networks; the authors mention 28 and 40 for CIFAR-100",
    ),
)
