"""The learning rate and the drop-path of a training, epoch by epoch. Torch-free."""

from __future__ import annotations

import math

from ..settings.retrain_settings import RetrainConfig

#: Epochs at the end that PC-DARTS' linear schedule spends on a second, flatter line.
LINEAR_TAIL = 5


def learning_rate(config: RetrainConfig, epoch: int) -> float:
    """Return the learning rate of an epoch (from 0).

    In the warm-up it is lr * (epoch + 1) / warmup_epochs. After the warm-up it follows the schedule. `cosine` falls to
    `lr_min` over the epochs that remain. `step` is lr * step_decay^(epochs since the warm-up), never below `lr_min`.
    `linear` is the schedule of PC-DARTS: it falls on a straight line from `lr`, which reaches `lr_min` five epochs
    before the end. In the last five epochs it falls from one step of that line above `lr_min` to a fifth of a step.
    """
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1) / config.warmup_epochs
    done, total = epoch - config.warmup_epochs, config.epochs - config.warmup_epochs
    if config.schedule == "step":
        return max(config.lr_min, config.lr * config.step_decay**done)
    if config.schedule == "cosine":
        factor = (1 + math.cos(math.pi * done / total)) / 2
    else:
        factor = _linear(epoch, config.epochs)
    return config.lr_min + (config.lr - config.lr_min) * factor


def _linear(epoch: int, epochs: int) -> float:
    """Return the factor of PC-DARTS' linear schedule. A training of five epochs or fewer has only the second line."""
    line = epochs - LINEAR_TAIL
    if line <= 0:
        return (epochs - epoch) / epochs
    if epochs - epoch > LINEAR_TAIL:
        return (line - epoch) / line
    return (epochs - epoch) / (LINEAR_TAIL * line)


def drop_path_probability(config: RetrainConfig, epoch: int) -> float:
    """Return the probability of drop-path in an epoch (from 0): drop_path * epoch / epochs (DARTS)."""
    return config.drop_path * epoch / config.epochs
