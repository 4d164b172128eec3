"""The group `transfer` of a sweep: how a trial's network is fine-tuned on another task, and what scores it there.

A share of the training images is used to score the network, and never to train it. A sweep does not read the split on
which `ddarts transfer` reports in the end (`transfer.data.held_out`). This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.transfer.settings import TransferConfig, resolve

OWN = ("seed", "weights")
"""Settings of `ddarts transfer` that each trial sets itself."""


class ScoreConfig(TransferConfig):
    """A fine-tuning that scores a trial."""

    score_fraction: float = Field(0.2, gt=0, lt=1, description="share of the training images that scores")


def score_config(data: Mapping[str, Any], where: str = "configuration") -> ScoreConfig:
    """The settings of a sweep's `transfer`, with those of its recipe, and with the data's folder as an absolute path.

    Raises:
        UserError: one of the settings is wrong.
    """
    for name in OWN:
        if name in data:
            raise UserError(f"{where}: transfer.{name} has no place in a sweep, where it is each trial's own")
    config = resolve(data, where=f"{where}: transfer", model=ScoreConfig)
    root = Path(config.data.root).expanduser().absolute()  # a trial's process runs in a folder of its own
    return config.model_copy(update={"data": config.data.model_copy(update={"root": str(root)})})


def stored(config: ScoreConfig) -> dict[str, Any]:
    """The settings as plain data, from which `score_config` makes the same settings again."""
    return config.model_dump(mode="json", exclude=set(OWN))


def check_form(config: ExperimentConfig, where: str) -> None:
    """Check that a trial's network has feature maps that a detector can read.

    Raises:
        UserError: the network is one for small images.
    """
    if config.retrain.form == "cifar":
        raise UserError(
            f"{where}: tune.objective transfer needs a network with feature maps at strides 8 to 32, and retrain.form "
            "is cifar: set retrain.form to imagenet"
        )
