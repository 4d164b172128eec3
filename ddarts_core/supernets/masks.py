"""Masks and subsampling, by which one set of weights computes every block of a space of stages (FBNetV2, section 3).

Gates of a decision are weights of its options, [options]. They sum to 1, and one of them is 1 where it is decided. All
functions are pure, and linear in the gates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def gumbel_softmax(logits: Tensor, temperature: float, uniform: Tensor | None = None) -> Tensor:
    """softmax((alpha + G) / T) over the last axis, G = -log(-log U); without U no noise is added.

    Args:
        logits: the architecture parameters alpha; minus infinity where there is no option.
        temperature: T. If it is near 0, the gate of the largest option is near 1.
        uniform: U, draws from the uniform distribution on (0, 1) in the shape of the logits; None adds no noise.
    """
    if uniform is not None:
        logits = logits - (-uniform.clamp_min(1e-30).log()).log()  # of 0 the noise would be infinite
    return (logits / temperature).softmax(-1)


def annealed(epoch: int, first: float = 5.0, factor: float = 0.956) -> float:
    """Temperature of an epoch, from 0: T = 5 * 0.956^epoch (FBNetV2, section 4.1)."""
    return first * factor**epoch


def first_channels(sizes: Sequence[int], gates: Tensor) -> Tensor:
    """Mask sum_i g_i 1_i of channels, where 1_i has ones in the first c_i channels and zeros behind them: [channels].

    Args:
        sizes: the numbers of channels c_i of the options; the mask is as wide as the largest.
        gates: the gates g_i of the options, [options].

    Example:
        >>> first_channels((1, 3), torch.tensor([0.25, 0.75])).tolist()
        [1.0, 0.75, 0.75]
    """
    width = torch.arange(max(sizes), device=gates.device)
    ones = torch.stack([(width < size).to(gates) for size in sizes])
    return gates @ ones


def centres(kernels: Sequence[int], gates: Tensor) -> Tensor:
    """Mask sum_i g_i 1_i of kernels, where 1_i has ones in the central k_i x k_i weights: [kernel, kernel].

    The mask has the size of the largest kernel.

    A convolution with weights times this mask is the sum of convolutions with the central weights, each times its gate.
    """
    largest = max(kernels)
    offset = (torch.arange(largest, device=gates.device) - largest // 2).abs()
    ones = torch.stack([(offset <= kernel // 2).to(gates) for kernel in kernels])
    return torch.einsum("k,ki,kj->ij", gates, ones, ones)


def same_width(before: Sequence[int], gates_before: Tensor, after: Sequence[int], gates_after: Tensor) -> Tensor:
    """Weight of a residual connection: sum of g_i g_j over the options of input and output that are equally wide."""
    pairs = [gates_before[i] * gates_after[j] for i, a in enumerate(before) for j, b in enumerate(after) if a == b]
    return torch.stack(pairs).sum() if pairs else gates_after.new_zeros(())


def subsampled(x: Tensor, step: int) -> Tensor:
    """Every `step`-th pixel of [batch, channels, height, width], the first one included (nearest neighbour)."""
    return x[:, :, ::step, ::step]


def interspersed(x: Tensor, step: int, size: int) -> Tensor:
    """The inverse of `subsampled`: pixels `step` apart on `size` x `size` pixels, zeros between them."""
    if step == 1:
        return x
    batch, channels, height, width = x.shape
    apart = x.new_zeros(batch, channels, height, step, width, step)
    apart[:, :, :, 0, :, 0] = x
    whole = apart.flatten(4, 5).flatten(2, 3)
    missing = (0, max(0, size - whole.shape[3]), 0, max(0, size - whole.shape[2]))
    return F.pad(whole, missing)[:, :, :size, :size]
