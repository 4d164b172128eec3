"""Methods that decide between epochs by what is measured on the alphas' split, each derived a second time."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from ddarts_core.genotypes.spaces import S_NONE, edge_list
from ddarts_core.ground.errors import UserError
from ddarts_core.methods import PLANS
from ddarts_core.methods.parts import Progress
from ddarts_core.search.examination import Examination
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import resolve
from ddarts_core.supernets import shapley
from ddarts_core.supernets.supernet import batch_statistics


def config_of(method: str, *overrides: str):
    settings = {"num_cells": 3, "steps": 2, "channels": 4, "batch_size": 12, "epochs": 2, "warmup_epochs": 1}
    return resolve({"method": method, "data": {"num_train": 60}, "search": {**settings, "device": "cpu"}}, overrides)


def game(worth, gates: torch.Tensor, epoch: int = 0, epochs: int = 1) -> SimpleNamespace:
    """What a plan is shown, with a worth of our own."""

    class Shown(SimpleNamespace):
        @property
        def gates(self) -> torch.Tensor:
            return torch.where(self.fixed.isnan(), gates, self.fixed)

        one_of = Examination.one_of

    return Shown(
        parameters={"alphas": torch.zeros_like(gates)},
        memory={},
        fixed=torch.full_like(gates, float("nan")),
        progress=Progress(0, 1, epoch, epochs),
        stream=torch.Generator().manual_seed(3),
        worth=worth,
        batch=lambda: None,
    )


# --- DARTS-PT -------------------------------------------------------------------------------------------------------


def test_the_schedule_of_darts_pt() -> None:
    """50 epochs of DARTS, then 17 decisions, one every 5 epochs, in 81 epochs at a tenth of the learning rate."""
    course = Course(resolve({"method": "darts-pt"}))
    assert [(stage.epochs, stage.decides) for stage in course.stages] == [(50, False), (81, True)]
    assert (course.at(50).epoch, course.at(50).epochs, course.settings(1).search.lr) == (0, 81, 0.0025)
    decided = []
    plan = course.plan
    plan.decide_edge = lambda found, group: decided.append((found.progress.stage_epoch, "edge", group))
    plan.decide_node = lambda found, group: decided.append((found.progress.stage_epoch, "node", group))
    for epoch in range(81):
        plan.decide(game(None, torch.rand(2, 14, 8), epoch, 81))
    expected = [(5 * k, "edge" if k < 14 else "node", group) for k in range(17) for group in range(2)]
    assert decided == expected
    short = PLANS["perturbation"](config_of("darts-pt").search)
    short.decide_edge = short.decide_node = lambda found, group: decided.append(group)
    decided.clear()
    short.decide(game(None, torch.rand(2, 5, 8)))
    assert decided == [0, 1] * 6  # five edges and the one node that has three
    with pytest.raises(UserError, match=r"decides by a network that was trained: use search.epochs 2"):
        config_of("darts-pt", "search.epochs=1")


def test_darts_pt_keeps_what_hurts_most_when_it_goes() -> None:
    """In a game where every operation adds its own worth: the largest of an edge, the largest two edges."""
    plan = PLANS["perturbation"](config_of("darts-pt", "search.steps=3").search)
    value = torch.rand(2, 9, 8, generator=torch.Generator().manual_seed(0))
    value[..., S_NONE.index("none")] = 9.0  # which is never kept
    value[0, 4, 2:] = 0.0  # ties of the first number keep the earlier operation, but for the second number
    loss = torch.zeros_like(value)
    loss[0, 4, 5] = 1.0

    passes = []

    def worth(gates, number):
        passes.append(number)
        return float(((gates > 0) * value).sum()), float(((gates > 0) * loss).sum())

    value[0, 4, 1] = 0.0
    found = game(worth, torch.rand(2, 9, 8).clamp_min(0.01))
    plan.decide(found)
    assert len(passes) == plan.passes(None, 2, 1) == 2 * (9 * 7 + 3 + 4 + 3) and set(passes) == {None}
    assert plan.passes(None, 2, 6) == 6 * len(passes)
    real = value.clone()
    real[..., S_NONE.index("none")] = -1
    best = real.argmax(-1)
    best[0, 4] = 5
    for group in range(2):
        kept = []
        for node in range(2, 5):
            into = [e for e, (_, target) in enumerate(edge_list(3)) if target == node]
            kept += sorted(into, key=lambda e: -float(value[group, e, best[group, e]]))[:2]
        for edge in range(9):
            expected = F.one_hot(best[group, edge], 8).float() * (edge in kept)
            assert torch.equal(found.fixed[group, edge], expected), (group, edge)


def test_the_worth_of_gates_is_measured_on_the_alphas_split_and_leaves_no_trace(digits) -> None:
    """By hand; the genotype is what was decided, whatever the alphas say, and held-out images have no say in it."""
    config = config_of("darts-pt")
    search, twin = digits(config), digits(config)
    records = search.records()
    next(records), next(records)
    search._enter(search.course.at(2).number)
    twin.load_state_dict(copy.deepcopy(search.state_dict()))
    before = copy.deepcopy(search.net.state_dict())
    seen = []
    decide = search.course.plan.decide

    def spied(found):
        gates = torch.rand(2, 5, 8)
        batches = list(search._unaugmented(search.splits.alphas, drop_last=True))
        search.net.train()
        with torch.no_grad(), batch_statistics(search.net):
            logits = torch.cat([search.net(images, gates) for images, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        accuracy, loss = found.worth(gates)
        assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
        assert -loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
        few = found.worth(gates, number=1)
        assert few[0] == pytest.approx(float((logits[:12].argmax(1) == labels[:12]).float().mean()))
        seen.append(len(labels))
        decide(found)

    search.course.plan.decide = spied
    search._decide()
    assert seen == [24]
    assert all(torch.equal(value, search.net.state_dict()[name]) for name, value in before.items())
    twin.splits.held_out.labels.zero_(), twin.splits.weights.labels.zero_()
    twin._decide()
    fixed = search.architecture.fixed
    assert torch.equal(twin.architecture.fixed, fixed)
    genotype = search.discretise().genotype
    for group, cell in enumerate(genotype.cells):
        edges = [edge_list(2).index((edge.source, edge.target)) for edge in cell.edges]
        assert sorted(edges) == fixed[group].sum(-1).nonzero().flatten().tolist()
        for edge, number in zip(cell.edges, edges, strict=True):
            assert float(fixed[group, number, S_NONE.index(edge.op)]) == 1


# --- Shapley-NAS ----------------------------------------------------------------------------------------------------


def test_shapley_values_of_operations_are_those_of_their_game() -> None:
    """Against the definition, over all coalitions of 2 x 2 x 2 operations; then the step of the alphas by hand."""
    options = ("search.options.value_orders=1000", "search.options.value_floor=0")
    plan = PLANS["shapley"](config_of("shapley-nas", *options).search)
    weights = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))

    def value(coalition) -> float:
        members = sorted(coalition)
        return float(weights[members][:, members].sum()) / 64

    found = game(
        lambda gates, batch: (value(gates.flatten().nonzero().flatten().tolist()), 0.0), torch.full((2, 2, 2), 0.5)
    )
    lost = torch.stack([plan.lost(found) for _ in range(1000)])
    exact = torch.tensor(shapley.exact(8, value).values)
    assert torch.allclose(lost.mean(0).flatten(), exact, atol=0.004)
    assert torch.allclose(lost.sum((1, 2, 3)), torch.tensor(value(range(8))), atol=1e-5)


def test_alphas_follow_standardised_values_with_momentum() -> None:
    plan = PLANS["shapley"](config_of("shapley-nas").search)
    found = game(None, torch.full((2, 5, 7), 0.5))
    orders = iter(torch.rand(20, 2, 5, 7, generator=torch.Generator().manual_seed(2)).double())
    drawn = []

    def lost(_):
        drawn.append(next(orders))
        return drawn[-1]

    plan.lost = lost
    found.parameters["alphas"] = found.parameters["alphas"].double()
    expected_s, expected_alphas = None, torch.zeros(2, 5, 7).double()
    for epoch in range(2):
        plan.decide(found)
        for group in range(2):
            of_epoch = torch.stack(drawn[10 * epoch : 10 * epoch + 10])[:, group]
            phi = of_epoch.mean(0) - ((of_epoch - of_epoch.mean(0)) ** 2).mean(0).sqrt()
            z = (phi - phi.mean()) / phi.std(correction=0)
            s = 0.8 * (expected_s[group] if epoch else 0) + 0.2 * z
            assert torch.allclose(found.memory["values"][group], s, atol=0.004)
        expected_s = found.memory["values"]
        expected_alphas = expected_alphas + 0.1 * expected_s
        assert torch.allclose(found.parameters["alphas"], expected_alphas)


def test_an_order_ends_where_the_accuracy_is_halved() -> None:
    plan = PLANS["shapley"](config_of("shapley-nas").search)
    passes = []

    def worth(gates, batch):
        passes.append(int(gates.count_nonzero()))
        return passes[-1] / 70, 0.0

    values = plan.lost(game(worth, torch.full((2, 5, 7), 0.5)))
    assert passes == list(range(70, 33, -1))
    assert plan.passes(plan.stages()[1], 2, 9) == 2 * 10 * 71
    assert values.count_nonzero() == 36 and torch.allclose(values[values > 0], torch.tensor(1 / 70))


def test_a_search_by_values_never_follows_a_gradient(digits) -> None:
    search = digits(config_of("shapley-nas", "search.options.value_orders=1", "search.warmup_epochs=0"))
    assert [(stage.phase, stage.epochs) for stage in search.course.stages] == [("warmup", 1), ("search", 1)]
    start = search.alphas
    records = list(search.records())
    assert not any(name.startswith("alpha/") for record in records for name in record.metrics)
    assert torch.allclose(search.alphas - start, 0.1 * search._memory["values"], atol=1e-6)
    assert float(search._memory["values"].std()) == pytest.approx(0.2, abs=0.01)
    with pytest.raises(UserError, match=r"values a network that was trained: use search.warmup_epochs 1"):
        config_of("shapley-nas", "search.warmup_epochs=0", "search.epochs=1")
