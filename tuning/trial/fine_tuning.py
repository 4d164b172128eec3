"""The fine-tuning that scores a trial on another task.

The trial's network, as `retrain` left it, becomes the backbone of a detector.

Detectors are imported only where they are used: torchvision's bring torch's compiler, and the import takes as long as
that of torch itself, in the process of every trial and of every sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from ddarts_core.data.images import DataInfo
from ddarts_core.genotypes.genotype import AnyGenotype, Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.network import Network
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.retrain_settings import RetrainConfig

from ..settings.score import score_config

if TYPE_CHECKING:
    from ddarts_core.transfer.training import Transfer


def check_score(objective: str, data: Mapping[str, Any], retrain: RetrainConfig, info: DataInfo) -> None:
    """Refuse a sweep, before it begins, if no trial could be scored; with another objective there is nothing to check.

    Raises:
        UserError: the packages for scores, or the images, are missing or have a fault, or a network for the sweep's own
            images cannot take the images of the other task.
    """
    if objective != "transfer":
        return
    from ddarts_core.transfer import evaluation
    from ddarts_core.transfer.model import with_shape
    from ddarts_core.transfer.scan import score_splits

    evaluation.require()
    if info.channels != 3:
        raise UserError(
            f"tune.objective transfer: the other task has colour images, and those of data.name {info.name} have "
            f"{info.channels} channels: search on images with 3"
        )
    config = score_config(data)
    score_splits(with_shape(config, retrain), config.score_fraction)


def fine_tuning(
    data: Mapping[str, Any], trial: ExperimentConfig, genotype: AnyGenotype, network: nn.Module, info: DataInfo
) -> Transfer:
    """A fine-tuning that has not begun.

    Args:
        data: the group `transfer` of the sweep.
        trial: the settings of the trial, whose seed decides everything random.
        genotype: the genotype of the network.
        network: the network, trained on the trial's own images.
        info: the facts of these images, by whose statistics the images of the other task are normalised too.

    Raises:
        UserError: the network cannot be a backbone.
    """
    from ddarts_core.transfer.model import with_shape
    from ddarts_core.transfer.scan import score_splits
    from ddarts_core.transfer.training import Transfer

    config = with_shape(score_config(data), trial.retrain).model_copy(update={"seed": trial.seed})
    splits = score_splits(config, config.score_fraction)
    cells = Genotype.narrowed(genotype, "tune.objective transfer")
    assert isinstance(network, Network), "of cells"
    return Transfer(config, cells, splits, network, info.mean, info.std)
