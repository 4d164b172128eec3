"""Learning rate and drop-path of a training, epoch by epoch. Torch-free."""

from __future__ import annotations

import math

from ..settings.retrain_settings import RetrainConfig

#: Epochs at the end that PC-DARTS' linear schedule spends on a second, flatter line.
LINEAR_TAIL = 5


def learning_rate(config: RetrainConfig, epoch: int) -> float:
    """Learning rate of an epoch (from 0).

    Warm-up: lr (epoch + 1) / warmup_epochs. Then `cosine` falls to `lr_min` over the epochs that remain; `step` is
    lr * step_decay^(epochs since warm-up), never below `lr_min`; `linear` is PC-DARTS': on the line from `lr` that
    reaches `lr_min` five epochs before the end, and for the last five from one step of that line to a fifth of it.
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
    """Factor of PC-DARTS' linear schedule; trainings of five epochs or fewer are all tail."""
    line = epochs - LINEAR_TAIL
    if line <= 0:
        return (epochs - epoch) / epochs
    if epochs - epoch > LINEAR_TAIL:
        return (line - epoch) / line
    return (epochs - epoch) / (LINEAR_TAIL * line)


def drop_path_probability(config: RetrainConfig, epoch: int) -> float:
    """Probability of drop-path in an epoch: drop_path * epoch / epochs (DARTS)."""
    return config.drop_path * epoch / config.epochs
