"""Methods whose gates are drawn in every step, each derived a second time."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import betainc, betaincinv
from torch.nn import functional as F

from ddarts_core.data.images import DataInfo
from ddarts_core.estimates.memory import step_memory
from ddarts_core.ground.errors import UserError
from ddarts_core.methods import GATES, REGULARISERS
from ddarts_core.methods.parts import Progress
from ddarts_core.search.alpha_step import AlphaStep
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import resolve
from ddarts_core.supernets.supernet import Supernet, batch_statistics
from ddarts_core.tensors.seeding import generator

#: Channels that two channels can be shared by.
SMALL = ("search.options.channel_share=2", "search.options.channel_shares=[2,1]")

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
    noise = -torch.log(-torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log())
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


def test_memory_is_estimated_without_a_draw() -> None:
    peaks = {
        name: step_memory(config_of(name, *overrides, "search.batch_size=8"), INFO, torch.device("cpu")).peak
        for name, overrides in (("darts", ()), ("gdas", ()), ("sdarts-rs", ()), ("drnas", SMALL))
    }
    assert peaks["gdas"] < peaks["darts"] <= peaks["sdarts-rs"] and peaks["drnas"] > 0


@pytest.mark.parametrize(
    ("method", "override", "words"),
    [
        ("fairdarts", "search.edge=sampled", "use gates that compare them"),
        ("gdas", "search.order=second", "gradients to the sampled operations only"),
        ("gdas", "search.compile=default", "search.compile cannot fuse"),
        ("gdas", "search.options.last_temperature=0", "last_temperature"),
        ("drnas", "search.options.channel_shares=[1,2,1]", "give 2 kept_operations"),
        ("darts", "search.regularisers.dirichlet-kl.weight=1", "use both"),
    ],
)
def test_what_has_no_meaning_is_refused(method: str, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config_of(method, *(SMALL if method == "drnas" else ()), override)


# --- DrNAS ----------------------------------------------------------------------------------------------------------


def test_drnas_draws_around_the_mean_from_its_own_stream() -> None:
    gates = GATES["dirichlet"](config_of("drnas", *SMALL).search)
    alphas = torch.tensor([0.5, -1.0, 2.0, 0.0])
    strength = torch.tensor([1.5, math.exp(-1), 3.0, 1.0])
    mean = strength / strength.sum()
    before = torch.get_rng_state()
    drawn = gates.gates({"alphas": alphas.expand(1, 20_000, 4)}, step())
    again = gates.gates({"alphas": alphas.expand(1, 20_000, 4)}, step())
    assert torch.equal(drawn, again) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(drawn, gates.gates({"alphas": alphas.expand(1, 20_000, 4)}, step(seed=2)))
    assert torch.allclose(drawn.mean(1)[0], mean, atol=0.007)  # four standard deviations
    variance = mean * (1 - mean) / (strength.sum() + 1)
    assert torch.allclose(drawn.var(1)[0], variance, rtol=0.1)
    assert torch.allclose(gates.gates({"alphas": alphas}, Progress(3, 8)), mean)
    assert torch.allclose(gates.scores({"alphas": alphas}), mean)


def test_drnas_gradient_is_that_of_the_sample_at_its_quantile() -> None:
    """Of two operations the first gate has a Beta distribution: its quantile function, differentiated numerically."""
    gates = GATES["dirichlet"](config_of("drnas", *SMALL).search)
    alphas = torch.tensor([[[0.7, 0.2]]], dtype=torch.float64, requires_grad=True)
    drawn = gates.gates({"alphas": alphas}, step())
    (found,) = torch.autograd.grad(drawn[0, 0, 0], alphas)
    quantile = betainc(1.7, 1.2, float(drawn[0, 0, 0].detach()))
    for k, ends in enumerate((((1.7 + 1e-5, 1.2), (1.7 - 1e-5, 1.2)), ((1.7, 1.2 + 1e-5), (1.7, 1.2 - 1e-5)))):
        upper, lower = (betaincinv(*end, quantile) for end in ends)
        assert float(found[0, 0, k]) == pytest.approx((upper - lower) / 2e-5, rel=1e-3)


def test_drnas_divergence_and_networks() -> None:
    config = config_of("drnas", *SMALL, "search.regularisers.dirichlet-kl.weight=0.028")
    alphas = torch.randn(2, 5, 7, dtype=torch.float64)
    c = torch.where(alphas > 0, alphas + 1, alphas.exp())
    ones = torch.distributions.Dirichlet(torch.ones_like(c))
    expected = torch.distributions.kl_divergence(torch.distributions.Dirichlet(c), ones)
    assert torch.allclose(REGULARISERS["dirichlet-kl"](config.search).value({"alphas": alphas}, c), expected.mean(1))
    course = Course(resolve({"method": "drnas"}))
    places = [course.at(epoch) for epoch in (9, 10, 25, 49)]
    assert [(place.stage.phase, place.network) for place in places] == [
        ("warmup", 0),
        ("search", 0),
        ("warmup", 1),
        ("search", 1),
    ]
    assert [(place.epoch, place.epochs) for place in places] == [(9, 50), (10, 50), (25, 50), (49, 50)]
    shares = [course.settings(place.number).search.options["channel_share"] for place in places]
    assert shares == [6, 6, 4, 4] and [course.stages[n].kept for n in (0, 2)] == [None, 4]


# --- SDARTS-RS ------------------------------------------------------------------------------------------------------


def test_sdarts_disturbs_the_gates_of_weight_steps_alone() -> None:
    gates = GATES["softmax-smoothed"](config_of("sdarts-rs").search)
    assert [gates.radius(Progress(e, 50)) for e in (0, 25, 49)] == pytest.approx([0.03, 0.165, 0.2946])
    alphas = torch.randn(1, 3000, 4)
    plain = alphas.softmax(-1)
    for progress in (Progress(25, 50), step(25, 50, "alphas")):
        assert torch.equal(gates.gates({"alphas": alphas}, progress), plain)
    found = gates.gates({"alphas": alphas}, step(25, 50, "weights"))
    noise = 0.165 * (2 * torch.rand(plain.shape, generator=torch.Generator().manual_seed(1)) - 1)
    clipped = (plain + noise).clamp(0, 1)
    assert torch.allclose(found, clipped / clipped.sum(-1, keepdim=True), atol=1e-5)
    assert (found - plain).abs().max() > 0.1
    # At the end some edges of equal gates lose all four to the clipping.
    equal = gates.gates({"alphas": torch.zeros(1, 100_000, 4)}, step(50, 50, "weights"))
    assert torch.allclose(equal.sum(-1), torch.ones(1, 100_000))


# --- SDARTS-ADV -----------------------------------------------------------------------------------------------------


def test_adversarial_gates_by_hand() -> None:
    """Two operations and a linear loss: the worst gates are one radius away; a loss that only falls moves nothing."""
    gates = GATES["softmax-adversarial"](config_of("sdarts-adv").search)
    half = torch.full((1, 3, 2), 0.5)
    slope = torch.tensor([[[1.0, -1.0], [-2.0, 2.0], [3.0, -3.0]]])
    progress, radius = step(25, 50, "weights"), 0.165
    found = gates.against(half, progress, lambda p: ((p * slope).sum(), slope))
    assert torch.allclose(found, 0.5 + radius * slope.sign(), atol=1e-5)
    assert torch.equal(gates.against(half, progress, lambda p: (-(p - half).abs().sum(), slope)), half)
    assert torch.equal(gates.gates({"alphas": torch.zeros(1, 3, 2)}, progress), half)


def test_sdarts_adv_trains_weights_under_the_gates_that_it_finds(digits) -> None:
    """Sign steps written out edge by edge, on a twin of the search; running statistics move once."""
    few = ("data.num_train=60", "search.batch_size=12", "search.epochs=2", "search.device=cpu")
    config = config_of("sdarts-adv", *few)
    search, twin = digits(config), digits(config)
    images, labels = next(search._batches(search.splits.weights, "weights", 1, 0))
    search._weight_step(images, labels, 1, 3)
    radius = 0.03 + 0.27 / 2
    start = twin.alphas.softmax(-1)

    def clipped(gates):
        rows = [[min(max(float(gate), 0.0), 1.0) for gate in row] for group in gates for row in group]
        return torch.tensor([[gate / sum(row) for gate in row] for row in rows]).view_as(gates)

    def loss(gates):
        twin.net.eval()
        return F.cross_entropy(twin.net(images, gates), labels)

    stream = generator(config.seed, "gates", "weights", 1, 3)
    worst = clipped(start + radius * (2 * torch.rand(start.shape, generator=stream) - 1))
    for _ in range(7):
        leaf = worst.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf), leaf)
        worst = clipped(
            torch.minimum(torch.maximum(worst + 2 * radius / 7 * slope.sign(), start - radius), start + radius)
        )
    assert bool(loss(worst) > loss(start)) and (worst - start).abs().max() > 0.05
    twin.net.train()
    twin._sgd.zero_grad()
    F.cross_entropy(twin.net(images, worst), labels).backward()
    torch.nn.utils.clip_grad_norm_(twin.net.parameters(), config.search.grad_clip)
    twin._sgd.step()
    for (name, value), expected in zip(search.net.state_dict().items(), twin.net.state_dict().values(), strict=True):
        assert torch.allclose(value, expected, atol=1e-5), name
    with pytest.raises(UserError, match="takes gradients that fp16 rounds to 0"):
        config_of("sdarts-adv", "search.amp=fp16")
