"""Equations of the paper once more, by hand and as printed, where no other test derives them a second way."""

from __future__ import annotations

import math
from itertools import combinations, product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ddarts_core.data.sets import DataInfo
from ddarts_core.genotypes.derive import algorithm_1
from ddarts_core.genotypes.spaces import cell_space_size
from ddarts_core.loops import losses
from ddarts_core.methods import GATES, REGULARISERS
from ddarts_core.methods.parts import Contributions, Progress
from ddarts_core.networks.operations import build
from ddarts_core.search.alpha_step import AlphaStep
from ddarts_core.settings.config import resolve
from ddarts_core.settings.search_settings import AblationConfig, SearchConfig
from ddarts_core.supernets.supernet import MixedOp, Supernet


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_equations_1_and_2_on_one_edge(kind: str) -> None:
    """The mixed output of an edge as printed: alphas in, a weighted sum of the operations out."""
    torch.manual_seed(0)
    names = ("skip_connect", "avg_pool_3x3", "sep_conv_3x3")
    edge = MixedOp(names, 4, stride=1).double()
    alphas, x = torch.randn(3, dtype=torch.float64), torch.randn(2, 4, 6, 6, dtype=torch.float64)
    values = [math.exp(a) for a in alphas.tolist()]
    if kind == "softmax":
        weights = [value / sum(values) for value in values]
    else:
        weights = [1 / (1 + math.exp(-a)) for a in alphas.tolist()]
    expected = sum(weight * op(x) for weight, op in zip(weights, edge.ops, strict=True))
    gates = GATES[kind](SearchConfig()).gates({"alphas": alphas}, Progress())
    assert torch.allclose(edge(x, gates), expected, atol=1e-12)


def test_a_pool_of_an_edge_is_normalised() -> None:
    x = torch.randn(3, 4, 6, 6) * 5 + 2
    pooled = MixedOp(("max_pool_3x3",), 4, stride=1)(x, torch.ones(1))
    assert pooled.mean().abs() < 1e-5
    assert build("max_pool_3x3", 4, 1, False)(x).mean() > 1


@pytest.mark.parametrize(("num_operations", "steps"), [(1, 3), (2, 2), (3, 2), (2, 3)])
def test_equation_5_by_enumeration(num_operations: int, steps: int) -> None:
    """Node i of a cell takes two of its i + 1 incoming edges, with one operation on each."""
    per_node = [
        [(pair, ops) for pair in combinations(range(i + 1), 2) for ops in product(range(num_operations), repeat=2)]
        for i in range(1, steps + 1)
    ]
    assert cell_space_size(num_operations, steps) == sum(1 for _ in product(*per_node))


def test_equation_5_at_the_sizes_of_the_paper() -> None:
    assert cell_space_size(7, 4) == 1_037_664_180
    assert round(math.log10(cell_space_size(7, 4) ** 2)) == 18
    assert round(math.log10(cell_space_size(7, 4) ** 8)) == 72


def test_shared_cells_have_one_zero_one_loss(float64_net: Any) -> None:
    """FairDARTS: L_01 is a mean over the alphas of both cells together (eq. 3, 4)."""
    net, alphas, x, y = float64_net(sharing="normal_reduce", num_cells=5)
    settings = {"num_cells": 5, "channels": 3, "steps": 2}
    config = resolve({"method": "fairdarts", "search": settings})
    step = AlphaStep(net, config)
    found = step.gradients({"alphas": alphas}, (x, y), (x, y), None, torch.Generator()).gradients["alphas"]  # type: ignore[arg-type]
    a = alphas.clone().requires_grad_()
    loss = F.cross_entropy(net(x, a.sigmoid()), y) - 10 * (a.sigmoid() - 0.5).square().mean()
    (expected,) = torch.autograd.grad(loss, a)
    assert torch.allclose(found, expected, atol=1e-12)


def test_identical_cells_have_the_zero_one_loss_of_a_cell() -> None:
    """D-DARTS: the loss of alphas alpha_i has the whole w_01 L_01(alpha_i), also where cells share them (eq. 3, 4)."""
    torch.manual_seed(0)
    start = {"sharing": "identical", "start": "zoo:ResNet50", "space": "S_o"}
    search = {**start, "num_cells": 4, "reductions": [1, 2, 3], "channels": 2, "steps": 6, "w_zero_one": 3.0}
    config = resolve({"search": search, "ablation": {"loss": "none"}})
    info = DataInfo("x", num_classes=4, channels=2, image_size=8, mean=(0.5,), std=(0.5,))
    net = Supernet(config.search, info).double().train()
    assert net.num_groups == 3
    a = torch.randn(3, 27, 12, dtype=torch.float64).requires_grad_()
    x, y = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.arange(3)
    found = AlphaStep(net, config).gradients({"alphas": a.detach()}, (x, y), (x, y), None, torch.Generator())  # type: ignore[arg-type]
    loss = F.cross_entropy(net(x, a.sigmoid()), y) + 3 * losses.zero_one(a).sum()
    (expected,) = torch.autograd.grad(loss, a)
    assert torch.allclose(found.gradients["alphas"], expected, atol=1e-12)


def test_every_cell_has_the_schedule_of_the_alphas(digits: Any, tiny_config: Any) -> None:
    """Section 4.1: an optimiser and a scheduler per cell; epochs that train only the weights do not count."""
    search = digits(tiny_config("search.warmup_epochs=2", "search.epochs=4", "alpha.lr=0.3", "alpha.lr_min=0.1"))
    found = []
    for epoch in range(6):
        search._set_learning_rates(search.course.at(epoch))
        rates = [group["lr"] for adam in search._adams for group in adam.param_groups]
        assert len(rates) == search.net.num_groups == 3 and len(set(rates)) == 1
        found.append(rates[0])
    expected = [0.3, 0.3] + [0.1 + 0.2 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert found == pytest.approx(expected)


def test_equation_6_sign() -> None:
    """A cell that helps has a negative contribution: the loss without it is larger."""
    found = losses.contributions(torch.tensor(1.0), torch.tensor([1.5, 0.75]))
    assert found.tolist() == [-0.5, 0.25]


def test_equation_7_is_zero_where_the_mean_is_zero() -> None:
    for kind in ("monitor", "paper"):
        loss = REGULARISERS[f"ablation-{kind}"](AblationConfig())
        assert loss.value(Contributions(torch.tensor([1.0, -1.0]), torch.tensor(0.0))).tolist() == [0.0, 0.0]


def _algorithm_1_as_printed(num_searched: int, n: int) -> list[int]:
    """Line by line; "for i in [0, n]" is read as 0 to n - 1, which gives the n cells that are asked for."""
    derived = []
    m = num_searched // 3
    m2 = (2 * num_searched) // 3
    for i in range(n):
        if n > num_searched:
            if i < n // 3:
                c = i % m
            elif i == n // 3:
                c = m
            elif i > n // 3 and i < (2 * n) // 3:
                c = i % (m2 - 1 - m) + m + 1
            elif i == (2 * n) // 3:
                c = m2
            else:
                c = i % (num_searched - 1 - m2) + m2 + 1
        else:
            c = i
        derived.append(c)
    return derived


@given(st.integers(5, 40), st.integers(0, 80))
def test_algorithm_1_as_printed(num_searched: int, more: int) -> None:
    assert algorithm_1(num_searched, num_searched + more) == _algorithm_1_as_printed(num_searched, num_searched + more)
