"""Builds the detector of a genotype: network, feature maps, pyramid and heads, with or without trained weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..exports.export import Blueprint, read_safetensors
from ..genotypes.derive import DEPTH, arrange
from ..genotypes.genotype import Genotype
from ..ground.errors import UserError
from ..networks.network import Network
from ..settings.retrain_settings import RetrainConfig
from .backbone import FeatureMaps, Pyramid
from .detectors import mask_rcnn, retinanet
from .settings import Config, TransferConfig, TransferNetwork
from .taps import form_of

#: Statistics of ImageNet, by which images are normalised that no weights come with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_detector(
    config: TransferConfig,
    genotype: Genotype,
    num_classes: int,
    weights: Network | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> nn.Module:
    """Build the detector that a task trains.

    Its weights are drawn from torch's global generator, except the backbone's if trained weights are given.

    Args:
        config: the settings of the training.
        genotype: the genotype of the network.
        num_classes: how many classes there are, without the background.
        weights: a trained network of the same cells and width, in one of the two forms for large images. None: the
            backbone begins with random weights.
        mean: the mean of each channel by which images are normalised, of pixels in 0..1.
        std: the standard deviation of each channel.

    Raises:
        UserError: the network cannot be built, has no output at a stride of the pyramid, or the weights do not fit.
    """
    network = build_network(config.network, genotype)
    if weights is not None:
        _fill(network, weights)
    elif config.network.frozen_statistics or config.network.frozen_stages:
        raise UserError(
            f"recipe {config.recipe} freezes statistics or stages of trained weights, and there are none: give "
            "--weights, or --set network.frozen_statistics=false --set network.frozen_stages=0"
        )
    settings = config.network
    body = FeatureMaps(
        network,
        form_of(network.genotype, settings.form),
        frozen_stages=settings.frozen_stages,
        frozen_statistics=settings.frozen_statistics,
    )
    widths = [tap.channels for tap in body.taps]
    if config.task == "coco-detection":
        pyramid = Pyramid(body, widths, settings.pyramid, settings.p6, 1)
        detector: nn.Module = retinanet(pyramid, num_classes, config, mean, std)
    else:
        pyramid = Pyramid(body, widths, settings.pyramid, "pool")
        detector = mask_rcnn(pyramid, num_classes + 1, config, mean, std)
    return detector


def body_of(detector: nn.Module) -> FeatureMaps:
    """Return the backbone below the pyramid of a detector that `build_detector` built."""
    pyramid = detector.backbone
    assert isinstance(pyramid, Pyramid) and isinstance(pyramid.body, FeatureMaps)
    return pyramid.body


def build_network(settings: TransferNetwork, genotype: Genotype) -> Network:
    """Build the network that these settings make of a genotype. Nothing reads its classifier."""
    depth = settings.num_cells
    if depth is None and genotype.layout == "normal_reduce":
        depth = DEPTH["imagenet"]
    whole = arrange(genotype, depth, settings.reductions, settings.derive_order, settings.on_dead_cell)
    return Network(whole, settings.channels, 1, form=form_of(whole, settings.form))


def _fill(network: Network, weights: Network) -> None:
    """Copy the weights of the stem and of the cells into `network`.

    Raises:
        UserError: the weights are those of other cells, or do not fit.
    """
    if network.genotype != weights.genotype:
        raise UserError("the weights are those of other cells than the network of these settings has")
    for name in ("stem", "cells"):
        try:
            getattr(network, name).load_state_dict(getattr(weights, name).state_dict())
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"the weights do not fit the network of these settings: {reason}") from error


def read_weights(argument: Path, genotype: Genotype) -> tuple[Network, Blueprint]:
    """Read the trained network in a folder of `ddarts export`, or in the file `weights.safetensors` of such a folder.

    Args:
        argument: the folder or the file.
        genotype: the genotype that the network must have.

    Returns:
        The network, and its blueprint.

    Raises:
        UserError: there is no such file, or its network has no cells, has another genotype, has the form for small
            images, or is not for colour images.
    """
    file = _file(argument)
    if not file.is_file():
        raise UserError(f"--weights {argument}: there is no file {file}; ddarts export writes it beside a genotype")
    network, blueprint = read_safetensors(file)
    if not isinstance(network, Network):
        raise UserError(f"--weights {argument} are of a network that has no cells")
    if blueprint.genotype.hash != genotype.hash:
        raise UserError(
            f"--weights {argument} are of the genotype {blueprint.genotype.hash}, and the given one is {genotype.hash}"
        )
    if blueprint.config.form == "cifar":
        raise UserError(
            f"--weights {argument} are of a network for small images (form cifar), which has no feature maps at "
            "strides 8 to 32: train one with ddarts retrain --set retrain.form=imagenet"
        )
    if blueprint.info.channels != 3:
        raise UserError(f"--weights {argument} are of images with {blueprint.info.channels} channels, and 3 are needed")
    return network, blueprint


def with_weights(config: TransferConfig, blueprint: Blueprint, argument: Path) -> TransferConfig:
    """Return the settings with the depth and the width of trained weights, and with the hash of their file.

    Args:
        config: the settings of the training.
        blueprint: the blueprint of the network that has the weights.
        argument: the file of the weights, or its folder.
    """
    digest = hashlib.sha256(_file(argument).read_bytes()).hexdigest()[:12]
    return with_shape(config, blueprint.config).model_copy(update={"weights": digest})


def with_shape(config: Config, trained: RetrainConfig) -> Config:
    """Return the settings with the depth and the width of a network that was trained with the settings `trained`."""
    taken = {
        "channels": trained.channels,
        "num_cells": trained.num_cells,
        "reductions": trained.reductions,
        "derive_order": trained.derive_order,
        "on_dead_cell": trained.on_dead_cell,
    }
    return config.model_copy(update={"network": config.network.model_copy(update=taken)})


def _file(argument: Path) -> Path:
    return argument / "weights.safetensors" if argument.is_dir() else argument
