"""Scores by recalibrated batch normalisation: the statistics derived anew, what they leave alone, where they apply."""

from __future__ import annotations

import copy
from collections import defaultdict

import pytest
import torch
from torch import nn

from ddarts_core.loops.recalibration import initial_share, recalibrated
from ddarts_core.networks.operations import BatchNorm
from ddarts_core.settings.hashing import config_hash
from ddarts_core.supernets.fast import FastForm
from ddarts_core.supernets.supernet import batch_statistics, readable

BATCHES = 3


def _statistics(net):
    return {name: value for name, value in net.state_dict().items() if "running" in name}


def _passes(net, gates, batches):
    net.train()
    for x in batches:
        net(x, gates)
        yield


@pytest.fixture
def standing(float64_net):
    """A supernet whose running statistics are far from those of its weights, gates, batches."""
    net, alphas, images, _ = float64_net(num_cells=3, batch=6)
    for name, value in net.state_dict().items():
        if "running" in name:
            value.uniform_(1, 2)
    return net, torch.sigmoid(alphas), [images + 0.3 * number for number in range(BATCHES)]


def _by_hand(net, gates, batches):
    """Mean over the batches of each input's mean and unbiased variance per channel, seen where it enters."""
    seen = defaultdict(list)
    norms = {name: module for name, module in net.named_modules() if isinstance(module, BatchNorm)}
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
        for name, norm in norms.items()
    ]
    with torch.no_grad(), batch_statistics(net.train()):
        for x in batches:
            net(x, gates)
    for hook in hooks:
        hook.remove()
    expected = {}
    for name, inputs in seen.items():
        values = [x.transpose(0, 1).flatten(1) for x in inputs]
        assert len(values) == BATCHES
        means = [v.sum(1) / v.shape[1] for v in values]
        squares = [((v - m[:, None]) ** 2).sum(1) / (v.shape[1] - 1) for v, m in zip(values, means, strict=True)]
        expected[f"{name}.running_mean"] = sum(means) / BATCHES
        expected[f"{name}.running_var"] = sum(squares) / BATCHES
    assert expected.keys() == _statistics(net).keys()
    return expected


@pytest.mark.parametrize("form", [readable, FastForm(0), FastForm(1e9)], ids=["readable", "alone", "merged"])
def test_statistics_by_hand(standing, form):
    net, gates, batches = standing
    expected = _by_hand(net, gates, batches)
    before = copy.deepcopy(net.state_dict())
    net.form = form
    with torch.no_grad(), recalibrated(net, _passes(net, gates, batches)) as number:
        found = copy.deepcopy(_statistics(net))
    assert number == BATCHES
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_statistics_are_those_of_torch(standing):
    """`update_bn` of torch moves the buffers for good, and knows the readable form only."""
    net, gates, batches = standing

    class Closed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(net)

        def forward(self, x):
            return self.net(x, gates)

    closed = Closed()
    torch.optim.swa_utils.update_bn(batches, closed)
    with torch.no_grad(), recalibrated(net, _passes(net, gates, batches)):
        for name, value in _statistics(closed.net).items():
            torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_a_pass_that_fails_leaves_no_trace(standing):
    net, gates, batches = standing
    before = copy.deepcopy(net.state_dict())
    with (
        pytest.raises(ValueError),
        torch.no_grad(),
        recalibrated(net, _passes(net, gates, [batches[0], batches[0][0]])),
    ):
        pass
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {norm.momentum for norm in net.modules() if isinstance(norm, BatchNorm)} == {0.1}


def test_scores_change_and_the_training_does_not(digits, tiny_config):
    """Two searches that differ in the scoring only end bit for bit the same; running statistics lag after 2 steps."""
    first, second = (digits(tiny_config("search.lr=0.1", f"search.recalibration_batches={n}")) for n in (4, 0))
    for one, two in zip(first.records(), second.records(), strict=True):
        ours, theirs = one.metrics, two.metrics
        assert ours.keys() == theirs.keys() and one.alphas == two.alphas and one.contributions == two.contributions
        assert {name for name in ours if ours[name] != theirs[name]} >= {"held_out/loss"}
        assert all(ours[name] == theirs[name] for name in ours if not name.startswith("held_out/"))
        assert (ours["held_out/recalibration_batches"], theirs["held_out/recalibration_batches"]) == (2, 0)  # 64 images
        assert ours["held_out/loss"] < theirs["held_out/loss"]
    for name, value in first.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name
    assert config_hash(first.config) != config_hash(second.config)


def test_the_score_depends_on_no_held_out_image_but_its_own(digits, tiny_config):
    """Unlike statistics of the batch: halves of the held-out images are worth together what all of them are."""
    search = digits(tiny_config())
    next(search.records())
    held_out = search.splits.held_out
    half = len(held_out) // 2
    parts = [held_out.subset(torch.arange(half)), held_out.subset(torch.arange(half, len(held_out)))]
    together = sum(len(part) * search.evaluate(part).loss for part in parts) / len(held_out)
    assert search.evaluate(held_out).loss == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("ema_decay", [0.0, 0.5, 0.95])
def test_share_of_the_initial_statistics(ema_decay):
    """Of a normalisation that began with mean 1 and only saw zeros, averaged as `retrain` averages."""
    norm = nn.BatchNorm2d(1).double()
    norm.running_mean.fill_(1)
    averaged = norm.running_mean.clone()
    for step in range(1, 31):
        norm(torch.zeros(2, 1, 2, 2, dtype=torch.float64))
        averaged = torch.lerp(averaged, norm.running_mean, 1 - min(ema_decay, step / (step + 9)))
        assert initial_share(step, ema_decay=ema_decay) == pytest.approx(float(averaged))
