"""Losses of the paper as pure functions, and their gradients in closed form.

The losses of eq. 7 are in `methods.ablation`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return the weight of the images of each class c, n / (classes * n_c) (scikit-learn's `balanced`).

    n is the number of images, and n_c of them are of class c. Only classes that have images are counted; the others
    have weight 0. The mean weight of the n images is 1.

    Args:
        labels: the class of each image, int64 [n].
        num_classes: how many classes the data set has.

    Returns:
        The weights, float32 [num_classes].
    """
    counts = labels.bincount(minlength=num_classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp_min(1)), 0.0).float()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Return the mean over the images of (weight of the image's class) * (cross entropy with smoothed labels).

    The sum is divided by the number of images. torch's `cross_entropy(weight=...)` divides it by the sum of the weights
    instead. With the number of images and `balanced_weights`, the mean over a random batch is an unbiased estimate of
    the mean of the classes' mean losses, and the means over parts of a batch add up to the mean over the batch. torch's
    quotient has neither property: a rare image among many others is divided by its own weight.

    Args:
        logits: [images, classes].
        labels: the class of each image, int64 [images].
        weights: the weight of each class, [classes].
        smoothing: the share of the target that is divided among all classes.
    """
    each = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return (weights[labels] * each).mean()


def zero_one(alphas: Tensor) -> Tensor:
    """Return the zero-one loss of each group [groups] (eq. 3): -mean (sigma(alpha) - 1/2)^2 over a group's alphas.

    Args:
        alphas: [groups, ...].
    """
    return -(alphas.sigmoid() - 0.5).square().flatten(1).mean(1)


def zero_one_gradient(alphas: Tensor) -> Tensor:
    """Return d zero_one_i / d alpha_i (eq. 3) in the shape of `alphas` [groups, ...].

    It is -2/|alpha| (sigma - 1/2) sigma (1 - sigma), which is 0 where alpha is 0; |alpha| is the number of alphas of a
    group.
    """
    sigma = alphas.sigmoid()
    return -2 / alphas[0].numel() * (sigma - 0.5) * sigma * (1 - sigma)


def contributions(full: Tensor, ablated: Tensor) -> Tensor:
    """Return the marginal contribution of each group [groups] (eq. 6): L_CE(C) - L_CE(C without C_i).

    Args:
        full: the cross entropy L_CE(C) of the whole network, a scalar.
        ablated: the cross entropy L_CE(C without C_i) for each group, [groups].
    """
    return full - ablated


def total(cross_entropy: Tensor, regularisers: Tensor, ablation_loss: Tensor, w_ab: float) -> Tensor:
    """Return the total loss of each group [groups] (eq. 4, 8): L_CE + sum of w R + w_AB L_AB.

    In the paper the only regulariser R is the zero-one loss L_01.

    Args:
        cross_entropy: L_CE.
        regularisers: the sum of w R of each group, [groups].
        ablation_loss: L_AB of each group, [groups].
        w_ab: w_AB.
    """
    return cross_entropy + regularisers + w_ab * ablation_loss


def per_group(values: Tensor, like: Tensor) -> Tensor:
    """Shape values [groups] so that they multiply the tensor `like`, whose first axis is the groups."""
    return values.view(-1, *[1] * (like.dim() - 1))
