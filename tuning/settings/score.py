"""The group `transfer` of a sweep: how a trial's network is fine-tuned on another task, and what scores it there.

A share of the images that train scores, and never trains. The split on which `ddarts transfer` reports in the end
(`transfer.data.held_out`) is not read by a sweep. Torch-free.
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
"""Settings of `ddarts transfer` that are each trial's own."""


class ScoreConfig(TransferConfig):
    """A fine-tuning that scores a trial."""

    score_fraction: float = Field(0.2, gt=0, lt=1, description="share of the training images that scores")


def score_config(data: Mapping[str, Any], where: str = "configuration") -> ScoreConfig:
    """The settings in a sweep's `transfer`, with its recipe and an absolute folder of the data.

    Raises:
        UserError: one of them is wrong.
    """
    for name in OWN:
        if name in data:
            raise UserError(f"{where}: transfer.{name} has no place in a sweep, where it is each trial's own")
    config = resolve(data, where=f"{where}: transfer", model=ScoreConfig)
    root = Path(config.data.root).expanduser().absolute()  # a trial's process runs in a folder of its own
    return config.model_copy(update={"data": config.data.model_copy(update={"root": str(root)})})


def stored(config: ScoreConfig) -> dict[str, Any]:
    """The settings as plain data, of which `score_config` makes the same again."""
    return config.model_dump(mode="json", exclude=set(OWN))


def check_form(config: ExperimentConfig, where: str) -> None:
    """Check that a trial's network has feature maps that a detector reads.

    Raises:
        UserError: it is for small images.
    """
    if config.retrain.form == "cifar":
        raise UserError(
            f"{where}: tune.objective transfer needs a network with feature maps at strides 8 to 32, and retrain.form "
            "is cifar: set retrain.form to imagenet"
        )
