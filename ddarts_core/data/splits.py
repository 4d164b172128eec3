"""The training images are dealt into images that train and images that score, without leaks (section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..datasets.stratified import stratified_order
from ..ground.errors import UserError
from ..settings.data_settings import DataConfig
from ..tensors.seeding import stream_seed
from .images import Images
from .sets import data_info


@dataclass(frozen=True)
class Splits:
    """Disjoint shares of the training images of a search.

    Attributes:
        weights: the images that train the weights.
        alphas: the images that train the alphas.
        held_out: the images that train nothing and give the score.
    """

    weights: Images
    alphas: Images
    held_out: Images


def split(train: Images, config: DataConfig, seed: int) -> Splits:
    """Deal the training images to weights, alphas and held_out, in the shares that `data.split` gives.

    If the shares sum to less than 1, the rest of the images is unused. The splits are disjoint and stratified, and each
    keeps the order of the images. They follow from the labels and the seed alone, but copies of a picture that are
    known (`Images.pictures`) are in one split.

    Args:
        train: the training images.
        config: the settings of the data.
        seed: the seed of the experiment. `data.split.seed` replaces it if it is given.

    Raises:
        UserError: a split would be empty or lack a class.
    """
    shares = {"weights": config.split.weights, "alphas": config.split.alphas, "held_out": config.split.held_out}
    own = seed if config.split.seed is None else config.split.seed
    return Splits(**_deal(train, shares, stream_seed(own, "split"), "data.split", lambda: data_info(config).classes))


def hold_out(train: Images, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Images, Images]:
    """Deal the images of a training from scratch into (training, validation), stratified as `split` does it.

    Args:
        train: the images.
        fraction: the share of the images that is for validation.
        seed: the seed that decides which image goes where.
        classes: the names of the classes in label order. A message names a class that has too few images.

    Raises:
        UserError: one of the two parts would be empty or lack a class.
    """
    shares = {"training": 1 - fraction, "validation": fraction}
    parts = _deal(
        train, shares, stream_seed(seed, "hold_out"), "retrain.validation_fraction: share of", lambda: classes
    )
    return parts["training"], parts["validation"]


def _deal(
    train: Images, shares: Mapping[str, float], seed: int, setting: str, classes: Callable[[], Sequence[str]]
) -> dict[str, Images]:
    order = stratified_order(train.labels.cpu().numpy(), seed)
    part_of = np.full(len(order), -1)
    total = 0.0
    for number, share in enumerate(shares.values()):
        start, total = total, total + share
        part_of[order[round(start * len(order)) : round(total * len(order))]] = number
    if train.pictures is not None:  # copies go where the first image of their picture goes
        _, first, picture = np.unique(train.pictures.cpu().numpy(), return_index=True, return_inverse=True)
        part_of = part_of[first[picture]]
    parts: dict[str, Images] = {}
    for number, (name, share) in enumerate(shares.items()):
        parts[name] = part = train.subset(torch.from_numpy(np.flatnonzero(part_of == number)))
        absent = np.setdiff1d(train.labels.cpu().numpy(), part.labels.cpu().numpy())
        if len(absent):
            called = dict(enumerate(classes())).get(int(absent[0]), absent[0])
            raise UserError(
                f"{setting} {name} {share:g} of {len(train)} images leaves {len(part)} images and none of class "
                f"{called}: use more images (data.num_train) or a larger share"
            )
    return parts


def check_batch(split_name: str, size: int, batch_size: int, setting: str = "search.batch_size") -> None:
    """Refuse a batch that is larger than the split from which it is drawn.

    Args:
        split_name: the name of the split, for the message.
        size: how many images the split has.
        batch_size: how many images a batch has.
        setting: the dotted path of the setting that gives `batch_size`, for the message.

    Raises:
        UserError: `batch_size` exceeds `size`.
    """
    if batch_size > size:
        raise UserError(
            f"{setting} {batch_size} exceeds the {size} images of split {split_name}: "
            f"use at most {size}, or more images (data.num_train, data.split)"
        )
