"""C-DARTS: its losses, its heads, its schedule and the weights that its pool keeps, each derived a second time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributions

from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import data_info
from ddarts_core.estimates.search_cost import search_macs, step_macs
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import S_NONE
from ddarts_core.ground.errors import UserError
from ddarts_core.loops import distillation
from ddarts_core.methods.cdarts import HELD
from ddarts_core.methods.parts import Progress
from ddarts_core.networks.heads import HeadedNetwork
from ddarts_core.search.alpha_step import AlphaStep
from ddarts_core.search.architecture import Architecture
from ddarts_core.search.companion import Companion
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import resolve
from ddarts_core.settings.warm_start import encode
from ddarts_core.supernets.supernet import Supernet, batch_statistics
from ddarts_core.tensors.optimisers import SGD
from tests.core.test_one_hot import share_weights

INFO = DataInfo("x", num_classes=4, channels=2, image_size=8, mean=(0.5,), std=(0.5,))


def config_of(*overrides: str):
    settings = {"num_cells": 3, "steps": 2, "channels": 4, "batch_size": 6, "epochs": 2, "warmup_epochs": 1}
    settings |= {"device": "cpu", "options": {"derived_cells": 3}}
    return resolve({"method": "cdarts", "data": {"num_train": 60}, "search": settings}, overrides)


def cells_of(*names: str) -> Genotype:
    """Two equal cells whose two nodes read both inputs by these operations."""
    edges = tuple(Edge(2 + k // 2, k % 2, name) for k, name in enumerate(names))
    return Genotype((Cell(edges, (2, 3)),) * 2, layout="normal_reduce")


def companion_of(config, dtype: torch.dtype = torch.float32) -> Companion:
    beside = Course(config).stages[-1].beside
    found = Companion(beside, config.search, INFO, torch.device("cpu"), torch.contiguous_format, 0)
    found.begin(cells_of("sep_conv_3x3", "skip_connect", "max_pool_3x3", "dil_conv_3x3"))
    found.net.to(dtype)
    return found


def test_the_losses_by_torchs_distributions() -> None:
    torch.manual_seed(0)
    searched, derived, labels = torch.randn(5, 4).double(), torch.randn(5, 4).double(), torch.arange(5) % 4
    p, q = (distributions.Categorical(logits=logits / 2) for logits in (derived, searched))
    expected = distributions.kl_divergence(p, q).mean() / 4
    assert torch.allclose(distillation.divergence(derived, searched, 2), expected)
    entropies = -sum(logits.log_softmax(1)[range(5), labels].mean() for logits in (searched, derived))
    found = distillation.joint(searched, derived, labels, 3.0, 2.0)
    assert torch.allclose(found, entropies / 3 + 3 * 4 * expected)


def test_a_step_follows_the_joint_loss_in_alphas_and_in_the_networks_weights() -> None:
    """By central differences; then the network's weights have moved against its gradient and the supernet's not."""
    config = config_of("search.momentum=0", "search.grad_clip=1000000")
    torch.manual_seed(0)
    net = Supernet(config.search, INFO).double().train()
    step, companion = AlphaStep(net, config), companion_of(config, torch.float64)
    step.companion = companion
    x, y = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    alphas, progress = torch.randn(2, 5, 8, dtype=torch.float64), Progress(0, 10, 0, 10)
    before = copy.deepcopy(companion.net)

    def loss(alphas: torch.Tensor, beside: torch.nn.Module) -> float:
        with batch_statistics(net), batch_statistics(beside), torch.no_grad():
            value = distillation.joint(net(x, alphas.softmax(-1)), beside(x), y, 1.0, 2.0)
        held = alphas[..., [S_NONE.index(name) for name in ("max_pool_3x3", "avg_pool_3x3", "skip_connect")]]
        return float(value + 5 * held.abs().sum())

    sgd = SGD(net.parameters(), lr=0.1)
    found = step.gradients({"alphas": alphas}, (x, y), (x, y), sgd, torch.Generator(), progress)
    direction = torch.randn_like(alphas)
    expected = (loss(alphas + 1e-6 * direction, before) - loss(alphas - 1e-6 * direction, before)) / 2e-6
    assert float((found.gradients["alphas"] * direction).sum()) == pytest.approx(expected, rel=1e-5)
    moved = [new.detach() - old.detach() for new, old in zip(companion.weights, before.parameters(), strict=True)]
    ends = []
    for sign in (1, -1):
        end = copy.deepcopy(before)
        for weight, change in zip(end.parameters(), moved, strict=True):
            weight.data += sign * 1e-5 * change
        ends.append(loss(alphas, end))
    slope, length = (ends[0] - ends[1]) / 2e-5, sum(float(change.square().sum()) for change in moved)
    assert slope == pytest.approx(-length / 0.2, rel=1e-4)  # at the learning rate 0.2 the gradient is -moved / 0.2
    assert all(weight.grad is None for weight in net.parameters())


def test_heads_are_averaged_and_one_hot_gates_are_the_network() -> None:
    config = config_of("search.num_cells=5").search
    torch.manual_seed(0)
    net = Supernet(config, INFO).double().train()
    genotype = cells_of("sep_conv_3x3", "skip_connect", "max_pool_3x3", "dil_conv_3x3")
    derived = HeadedNetwork(genotype, 4, 4, 2, 8, "cifar", 5).double().train()
    assert net.heads.positions == derived.heads.positions == (1, 3)
    for cell, searched in zip(derived.cells, derived.genotype.cells, strict=True):
        cell.names = [edge.op for edge in searched.edges]
    share_weights(derived, net, "S_none")
    derived.heads = net.heads
    gates = torch.tensor(encode(genotype, "S_none", 2), dtype=torch.float64)
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    with batch_statistics(net), torch.no_grad():
        outputs = net.outputs(x, gates)
        own = [net.logits(outputs[-1]), net.heads.heads[0](outputs[3]), net.heads.heads[1](outputs[5])]
        found = net(x, gates)
        assert torch.allclose(found, sum(own) / 3, atol=1e-12)
        assert torch.allclose(derived(x), found, atol=1e-10, rtol=0)


def test_a_weight_goes_through_the_pool_over_two_cycles() -> None:
    companion = companion_of(config_of())
    first = companion.genotype
    second = cells_of("sep_conv_5x5", "skip_connect", "max_pool_3x3", "dil_conv_3x3")
    batch = torch.randn(6, 2, 8, 8), torch.arange(6) % 4

    def weight(number: int) -> torch.Tensor:
        return companion.net.cells[0].operations[number][1].weight

    drawn = weight(0).clone()
    companion.train_alone(batch)
    left, common = weight(0).clone(), weight(3).clone()
    stem = companion.net.stem.state_dict()
    assert not torch.equal(left, drawn)
    companion.begin(second)
    assert weight(0).shape[-1] == 5 and torch.equal(weight(3), common)
    assert all(torch.equal(values, stem[name]) for name, values in companion.net.stem.state_dict().items())
    companion.train_alone(batch)
    moved = weight(3).clone()
    assert not torch.equal(moved, common) and companion.sgd.state
    companion.begin(first)
    assert torch.equal(weight(0), left) and torch.equal(weight(3), moved) and not companion.sgd.state


def test_the_schedule(digits) -> None:
    """2 epochs of warm-up and 30 of cycles; the term's weight is the published one, and cycles begin with a pass."""
    config = resolve({"method": "cdarts"})
    course = Course(config)
    assert [(stage.epochs, stage.beside is None) for stage in course.stages] == [(2, True), (30, False)]
    search = digits(config_of("search.epochs=3", "search.options.cycle_epochs=2", "search.batch_size=12"))
    setting = config.search.regularisers["weightless-l1"]
    for epoch in range(2, 32):
        published = 5 * max(0, 1 - (epoch - 2) / ((32 - 2) * 0.2))
        weight = search.architecture.weight(setting, Progress(epoch, 32, epoch - 2, 30))
        assert weight == pytest.approx(published, abs=1e-12)
    begun = ["alpha/derived_loss" in record.metrics for record in search.records()]
    assert begun == [False, True, False, True]


