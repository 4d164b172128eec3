"""The losses of the paper as pure functions, and their gradients in closed form.

Notation: G groups of alphas (cells, unless cells share alphas); M_i marginal contribution of group i (negative when the
group helps); m = mean M; g_i = d L_CE(C) / d alpha_i; H_i = sum over j != i of d L_CE(C without C_j) / d alpha_i.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..settings.search_settings import AblationLoss


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


def denominator(mean: Tensor, eps: float) -> Tensor:
    """|mean M| clamped from below: eq. 7 divides by the mean, which may be 0 or of either sign."""
    return mean.abs().clamp_min(eps)


def average_where_missing(values: Tensor, mean: Tensor | None = None) -> Tensor:
    """Values with NaN replaced by a mean, or by the mean of the others."""
    return torch.where(values.isnan(), values.nanmean() if mean is None else mean, values)


def ablation(marginal: Tensor, kind: AblationLoss, eps: float, scale: Tensor | None = None) -> Tensor:
    """Ablation loss of each group (eq. 7), [groups].

    `monitor` and `paper`: (M_i - m) / m as printed, 0 if m = 0. `relative`: (M_i - m) / sqrt(m^2 + eps^2). The others:
    (M_i - m) / max(|m|, eps), whose sign does not flip with that of m. A group that was not measured (NaN) counts as
    average: its loss is 0.

    Args:
        marginal: M, [groups].
        kind: name of the loss.
        eps: smallest denominator.
        scale: what stands for m; None is the mean of `marginal`.
    """
    mean = marginal.nanmean() if scale is None else scale
    marginal = average_where_missing(marginal, mean)
    if kind == "none":
        return torch.zeros_like(marginal)
    if kind in ("monitor", "paper"):
        safe = torch.where(mean == 0, torch.ones_like(mean), mean)
        return torch.where(mean == 0, torch.zeros_like(marginal), (marginal - mean) / safe)
    if kind == "relative":
        return (marginal - mean) / (mean.square() + eps**2).sqrt()
    return (marginal - mean) / denominator(mean, eps)


def total(cross_entropy: Tensor, regularisers: Tensor, ablation_loss: Tensor, w_ab: float) -> Tensor:
    """Total loss of each group (eq. 4, 8): L_CE + sum of w R + w_AB L_AB; R is L_01 there; [groups]."""
    return cross_entropy + regularisers + w_ab * ablation_loss


def needs_ablated_gradient(kind: AblationLoss) -> bool:
    """Whether the gradient of the loss contains H, so that the ablated networks must be differentiated."""
    return kind in ("centered", "relative", "paper")


def ablation_gradient(
    kind: AblationLoss,
    marginal: Tensor,
    g: Tensor,
    h: Tensor | None,
    eps: float,
    scale: Tensor | None = None,
) -> Tensor:
    """d L_AB^i / d alpha_i for every group, shape of `g`, whose first axis is the groups.

    With r_i = M_i / m and n groups:
    - none, monitor: 0 (the loss is only logged; this is what the published code computes).
    - centered: H_i / (n D), D = max(|m|, eps) held constant; g_i cancels.
    - relative: derivative of (M_i - m) / sqrt(m^2 + eps^2), the denominator included.
    - paper: ((1 - r_i) g_i + r_i / n H_i) / m, the derivative of eq. 7 as printed; 0 where m = 0.
    - rescale (experimental): tanh(L_AB^i) g_i, so that the total is (1 + w_AB tanh L_AB^i) g_i.
    - credit (experimental): (|M_i| / max(mean |M|, eps) - 1) g_i: cells that matter more move more.

    Args:
        kind: name of the loss.
        marginal: M, [groups]; NaN where it was not measured, which counts as average.
        g: gradients of the full network's cross entropy.
        h: sums of gradients of the ablated networks' cross entropy; only where `needs_ablated_gradient`.
        eps: smallest denominator.
        scale: what stands for m (a running mean when cells are sampled); None is the mean of `marginal`.
    """
    n = len(g)
    mean = marginal.nanmean() if scale is None else scale
    if kind in ("none", "monitor"):
        return torch.zeros_like(g)
    if kind == "rescale":
        return per_group(ablation(marginal, kind, eps, scale).tanh(), g) * g
    if kind == "credit":
        sizes = average_where_missing(marginal.abs())
        return per_group(sizes / sizes.mean().clamp_min(eps) - 1, g) * g
    assert h is not None
    marginal = average_where_missing(marginal, mean)
    if kind == "centered":
        return h / (n * denominator(mean, eps))
    if kind == "relative":
        root = (mean.square() + eps**2).sqrt()
        own = per_group((marginal - mean) * mean / root.square(), g)
        return (h / n - own * (g - h / n)) / root
    divisor = torch.where(mean == 0, torch.ones_like(mean), mean)
    ratio = per_group(marginal / divisor, g)
    return torch.where(mean == 0, torch.zeros_like(g), ((1 - ratio) * g + ratio / n * h) / divisor)


def per_group(values: Tensor, like: Tensor) -> Tensor:
    """One value per group [groups], shaped to multiply a tensor whose first axis is the groups."""
    return values.view(-1, *[1] * (like.dim() - 1))
