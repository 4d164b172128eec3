"""U-DARTS: coefficients, links and sub-networks, each derived a second time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ddarts_core.data.images import DataInfo
from ddarts_core.genotypes.dead_cells import connect, dead_cells
from ddarts_core.genotypes.derive import deeper
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.published_text import to_published_text
from ddarts_core.genotypes.random_genotype import random_genotype
from ddarts_core.genotypes.spaces import S_NONE
from ddarts_core.ground.errors import UserError
from ddarts_core.methods.parts import Progress
from ddarts_core.methods.udarts import coefficients
from ddarts_core.networks.cost import cost
from ddarts_core.networks.links import joined
from ddarts_core.networks.measured_cost import measured_cost
from ddarts_core.networks.network import Network
from ddarts_core.networks.operations import build
from ddarts_core.search.alpha_step import AlphaStep
from ddarts_core.settings.config import resolve
from ddarts_core.settings.warm_start import encode
from ddarts_core.supernets.supernet import Supernet, batch_statistics
from tests.core.test_one_hot import share_weights

INFO = DataInfo("x", num_classes=4, channels=2, image_size=8, mean=(0.5,), std=(0.5,))


def config_of(*overrides: str):
    settings = {"num_cells": 5, "steps": 2, "channels": 2, "batch_size": 6, "epochs": 1, "warmup_epochs": 1}
    settings |= {"device": "cpu", "options": {"path_steps": 3}}
    return resolve({"method": "udarts", "data": {"num_train": 60}, "search": settings}, overrides)


def test_coefficients_are_those_of_the_weights_that_operations_have() -> None:
    weights = {name: sum(w.numel() for w in build(name, 36, 1, True).parameters()) for name in S_NONE}
    assert weights["sep_conv_3x3"] == 2 * (36 * 9 + 36 * 36 + 2 * 36)
    depths = {"sep": 2, "dil": 1}
    expected = [1 / (depths.get(name[:3], 0) + 1) + 0.1 * weights[name] / sum(weights.values()) for name in S_NONE]
    assert coefficients(S_NONE) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UserError, match="knows no depth of"):
        config_of("search.space=S_o")


@pytest.mark.parametrize(("factor", "window"), [(1, (4, 1, 1)), (2, (2, 2, 2)), (4, (1, 4, 4))])
def test_a_link_pools_by_the_ratio_of_channels(factor: int, window: tuple[int, int, int]) -> None:
    """As the published code does, which pools channels like a third direction."""
    x, far = torch.randn(2, 16, 2, 2), torch.randn(2, 16 // factor, 2 * factor, 2 * factor)
    expected = torch.cat([x, F.avg_pool3d(far[:, None], window)[:, 0]], 1)
    assert torch.allclose(joined(x, far), expected, atol=1e-6) and expected.shape[1] == 20


def linked(links: tuple[int | None, ...], steps: int = 2) -> Genotype:
    """Cells that read both inputs, with links, and reductions at their thirds."""
    edges = tuple(
        Edge(node, source, name)
        for node in range(2, steps + 2)
        for source, name in ((0, "sep_conv_3x3"), (1, "max_pool_3x3"))
    )
    cells = tuple(Cell(edges, tuple(range(2, steps + 2)), link) for link in links)
    return Genotype(cells, (len(links) // 3, 2 * len(links) // 3))


def test_one_hot_gates_and_links_are_the_derived_network() -> None:
    """Links over no reduction, over one and over two; their weight is 1 and all others are lower."""
    genotype = linked((None, None, None, 0, 1, 0, 3, 4), steps=3)
    config = resolve(
        {"method": "udarts", "search": {"num_cells": 8, "steps": 3, "channels": 4, "reductions": [1, 4]}}
    ).search
    genotype = Genotype(genotype.cells, (1, 4))
    torch.manual_seed(0)
    net = Supernet(config, INFO).double().train()
    derived = Network(genotype, channels=4, num_classes=4, in_channels=2, image_size=8).double().train()
    for cell, searched in zip(derived.cells, genotype.cells, strict=True):
        cell.names = [edge.op for edge in searched.edges]
    share_weights(derived, net, "S_none")
    edges = torch.tensor(encode(genotype, "S_none", 3), dtype=torch.float64)
    links = torch.full((8, 8), -0.5, dtype=torch.float64)
    for position, cell in enumerate(genotype.cells):
        if cell.link is not None:
            links[position, cell.link] = 1
        links[position, max(position - 2, 0) :] = 7  # which lie behind a cell's own
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    with batch_statistics(net), torch.no_grad():
        found = [net(x, torch.cat([edges, weights[:, None]], 1)) for weights in (links, links.abs().flip(1))]
        expected = derived(x)
    assert torch.allclose(found[0], expected, atol=1e-10, rtol=0) and not torch.allclose(found[1], expected)


class Only(nn.Module):
    """An edge that has one operation, of its own."""

    def __init__(self, edge: nn.Module, number: int) -> None:
        super().__init__()
        self.number, self.op = number, copy.deepcopy(edge.ops[number])

    def forward(self, x, gates):
        return gates[self.number] * self.op(x)


def test_a_sub_network_is_trained_as_its_copy_is_and_written_back(digits) -> None:
    """The copy has the operations of one draw only and an optimiser of its own; its weights are copied back."""
    search = digits(config_of())
    net, parameters = copy.deepcopy(search.net), search.parameters
    batches = list(search._batches(search.splits.weights, "weights", 0, 0))
    assert len(batches) % 3 and len(batches) > 3
    search._set_learning_rates(search.course.at(0))
    lr = search._sgd.param_groups[0]["lr"]
    drawn = []
    for step, (images, labels) in enumerate(batches):
        progress = search._progress("weights", 0, step)
        gates = search.architecture.gates(parameters, progress)
        if step % 3 == 0:
            alone = copy.deepcopy(net)
            for k, cell in enumerate(alone.cells):
                for e, edge in enumerate(cell.edges):
                    cell.edges[e] = Only(edge, int(gates[k, e].argmax()))
            sgd = torch.optim.SGD(alone.parameters(), lr=lr, momentum=0.9, weight_decay=3e-4)
            drawn.append(gates[:, :5].argmax(-1))
        alone.train()
        sgd.zero_grad()
        F.cross_entropy(alone(images, gates), labels).backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 5.0)
        sgd.step()
        if step % 3 == 2 or step == len(batches) - 1:
            for cell, own in zip(net.cells, alone.cells, strict=True):
                for edge, only in zip(cell.edges, own.edges, strict=True):
                    edge.ops[only.number].load_state_dict(only.op.state_dict())
            for name, module in alone.named_children():
                if name != "cells":
                    getattr(net, name).load_state_dict(module.state_dict())
            for cell, own in zip(net.cells, alone.cells, strict=True):
                cell.preprocess0.load_state_dict(own.preprocess0.state_dict())
                cell.preprocess1.load_state_dict(own.preprocess1.state_dict())
    assert not torch.equal(drawn[0], drawn[1])
    next(search.records())
    assert torch.equal(search.alphas, parameters["alphas"])
    for name, weight in net.named_parameters():
        assert torch.allclose(search.net.get_parameter(name), weight, atol=1e-6), name


def test_a_step_moves_the_alphas_of_its_sub_network_alone(digits) -> None:
    search = digits(config_of("search.warmup_epochs=0"))
    before = search.parameters
    gates, links = before["alphas"], before["links"]
    assert gates.min() > 0 and gates.max() < 0.1 and gates.std() > 0.01 and links.shape == (5, 2)
    drawn: list[dict[str, torch.Tensor]] = []
    ask = search.architecture.trained
    search.architecture.trained = lambda *args: drawn.append(ask(*args)) or drawn[-1]
    next(search.records())
    counts = [float(state["step"]) for adam in search._adams for state in adam.state.values()]
    assert counts == [(len(drawn) - 1) % 3 + 1.0] * 10
    assert all(torch.equal(drawn[k]["alphas"], drawn[k - k % 3]["alphas"]) for k in range(len(drawn)))
    touched = torch.stack([masks["alphas"] for masks in drawn]).any(0)
    moved = search.alphas != gates
    assert torch.equal(moved, touched) and not touched.all()
    others = search.parameters["links"] != links
    assert others[3, 0] and others[4].any() and not others[3, 1]
    assert search.discretise().genotype.cells[4].link == int(search.parameters["links"][4].argmax())
    assert [cell.link for cell in search.discretise().genotype.cells[:4]] == [None, None, None, 0]


def test_the_second_order_is_that_of_the_mixed_edge_under_the_same_gates() -> None:
    """Which computes all operations, most of them times 0."""
    config, plain = config_of("search.order=second"), config_of("search.order=second")
    config = config.model_copy(update={"search": config.search.model_copy(update={"hessian": "exact"})})
    mixed = plain.search.model_copy(update={"edge": "mixed", "hessian": "exact"})
    plain = plain.model_copy(update={"search": mixed})
    x, y = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    found = {}
    for name, settings in {"one": config, "mixed": plain}.items():
        torch.manual_seed(0)
        net = Supernet(settings.search, INFO).double().train()
        step, sgd = AlphaStep(net, settings), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        start = step.architecture.parameters(torch.Generator().manual_seed(1))
        start = {key: values.double() for key, values in start.items()}

        def draw(steps: int = 1) -> torch.Generator:
            return torch.Generator().manual_seed(5)

        progress = Progress(0, 1, 0, 1, "alphas", draw, draw)
        report = step.gradients(start, (x, y), (x.flip(0), y.flip(0)), sgd, torch.Generator(), progress)
        found[name] = report.gradients
    for key in ("alphas", "links"):
        assert torch.allclose(found["one"][key], found["mixed"][key], rtol=1e-8, atol=1e-12)
        assert found["one"][key].abs().max() > 0


# --- genotypes with links -------------------------------------------------------------------------------------------


def test_a_link_is_part_of_a_genotype() -> None:
    genotype, without = linked((None, None, None, 0, 1)), linked((None,) * 5)
    again = Genotype.from_text(genotype.to_json())
    assert again == genotype and genotype.hash != without.hash and '"link"' not in without.to_json()
    assert deeper(genotype, 5) == genotype
    with pytest.raises(UserError, match="what the links of this genotype become"):
        deeper(genotype, 8)
    with pytest.raises(UserError, match="its cells are linked"):
        to_published_text(genotype)
    drawn = {tuple(cell.link for cell in random_genotype(genotype, seed).cells) for seed in range(20)}
    assert drawn == {(None, None, None, 0, 0), (None, None, None, 0, 1)}
    for wrong in ((None, None, 0), (None, None, None, 1), (None, None, None, -1)):
        with pytest.raises(UserError, match="3 or more before it"):
            linked(wrong)


def test_a_linked_cell_is_read() -> None:
    """Cells that read input 1 alone but for the last: only a link keeps cell 0 of use."""
    chain, both = Cell((Edge(2, 1, "skip_connect"),), (2,)), (Edge(2, 0, "skip_connect"), Edge(3, 1, "skip_connect"))
    stem = Cell((Edge(2, 0, "skip_connect"),), (2,))
    cells = [chain, stem, chain, Cell(both, (2, 3))]
    assert dead_cells(cells) == (0,)
    cells[3] = Cell(both, (2, 3), link=0)
    assert dead_cells(cells) == ()
    cells[2] = stem
    alive, connected = connect(cells, lambda position, reader: Edge(2, 1, "skip_connect"))
    assert connected == () and alive[3].link == 0
    cells[3] = Cell((Edge(2, 1, "skip_connect"),), (2,), link=0)
    alive, connected = connect(cells, lambda position, reader: Edge(2, 1, "skip_connect"))
    assert connected == (1,) and alive[3].link == 0


@pytest.mark.parametrize("form", ["cifar", "imagenet"])
def test_the_cost_of_links_is_that_of_the_network(form) -> None:
    genotype = linked((None, None, None, 0, 1, 0))
    found = cost(genotype, channels=4, num_classes=5, form=form, image_size=32)
    assert found == measured_cost(genotype, 4, 5, 3, 32, form)
    assert found.parameters > cost(linked((None,) * 6), channels=4, num_classes=5, form=form).parameters
    with pytest.raises(UserError, match="use more channels or fewer reductions"):
        cost(genotype, channels=1, num_classes=5)


def test_what_has_no_meaning_is_refused() -> None:
    for override, words in {
        "search.edge=mixed": "use search.edge one-operation",
        "search.sharing=normal_reduce": "use search.sharing own",
        "ablation.loss=centered": "cannot be removed",
        "search.stages=shapley": "measures gates without links",
        "search.compile=default": "cannot fuse",
        "alpha.grad_mode=published": "set alpha.grad_mode to clean",
    }.items():
        with pytest.raises(UserError, match=words):
            config_of(override)
