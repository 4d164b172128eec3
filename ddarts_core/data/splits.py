"""Training images dealt to those that train and those that score, without leaks (section 5)."""

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
    """Disjoint shares of the training images: for the weights, for the alphas, and for the score of a search."""

    weights: Images
    alphas: Images
    held_out: Images


def split(train: Images, config: DataConfig, seed: int) -> Splits:
    """Deal the training images to weights, alphas and held_out by `data.split`; a share that sums below 1 is unused.

    Disjoint, stratified, a function of the labels and the seed alone, that of `data.split.seed` if there is one; each
    split keeps the order of the images.

    Raises:
        UserError: a split would be empty or lack a class.
    """
    shares = {"weights": config.split.weights, "alphas": config.split.alphas, "held_out": config.split.held_out}
    own = seed if config.split.seed is None else config.split.seed
    return Splits(**_deal(train, shares, stream_seed(own, "split"), "data.split", lambda: data_info(config).classes))


def hold_out(train: Images, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Images, Images]:
    """Deal the training images of a retraining to (training, validation), stratified as `split` does.

    Args:
        train: the images.
        fraction: of them that is for validation.
        seed: of the deal.
        classes: their names in label order, to name one that has too few images.

    Raises:
        UserError: one of the two would be empty or lack a class.
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
    parts: dict[str, Images] = {}
    total = 0.0
    for name, share in shares.items():
        start, total = total, total + share
        chosen = np.sort(order[round(start * len(order)) : round(total * len(order))])
        parts[name] = part = train.subset(torch.from_numpy(chosen))
        absent = np.setdiff1d(train.labels.cpu().numpy(), part.labels.cpu().numpy())
        if len(absent):
            called = dict(enumerate(classes())).get(int(absent[0]), absent[0])
            raise UserError(
                f"{setting} {name} {share:g} of {len(train)} images leaves {len(part)} images and none of class "
                f"{called}: use more images (data.num_train) or a larger share"
            )
    return parts


def check_batch(split_name: str, size: int, batch_size: int, setting: str = "search.batch_size") -> None:
    """Refuse a batch that is larger than the split it is drawn from.

    Raises:
        UserError: `batch_size` exceeds `size`.
    """
    if batch_size > size:
        raise UserError(
            f"{setting} {batch_size} exceeds the {size} images of split {split_name}: "
            f"use at most {size}, or more images (data.num_train, data.split)"
        )
