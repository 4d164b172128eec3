"""Losses against hand-computed values, autograd of the literal equations and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.loops import losses
from ddarts_core.methods import REGULARISERS
from ddarts_core.methods.parts import Contributions
from ddarts_core.settings.search_settings import AblationConfig


def _loss(kind, eps):
    return REGULARISERS[f"ablation-{kind}"](AblationConfig(eps=eps))


def _found(marginal, mean=None):
    return Contributions(marginal, marginal.nanmean() if mean is None else mean)


def test_zero_one_by_hand():
    alphas = torch.tensor([[[0.0, math.log(3.0)]], [[-math.log(3.0), 0.0]]])  # sigma = 1/2, 3/4 and 1/4, 1/2
    assert losses.zero_one(alphas).tolist() == pytest.approx([-0.03125, -0.03125])


def test_zero_one_gradient_is_autograd():
    alphas = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(losses.zero_one(alphas).sum(), alphas)
    assert torch.allclose(losses.zero_one_gradient(alphas.detach()), expected, atol=1e-15)
    assert losses.zero_one_gradient(torch.zeros(1, 2, 3)).abs().max() == 0


def test_ablation_by_hand():
    marginal = torch.tensor([-1.0, -2.0, -3.0])
    assert _loss("paper", 0.05).value(_found(marginal)).tolist() == pytest.approx([-0.5, 0.0, 0.5])
    assert _loss("centered", 0.05).value(_found(marginal)).tolist() == pytest.approx([0.5, 0.0, -0.5])
    assert _loss("paper", 0.05).value(_found(torch.tensor([1.0, -1.0]))).tolist() == [0.0, 0.0]  # mean 0: eq. 7 says 0
    assert _loss("centered", 0.5).value(_found(torch.tensor([1.0, -1.0]))).tolist() == [2.0, -2.0]  # clamped


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.sampled_from(["paper", "centered", "relative"]))
def test_ablation_losses_of_all_cells_sum_to_zero(values, kind):
    marginal = torch.tensor(values, dtype=torch.float64)
    found = _loss(kind, 0.05).value(_found(marginal))
    assert abs(float(found.sum())) <= 1e-9 * max(1.0, float(found.abs().max()))


def _game(n=4):
    """L_CE(C) and L_CE without C_j as smooth functions of all alphas; the latter does not depend on alpha_j."""
    torch.manual_seed(1)
    mix = torch.randn(n + 1, n, 3, 2, dtype=torch.float64)

    def ce(alphas: torch.Tensor, removed: int | None) -> torch.Tensor:
        row = mix[n if removed is None else removed].clone()
        if removed is not None:
            row[removed] = 0
        return (row * alphas.tanh()).sum().sin() + (row * alphas).square().sum() / 20 + (removed or 0) * 0.3

    return n, ce


def _literal(kind: str, marginal: torch.Tensor, eps: float) -> torch.Tensor:
    mean = marginal.mean()
    if kind == "paper":
        return (marginal - mean) / mean
    if kind == "relative":
        return (marginal - mean) / (mean**2 + eps**2).sqrt()
    return (marginal - mean) / mean.detach().abs().clamp_min(eps)


@pytest.mark.parametrize("kind", ["centered", "relative", "paper"])
@pytest.mark.parametrize("shift", [0.0, -2.0, 3.0])
def test_ablation_gradient_is_autograd_of_the_literal_equation(kind, shift):
    n, ce = _game()
    alphas = torch.randn(n, 3, 2, dtype=torch.float64, requires_grad=True)
    full = ce(alphas, None) + shift
    ablated = torch.stack([ce(alphas, j) for j in range(n)])
    loss = _literal(kind, full - ablated, 0.05)
    expected = torch.stack([torch.autograd.grad(loss[i], alphas, retain_graph=True)[0][i] for i in range(n)])
    (g,) = torch.autograd.grad(full, alphas, retain_graph=True)
    (h,) = torch.autograd.grad(ablated.sum(), alphas)
    found = _loss(kind, 0.05).gradient(_found((full - ablated).detach()), g, h)
    assert torch.allclose(found, expected, atol=1e-12, rtol=1e-10)


def test_relative_gradient_by_finite_differences():
    n, ce = _game()
    alphas = torch.randn(n, 3, 2, dtype=torch.float64)

    def value(a: torch.Tensor, i: int) -> float:
        marginal = torch.stack([ce(a, None) - ce(a, j) for j in range(n)])
        return float(_loss("relative", 0.05).value(_found(marginal))[i])

    a = alphas.clone().requires_grad_()
    full, ablated = ce(a, None), torch.stack([ce(a, j) for j in range(n)])
    (g,) = torch.autograd.grad(full, a)
    (h,) = torch.autograd.grad(ablated.sum(), a)
    found = _loss("relative", 0.05).gradient(_found((full - ablated).detach()), g, h)
    for i in range(n):
        step = torch.zeros_like(alphas)
        step[i, 1, 0] = 1e-5
        slope = (value(alphas + step, i) - value(alphas - step, i)) / 2e-5
        assert found[i, 1, 0].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("kind", ["centered", "relative", "paper", "rescale", "credit"])
def test_a_cell_that_was_not_measured_counts_as_average(kind):
    """Its L_AB is 0, and only H moves its alphas, whatever stands for the mean."""
    marginal, scale = torch.tensor([-0.4, math.nan, -0.2, math.nan]), torch.tensor(-0.1)
    g = torch.ones(4, 1, 1)
    found = _loss(kind, 0.05).gradient(_found(marginal, scale), g, torch.zeros(4, 1, 1)).flatten()
    assert found[[1, 3]].tolist() == [0, 0] and (kind == "centered" or (found[[0, 2]] != 0).any())
    value = _loss(kind, 0.05).value(_found(marginal, scale))
    assert value[[1, 3]].tolist() == [0, 0] and value[0] != 0 and value[2] != 0
    assert _loss(kind, 0.05).value(_found(marginal)).nansum().abs() < 1e-6, "by its own mean the losses sum to 0"


def test_centered_does_not_scale_the_cross_entropy_gradient():
    g, h = torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    marginal = torch.tensor([-0.1, -0.2, -0.6])
    one = _loss("centered", 0.05).gradient(_found(marginal), g, h)
    other = _loss("centered", 0.05).gradient(_found(marginal), 100 * g, h)
    assert torch.equal(one, other)


def test_the_monitored_loss_has_no_gradient():
    assert _loss("monitor", 0.05).gradient(_found(torch.randn(3)), torch.randn(3, 2, 2), None).abs().max() == 0


def test_experimental_losses_scale_the_gradient_of_their_cell():
    g, marginal = torch.ones(3, 1, 1), torch.tensor([-1.0, -2.0, -3.0])
    rescaled = _loss("rescale", 0.05).gradient(_found(marginal), g, None).flatten()
    assert rescaled.tolist() == pytest.approx([math.tanh(0.5), 0.0, math.tanh(-0.5)])
    credited = _loss("credit", 0.05).gradient(_found(marginal), g, None).flatten()
    assert credited.tolist() == pytest.approx([-0.5, 0.0, 0.5])


def test_total_by_hand():
    zero_one, ablation = torch.tensor([-0.1, -0.2]), torch.tensor([1.0, -1.0])
    found = losses.total(torch.tensor(2.0), 10.0 * zero_one, ablation, 0.5)
    assert found.tolist() == pytest.approx([1.5, -0.5])


def test_the_paper_gradient_is_zero_where_the_mean_contribution_is():
    g = torch.ones(2, 1, 1)
    assert _loss("paper", 0.05).gradient(_found(torch.tensor([1.0, -1.0])), g, g).tolist() == [[[0.0]], [[0.0]]]
