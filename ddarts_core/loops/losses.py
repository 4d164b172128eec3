"""Losses of the paper as pure functions, and their gradients in closed form; `methods.ablation` has those of eq. 7."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weight of the images of each class, n / (classes * n_c), float32 [classes] (scikit-learn's `balanced`).

    Counted over the classes that have images; the others weigh 0. The mean over the n images `labels` is 1.
    """
    counts = labels.bincount(minlength=num_classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp_min(1)), 0.0).float()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Mean over the images of weight of the class * cross entropy with smoothed labels.

    Divided by the number of images, not by the sum of their weights as torch's `cross_entropy(weight=...)` is: with
    `balanced_weights` the mean over a random batch is then an unbiased estimate of the mean over the classes of their
    mean losses, and means of shares of a batch add up to that of the batch. Torch's quotient is neither: a rare image
    that meets many others is divided by its own weight.

    Args:
        logits: [images, classes].
        labels: int64 [images].
        weights: [classes].
        smoothing: share of the target that all classes divide.
    """
    each = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return (weights[labels] * each).mean()


def zero_one(alphas: Tensor) -> Tensor:
    """Zero-one loss of each group (eq. 3): -mean (sigma(alpha) - 1/2)^2 over all but the first axis; [groups]."""
    return -(alphas.sigmoid() - 0.5).square().flatten(1).mean(1)


def zero_one_gradient(alphas: Tensor) -> Tensor:
    """d zero_one_i / d alpha_i (eq. 3), shape of `alphas`: -2/|alpha| (sigma - 1/2) sigma (1 - sigma), 0 at alpha 0."""
    sigma = alphas.sigmoid()
    return -2 / alphas[0].numel() * (sigma - 0.5) * sigma * (1 - sigma)


def contributions(full: Tensor, ablated: Tensor) -> Tensor:
    """Marginal contributions (eq. 6): L_CE(C) - L_CE(C without C_i); `full` scalar, `ablated` [groups]."""
    return full - ablated


def total(cross_entropy: Tensor, regularisers: Tensor, ablation_loss: Tensor, w_ab: float) -> Tensor:
    """Total loss of each group (eq. 4, 8): L_CE + sum of w R + w_AB L_AB; R is L_01 there; [groups]."""
    return cross_entropy + regularisers + w_ab * ablation_loss


def per_group(values: Tensor, like: Tensor) -> Tensor:
    """One value per group [groups], shaped to multiply a tensor whose first axis is the groups."""
    return values.view(-1, *[1] * (like.dim() - 1))
