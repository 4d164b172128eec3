"""Training-free scores, each against a second derivation."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.networks.network import Network
from ddarts_core.networks.training_free import SMALL, jacobian_covariance, naswot, scores, synflow


def images(number: int = 6) -> torch.Tensor:
    return torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def test_naswot_counts_units_in_which_two_images_agree() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 11), nn.ReLU(), nn.Linear(11, 7), nn.ReLU()).double()
    batch = images().double()
    first = network[:3](batch) > 0
    codes = torch.cat([first, network(batch) > 0], dim=1).numpy()
    agree = np.array([[sum(a == b) for b in codes] for a in codes], dtype=float)
    assert math.isclose(naswot(network, batch), math.log(abs(np.linalg.det(agree))), rel_tol=1e-9)


def test_synflow_of_a_linear_network_is_its_answer_once_per_layer() -> None:
    """The answer is a product of the layers' weights, so each layer's sum of w dR/dw is the answer itself."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False), nn.Linear(5, 3, bias=False))
    with torch.no_grad():
        first, second = (layer.weight.abs().double() for layer in (network[1], network[2]))
        answer = float((second @ first @ torch.ones(64, dtype=torch.float64)).sum())
    assert math.isclose(synflow(network, images()), math.log(2 * answer), rel_tol=1e-9)


def test_jacobian_covariance_by_finite_differences() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    batch = images(4).double()
    rows = []
    with torch.no_grad():
        for image in batch:
            around = image + 1e-6 * torch.cat([torch.eye(64), -torch.eye(64)]).reshape(128, 1, 8, 8).double()
            answers = network(around).sum(1)
            rows.append(((answers[:64] - answers[64:]) / 2e-6).numpy())
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(rows)) + SMALL
    expected = -float(np.sum(np.log(eigenvalues) + 1 / eigenvalues))
    assert math.isclose(jacobian_covariance(network, batch), expected, rel_tol=1e-3)


def test_scores_leave_a_network_as_it_was() -> None:
    network = Network(ZOO["ResNet18"].genotype, channels=2, num_classes=10, in_channels=1, image_size=8, auxiliary=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = scores(network, images())
    assert set(found) == {"naswot", "synflow", "jacobian_covariance"}
    assert all(math.isfinite(value) for value in found.values())
    assert found == scores(network, images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
