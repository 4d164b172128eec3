"""The masked supernet: with one-hot gates it is the network cut out of it, and its expected cost is that network's."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddarts_core.genotypes.stage_space import BlockChoices, StageSpace
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.cost import cost
from ddarts_core.supernets.expected_cost import expected_macs, expected_parameters
from ddarts_core.supernets.masked import MaskedSupernet
from ddarts_core.supernets.masks import (
    annealed,
    centres,
    first_channels,
    gumbel_softmax,
    interspersed,
    same_width,
    subsampled,
)

#: Every kind of decision, and sizes that no step divides.
SPACE = StageSpace(
    (
        BlockChoices((4, 6), kernel=(3, 5), activation=("relu", "hswish"), stride=2),
        BlockChoices((4, 6, 8), (6, 24, 40), (3, 5), (False, True), ("relu", "hswish")),
        BlockChoices((8,), (32,), squeeze=(True,), stride=2),
        BlockChoices((8, 12), (20,), (5,)),
        BlockChoices((8, 12), kernel=(3, 5), squeeze=(False, True), expand=False),
        BlockChoices((16, 24), kernel=(1,)),
    ),
    steps=(1, 2, 3),
    hidden=10,
    image_size=25,
)

#: Small enough to go through.
FEW = StageSpace(
    (
        BlockChoices((4, 6), stride=2),
        BlockChoices((4, 8), (6, 24), squeeze=(False, True)),
        BlockChoices((8,), kernel=(3, 5), squeeze=(False, True), expand=False),
    ),
    steps=(1, 2),
    image_size=17,
)


def choices(space: StageSpace, number: int) -> list[tuple[int, ...]]:
    draw = random.Random(1)
    return [tuple(draw.randrange(len(d.options)) for d in space.decisions) for _ in range(number)]


def disturbed(space: StageSpace) -> MaskedSupernet:
    """A network in float64 whose normalisations are not the identity."""
    torch.manual_seed(2)
    net = MaskedSupernet(space, num_classes=5, in_channels=2).double()
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.dtype == torch.float64 and value.dim() == 1:
                value.copy_(torch.rand(value.shape, dtype=torch.float64) + 0.5)
    return net


@pytest.mark.parametrize("training", [False, True])
def test_one_hot_gates_give_the_network_that_is_cut_out(training: bool) -> None:
    net = disturbed(SPACE)
    images = torch.randn(3, 2, 25, 25, dtype=torch.float64)
    for choice in choices(SPACE, 12):
        network = net.cut(choice).train(training)
        step = dict(zip([d.field for d in SPACE.decisions], choice, strict=True))["step"]
        expected = network(subsampled(images, SPACE.steps[step]))
        chosen = [(d, k) for d, k in zip(SPACE.decisions, choice, strict=True)]
        assert network.genotype == SPACE.genotype(choice), chosen
        torch.testing.assert_close(net.train(training)(images, net.one_hot(choice)), expected, rtol=1e-10, atol=1e-10)


def test_a_cut_network_has_weights_of_its_own() -> None:
    net = disturbed(FEW)
    network = net.cut((0,) * len(FEW.decisions))
    before = net.classifier.weight.clone()
    with torch.no_grad():
        network.classifier.weight.zero_()
    assert torch.equal(net.classifier.weight, before)


def test_the_expected_cost_of_one_genotype_is_what_it_costs() -> None:
    net = disturbed(SPACE)
    for choice in choices(SPACE, 30):
        counted = cost(SPACE.genotype(choice), num_classes=5, in_channels=2)
        gates = net.one_hot(choice)
        assert float(expected_macs(SPACE, gates, 2, 5)) == counted.macs["A"]
        assert float(expected_parameters(SPACE, gates, 2, 5)) == counted.parameters


def test_the_expected_cost_is_the_mean_over_all_genotypes() -> None:
    """By enumeration, each genotype with the product of its gates as its probability."""
    torch.manual_seed(0)
    rows = [torch.rand(len(d.options), dtype=torch.float64).softmax(0) for d in FEW.decisions]
    gates = torch.stack([F.pad(row, (0, 2 - len(row))) for row in rows])
    macs = parameters = 0.0
    numbers = list(product(*(range(len(d.options)) for d in FEW.decisions)))
    assert len(numbers) == FEW.size == 128
    for choice in numbers:
        probability = float(torch.stack([row[k] for row, k in zip(rows, choice, strict=True)]).prod())
        counted = cost(FEW.genotype(choice), num_classes=5, in_channels=2)
        macs += probability * counted.macs["A"]
        parameters += probability * counted.parameters
    assert float(expected_macs(FEW, gates, 2, 5)) == pytest.approx(macs, rel=1e-12)
    assert float(expected_parameters(FEW, gates, 2, 5)) == pytest.approx(parameters, rel=1e-12)


def test_soft_gates_are_differentiable_and_every_decision_moves_the_answer_and_the_cost() -> None:
    net = disturbed(SPACE)
    most = max(len(d.options) for d in SPACE.decisions)
    gates = torch.full((len(SPACE.decisions), most), 1 / most, dtype=torch.float64, requires_grad=True)
    answer = net(torch.randn(3, 2, 25, 25, dtype=torch.float64), gates).square().sum()
    for value, blind in ((answer, set()), (expected_macs(SPACE, gates, 2, 5), {"activation"})):
        (gradient,) = torch.autograd.grad(value, gates)
        for decision, row in zip(SPACE.decisions, gradient, strict=True):
            used = row[: len(decision.options)]
            assert (used.abs().sum() > 0) == (decision.field not in blind), decision
            assert row[len(decision.options) :].abs().sum() == 0


def test_masks_by_hand() -> None:
    gates = torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(first_channels((1, 2, 4), gates), torch.tensor([1.0, 0.8, 0.5, 0.5]))
    inner = centres((1, 3), torch.tensor([0.25, 0.75]))
    assert inner.tolist() == [[0.75] * 3, [0.75, 1.0, 0.75], [0.75] * 3]
    assert float(same_width((4, 8), gates[:2], (8, 4, 6), gates)) == pytest.approx(0.2 * 0.3 + 0.3 * 0.2)
    assert float(same_width((4,), gates[:1], (5,), gates[:1])) == 0


@pytest.mark.parametrize(("size", "step"), [(6, 2), (7, 2), (7, 3), (5, 1)])
def test_subsampling_undoes_interspersing(size: int, step: int) -> None:
    x = torch.randn(2, 3, -(-size // step), -(-size // step))
    whole = interspersed(x, step, size)
    assert whole.shape[2:] == (size, size) and torch.equal(subsampled(whole, step), x)
    assert int((whole != 0).sum()) == x.numel()


def test_gumbel_softmax_draws_each_option_as_often_as_softmax_says() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, -float("inf")])
    uniform: Tensor = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    drawn = gumbel_softmax(logits.expand(20_000, 4), 0.1, uniform).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.015, rtol=0)
    torch.testing.assert_close(gumbel_softmax(logits, 1.0), logits.softmax(-1))
    assert gumbel_softmax(logits, 0.01)[1] > 0.999


def test_the_temperature_is_annealed_as_published() -> None:
    """5 exp(-0.045 epoch), to the three digits of the printed factor."""
    torch.testing.assert_close(annealed(10), 5 * 2.718281828 ** (-0.45), rtol=1e-3, atol=0)
    assert annealed(0) == 5


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ((), "begins with a plain convolution"),
        ((BlockChoices((8,), (16,)),), "begins with a plain convolution"),
        ((BlockChoices((8,), expand=False),), "begins with a plain convolution"),
    ],
)
def test_spaces_that_are_refused(blocks: tuple[BlockChoices, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        StageSpace(blocks)


def test_choices_that_are_refused() -> None:
    for choices_of, words in (
        ({"channels": ()}, "one value or more"),
        ({"channels": (8, 8)}, "each once"),
        ({"channels": (8,), "squeeze": (False, True)}, "no squeeze-excitation to choose"),
        ({"channels": (8,), "middle": (16,), "expand": False}, "no middle to choose"),
        ({"channels": (8,), "kernel": (2,)}, "kernel of a block is odd"),
    ):
        with pytest.raises(UserError, match=words):
            BlockChoices(**choices_of)  # type: ignore[arg-type]  # on purpose
    for steps, words in (((1, 1), "each once"), ((1, 2), "leaves images of 7 pixels")):
        with pytest.raises(UserError, match=words):
            StageSpace((BlockChoices((8,)),), steps=steps, image_size=13)
