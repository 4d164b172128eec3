"""The supernet and the ablated networks against the textbook form."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ddarts_core.data.images import DataInfo
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.operations import BatchNorm
from ddarts_core.settings.search_settings import SearchConfig
from ddarts_core.supernets.contributions import ablated_losses, ablated_losses_and_gradient, random_gates
from ddarts_core.supernets.supernet import Supernet, batch_statistics, frozen
from ddarts_core.tensors.optimisers import SGD
from tests.core import textbook

CIFAR = DataInfo("cifar10", num_classes=10, channels=3, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, 1_930_618),
        ({"channels": 32}, 6_800_618),
        ({"sharing": "normal_reduce"}, 1_930_618),
        ({"space": "S_none"}, 1_930_618),
    ],
)
def test_published_weight_counts(settings, weights):
    with torch.device("meta"):
        net = Supernet(SearchConfig(**settings), CIFAR)
    assert sum(weight.numel() for weight in net.parameters()) == weights


@pytest.mark.parametrize("space", ["S", "S_o", "S_none"])
@pytest.mark.parametrize("sharing", ["own", "normal_reduce"])
def test_forward_is_the_textbook_form(float64_net, space, sharing):
    net, alphas, x, _ = float64_net(space=space, sharing=sharing, image_channels=1, batch=3)
    gates = alphas.sigmoid()
    expected = textbook.forward(net, x, [gates[group] for group in net.group_of])
    assert torch.allclose(net(x, gates), expected, atol=1e-12)


def _ablated_textbook(net, gates, x, y, group, removal, noise):
    stand_in = {"identity": textbook.identity, "zero": textbook.zero}
    replaced = {}
    for k, of in enumerate(net.group_of):
        if of == group:
            if removal in stand_in:
                replaced[k] = stand_in[removal]
            elif removal == "uniform":
                replaced[k] = textbook.with_gates(torch.full_like(gates[group], 0.5))
            else:
                replaced[k] = textbook.with_gates(noise[k])
    return F.cross_entropy(textbook.forward(net, x, [gates[g] for g in net.group_of], replaced), y)


@pytest.mark.parametrize("removal", ["identity", "zero", "uniform", "random"])
@pytest.mark.parametrize("sharing", ["own", "normal_reduce"])
def test_ablated_losses_and_their_gradient(float64_net, removal, sharing):
    net, alphas, x, y = float64_net(sharing=sharing, num_cells=5)
    groups = list(range(net.num_groups))
    stream = torch.Generator().manual_seed(3)
    draws = 2 * len(groups) if removal == "random" else 0
    alphas.requires_grad_()
    with batch_statistics(net), frozen(net):
        gates = alphas.sigmoid()
        noise = [random_gates(net, gates.detach(), stream) for _ in range(draws)]
        outputs = net.outputs(x, gates)
        values = ablated_losses(net, outputs, gates, y, groups, removal, noise)
        found, gradient = ablated_losses_and_gradient(net, outputs, gates, y, groups, removal, noise)
        (h,) = torch.autograd.grad(gates, alphas, gradient)
        literal_gates = alphas.sigmoid()
        literal = torch.stack(
            [
                sum(
                    _ablated_textbook(net, literal_gates, x, y, group, removal, draw)
                    for draw in (noise[group :: len(groups)] or [None])
                )
                / max(len(noise) // len(groups), 1)
                for group in groups
            ]
        )
        (expected,) = torch.autograd.grad(literal.sum(), alphas)
    assert torch.allclose(found, literal, atol=1e-12)
    assert torch.equal(found, values)
    assert torch.allclose(h, expected, atol=1e-12)


def test_uniform_removal_at_alpha_zero_changes_nothing(float64_net):
    net, alphas, x, y = float64_net()
    gates = torch.zeros_like(alphas).sigmoid()
    with batch_statistics(net), torch.no_grad():
        outputs = net.outputs(x, gates)
        full = F.cross_entropy(net.logits(outputs[-1]), y)
        assert torch.equal(ablated_losses(net, outputs, gates, y, [0, 1, 2, 3], "uniform", []), full.expand(4))


def test_batch_statistics_leaves_running_statistics_alone(float64_net):
    net, alphas, x, _ = float64_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with batch_statistics(net):
        net(x, alphas.sigmoid())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net(x, alphas.sigmoid())
    counts = [norm.num_batches_tracked.item() for norm in net.modules() if isinstance(norm, BatchNorm)]
    assert set(counts) == {1}


def test_frozen_gives_the_same_alpha_gradient_and_none_to_weights(float64_net):
    net, alphas, x, y = float64_net()
    alphas.requires_grad_()
    with batch_statistics(net):
        (expected,) = torch.autograd.grad(F.cross_entropy(net(x, alphas.sigmoid()), y), alphas)
        with frozen(net):
            loss = F.cross_entropy(net(x, alphas.sigmoid()), y)
            (found,) = torch.autograd.grad(loss, alphas)
    assert torch.allclose(found, expected, atol=1e-14)
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())


def test_a_network_in_its_mode_is_not_walked_through_again(float64_net, monkeypatch):
    net, *_ = float64_net()
    modules = list(net.modules())
    assert net.weights == list(net.parameters()) and net.norms == [m for m in modules if isinstance(m, BatchNorm)]
    assert not any(module.training for module in net.eval().modules())
    assert all(module.training for module in net.train().modules())
    walked = []
    monkeypatch.setattr(type(net.classifier), "train", lambda self, mode: walked.append(mode))
    net.train()
    assert walked == []
    net.eval()
    assert walked == [False]


def test_a_step_of_all_weights_at_once_is_that_of_one_after_the_other(float64_net):
    """Bit for bit: what torch clips and moves at once on a CPU."""
    found = []
    for at_once in (None, True):
        net, alphas, x, y = float64_net()
        net.float()
        sgd = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4, foreach=at_once)
        for _ in range(2):
            sgd.zero_grad()
            F.cross_entropy(net(x.float(), alphas.float().sigmoid()), y).backward()
            torch.nn.utils.clip_grad_norm_(net.weights, 0.5, foreach=at_once)
            sgd.step()
        found.append(net.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_odd_sizes_are_refused_in_one_sentence():
    odd = DataInfo("x", num_classes=10, channels=1, image_size=10, mean=(0.5,), std=(0.5,))
    with pytest.raises(UserError, match=r"images of 10 pixels cannot be halved 2 times"):
        Supernet(SearchConfig(num_cells=3, channels=2), odd)
