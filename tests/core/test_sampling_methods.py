"""Methods whose gates are drawn in every step, each derived a second time."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ddarts_core.alpha_step import AlphaStep
from ddarts_core.config import resolve
from ddarts_core.errors import UserError
from ddarts_core.images import DataInfo
from ddarts_core.methods import GATES
from ddarts_core.methods.parts import Progress
from ddarts_core.supernet import Supernet, batch_statistics

INFO = DataInfo("x", num_classes=4, channels=2, image_size=8, mean=(0.5,), std=(0.5,))


def step(epoch: int = 0, epochs: int = 1, purpose: str = "alphas", seed: int = 1) -> Progress:
    return Progress(epoch, epochs, epoch, epochs, purpose, lambda: torch.Generator().manual_seed(seed))


def config_of(method: str, *overrides: str):
    return resolve({"method": method, "search": {"num_cells": 3, "steps": 2, "channels": 2}}, overrides)


def test_gdas_samples_by_probability_at_its_temperature() -> None:
    gates = GATES["gumbel"](config_of("gdas").search)
    assert [gates.temperature(Progress(e, 250)) for e in (0, 249)] == pytest.approx([10, 0.1])
    assert gates.temperature(Progress(1, 3)) == pytest.approx(5.05)
    alphas = torch.tensor([0.5, -1.0, 2.0, 0.0])
    drawn = gates.gates({"alphas": alphas.expand(1, 20_000, 4)}, step())
    assert torch.allclose(drawn.sum(-1), torch.ones(1, 20_000))
    found = drawn.argmax(-1).flatten().bincount() / 20_000
    assert torch.allclose(found, alphas.softmax(-1), atol=0.015)  # four standard deviations
    assert torch.equal(gates.gates({"alphas": alphas}, Progress(3, 8)), alphas.softmax(-1))


def test_gdas_computes_one_operation_per_edge_and_its_gradient_is_straight_through() -> None:
    """Against the sum over all operations with one-hot gates; then softmax's derivative by hand."""
    config, plain = config_of("gdas"), config_of("darts")
    torch.manual_seed(0)
    net, whole = Supernet(config.search, INFO).double().train(), Supernet(plain.search, INFO).double().train()
    whole.load_state_dict(net.state_dict())
    x, y = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    calls: list[int] = []
    for cell in net.cells:
        for edge in cell.edges:
            for op in edge.ops:
                op.register_forward_hook(lambda module, inputs, output: calls.append(1))
    alphas = torch.randn(2, 5, 8, dtype=torch.float64)
    progress = step(3, 8)
    report = AlphaStep(net, config).gradients({"alphas": alphas}, (x, y), (x, y), None, torch.Generator(), progress)
    assert len(calls) == 3 * 5
    temperature = 10 - 9.9 * 3 / 7
    noise = -torch.empty(2, 5, 8, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(1)).log()
    p = ((alphas.log_softmax(-1) + noise) / temperature).softmax(-1)
    one_hot = F.one_hot(p.argmax(-1), 8).double().requires_grad_()
    with batch_statistics(whole):
        loss = F.cross_entropy(whole(x, one_hot), y)
    assert float(report.scalars["loss"]) == pytest.approx(float(loss.detach()), rel=1e-12)
    (by_gate,) = torch.autograd.grad(loss, one_hot)
    of_sampled = (by_gate * one_hot.detach()).sum(-1, keepdim=True)
    p_sampled = (p * one_hot.detach()).sum(-1, keepdim=True)
    expected = of_sampled * p_sampled * (one_hot.detach() - p) / temperature
    assert torch.allclose(report.gradients["alphas"], expected, rtol=1e-9, atol=1e-12)
    assert report.gradients["alphas"].abs().max() > 0


@pytest.mark.parametrize(
    ("method", "override", "words"),
    [
        ("fairdarts", "search.edge=sampled", "use gates that compare them"),
        ("gdas", "search.order=second", "gradients to the sampled operations only"),
        ("gdas", "search.compile=default", "search.compile cannot fuse"),
        ("gdas", "search.options.last_temperature=0", "last_temperature"),
    ],
)
def test_what_has_no_meaning_is_refused(method: str, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config_of(method, override)