def test_the_term_counts_every_alpha_of_both_kinds_of_cells_whole() -> None:
    """5 |alpha|_1 has the derivative 5 sign(alpha), also where both kinds of cells have one loss."""
    architecture = Architecture(config_of().search, num_groups=2)
    alphas = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    begun, held = Progress(1, 3, 0, 2), [S_NONE.index(name) for name in HELD]
    expected = torch.zeros_like(alphas)
    expected[..., held] = 5 * alphas[..., held].sign()
    assert torch.equal(architecture.pull({"alphas": alphas}, begun)["alphas"], expected)
    recorded = architecture.values({"alphas": alphas}, begun)["weightless-l1"].mean()
    assert torch.allclose(recorded, 5 * alphas[..., held].abs().sum())


def test_multiply_adds_hold_both_networks() -> None:
    one, two = config_of("data.name=digits"), config_of("search.options.derived_warmup=2")
    info = data_info(one.data)
    more = search_macs(two, info, (24, 24)) - search_macs(one, info, (24, 24))
    macs = step_macs(one, info)
    assert more == 2 * 4 * macs.beside > 0  # two cycles of four batches
    assert macs.alphas > macs.beside


def test_what_has_no_meaning_is_refused() -> None:
    for override, words in {
        "search.sharing=own": "use search.sharing normal_reduce",
        "ablation.loss=centered": "has heads",
        "search.order=second": "use search.order first",
        "search.amp=bf16": "no search.amp but tf32",
    }.items():
        with pytest.raises(UserError, match=words):
            config_of(override)
