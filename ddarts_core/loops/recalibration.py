"""Batch normalisation is recalibrated: it gets statistics that belong to the weights as they are now.

Running statistics are an average over training steps, in which each step weighs momentum * (1 - momentum)^age (torch:
momentum 0.1). So they lag behind the weights, and after few steps they still hold much of their initial values (mean 0,
variance 1). A network that is scored with them may look far worse than it is, the more so the faster it learns. Here
they are replaced, while a score is computed, by averages over batches of training images that pass through the network
while the weights stand still.

This is "precise BN" (Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3), also called BN recalibration
or re-estimation (for supernets: Yu and Huang 2019, "Universally slimmable networks", section 3.3; for averaged weights:
Izmailov et al. 2018, `torch.optim.swa_utils.update_bn`). As in `update_bn`, the averages are those of the batches'
means and of their unbiased variances. Running statistics approach the same averages if the weights stand still.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def recalibrated(network: nn.Module, passes: Iterable[object]) -> Iterator[int]:
    """Within the block, the running statistics are averages over `passes`. Afterwards they are what they were before.

    Args:
        network: the network, whose batch normalisations may have any form that moves running statistics by its
            `momentum`.
        passes: an iterable that makes one forward pass of a batch through the network for each item, in training mode
            and without gradients.

    Yields:
        How many passes were made. If there was none, the statistics stay as they are.
    """
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.running_mean is not None]
    statistics = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    touched = [*statistics, *(norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None)]
    before = [buffer.clone() for buffer in touched]
    momenta = [norm.momentum for norm in norms]
    number = 0
    try:
        for norm in norms:
            norm.momentum = 1.0  # a pass leaves its own batch's statistics; one value, as compiled forms know it
        means: list[torch.Tensor] = []
        for number, _ in enumerate(passes, 1):
            if number == 1:
                means = [statistic.clone() for statistic in statistics]
            else:
                torch._foreach_lerp_(means, statistics, 1 / number)
        if number:
            torch._foreach_copy_(statistics, means)
        yield number
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        torch._foreach_copy_(touched, before)


def initial_share(steps: int, momentum: float = 0.1, ema_decay: float = 0.0) -> float:
    """Return the share of their initial values that running statistics hold after so many training steps.

    The share is (1 - momentum)^steps. With averaged weights (`ema_decay` above 0) the statistics are averaged too, from
    the same initial values, and the share is a_t = d_t a_(t-1) + (1 - d_t) (1 - momentum)^t
    with d_t = min(ema_decay, t / (t + 9)), as in `retrain`.

    Example:
        >>> round(initial_share(8), 2)
        0.43
    """
    share = averaged = 1.0
    for step in range(1, steps + 1):
        share *= 1 - momentum
        decay = min(ema_decay, step / (step + 9))
        averaged = decay * averaged + (1 - decay) * share
        if averaged < 1e-12:
            break
    return averaged
