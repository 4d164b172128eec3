"""Scores of a network without any training: each costs only one batch (Abdelfattah et al. 2021).

Each score is a pure function of a network with random weights, and leaves the network as it was. A higher score is
meant to be better. A truth (`ddarts truth`) shows whether the scores say anything about trained networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

#: Added to each eigenvalue of a correlation matrix (Mellor et al. 2020, k).
SMALL = 1e-5


def naswot(network: nn.Module, images: Tensor) -> float:
    """How differently a network answers different images (Mellor et al. 2021, eq. 2): log |det K|.

    c_i is 1 for each unit of a ReLU that image i makes positive, and 0 for the others. K_ij is the number of units
    minus the Hamming distance of c_i and c_j, over all ReLUs.

    Args:
        network: any network with modules `nn.ReLU`; it normalises by the statistics of the batch.
        images: [batch, channels, height, width].
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        code = (output > 0).flatten(1).double()
        kernel.add_(code @ code.T + (1 - code) @ (1 - code).T)

    copied = copy.deepcopy(network).train()
    for module in copied.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(add)
    with torch.no_grad():
        copied(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def synflow(network: nn.Module, images: Tensor) -> float:
    """How much signal passes through the weights alone (Tanaka et al. 2020, eq. 2): log sum |w| dR / d|w|.

    R is the sum of the answers to an image of ones, of the network with the magnitudes of its weights; batch
    normalisation passes everything on as it is. The sum is taken in float64, and its logarithm keeps deep networks
    within what a float holds (the order of networks is the same).

    Args:
        network: any network.
        images: images, of which only the shape counts.
    """
    copied = copy.deepcopy(network).double().eval()
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    with torch.no_grad():
        for weight in copied.parameters():
            weight.abs_()
    one = torch.ones((1, *images.shape[1:]), dtype=torch.float64, device=images.device)
    weights = [weight for weight in copied.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(_logits(copied(one)).sum(), weights, allow_unused=True)
    terms = [(w * g).sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
    return float(torch.stack(terms).detach().sum().clamp_min(torch.finfo(torch.float64).tiny).log())


def jacobian_covariance(network: nn.Module, images: Tensor) -> float:
    """How differently a network depends on different images (Mellor et al. 2020, eq. 4): -sum log(l + k) + 1/(l + k).

    l are the eigenvalues of the correlation matrix of the rows of J, J_i being the gradient of the summed answers by
    image i.

    Args:
        network: any network; it normalises by the statistics of the batch.
        images: [batch, channels, height, width].
    """
    copied = copy.deepcopy(network).train()
    leaves = images.detach().clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(_logits(copied(leaves)).sum(), leaves)
    correlations = torch.corrcoef(jacobian.flatten(1).double())
    eigenvalues = torch.linalg.eigvalsh(correlations.nan_to_num()) + SMALL
    return float(-(eigenvalues.log() + 1 / eigenvalues).sum())


def _logits(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    return answer[0] if isinstance(answer, tuple) else answer


#: Each score by name.
SCORES: Mapping[str, Callable[[nn.Module, Tensor], float]] = MappingProxyType(
    {"naswot": naswot, "synflow": synflow, "jacobian_covariance": jacobian_covariance}
)


def scores(network: nn.Module, images: Tensor) -> dict[str, float]:
    """All these scores, by name."""
    return {name: score(network, images) for name, score in SCORES.items()}
