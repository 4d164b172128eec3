"""What every method owes, by being in the table; and what each one of them is, derived a second time."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from ddarts_cli.commands.methods import command
from ddarts_core import methods
from ddarts_core.data.images import DataInfo
from ddarts_core.extension import conformance
from ddarts_core.extension.conformance import equal
from ddarts_core.extension.conformance import small as tiny
from ddarts_core.genotypes.spaces import S_NONE, edge_list
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.methods import METHODS
from ddarts_core.methods.parts import Progress
from ddarts_core.methods.pcdarts import softmax_per_node
from ddarts_core.networks import operations
from ddarts_core.search.architecture import Architecture
from ddarts_core.search.discretise import select, without_skips
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import resolve
from ddarts_core.settings.search_settings import DiscretiseConfig, SearchConfig
from ddarts_core.supernets.fast import FastForm
from ddarts_core.supernets.partial_channels import PartialMixedOp
from ddarts_core.supernets.supernet import MixedOp, Supernet, batch_statistics

CIFAR = DataInfo("cifar10", 10, 3, 32, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


# --- what every method owes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_on_bit_for_bit_after_every_epoch(name: str, digits) -> None:
    conformance.goes_on(name, digits)


#: Their gates are drawn, so their gradient is an estimate by definition, tested by `test_sampling_methods.py`.
ESTIMATED = {"gdas", "drnas"}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ESTIMATED])
def test_the_gradient_is_that_of_the_loss_that_a_method_states(name: str) -> None:
    conformance.follows_its_gradient(name)


@pytest.mark.parametrize("name", METHODS)
def test_an_alpha_step_leaves_no_trace_in_the_weights(name: str, digits) -> None:
    conformance.keeps_weights_from_alpha_steps(name, digits)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("darts", 1_930_618),
        ("fairdarts", 1_930_618),
        ("ddarts", 1_930_618),
        ("pcdarts", 299_578),
        ("dots", 1_931_130),
        ("pdarts", 1_275_834),
        ("udarts", 4_580_218),
    ],
)
def test_weights_of_the_published_supernets(name: str, weights: int) -> None:
    """Counted by running the published code."""
    with torch.device("meta"):
        net = Supernet(resolve({"method": name}).search, CIFAR)
    assert sum(weight.numel() for weight in net.parameters()) == weights


def test_the_command_prints_formula_source_and_what_is_open() -> None:
    printed = CliRunner().invoke(command, ["pcdarts"]).output
    method = METHODS["pcdarts"]
    for text in (method.formula, method.source, *method.uncertain, "search.options.channel_share = 4"):
        assert text in printed
    parts = CliRunner().invoke(command, ["--parts"]).output
    assert all(part.name in parts for _, part in methods.all_parts()) and "search.options.channel_share: K" in parts


def test_the_method_of_the_documents_runs(digits, tmp_path) -> None:
    (code,) = re.findall(
        r"```python\n(from pydantic import Field\n.*?)```", Path("docs/extending.md").read_text(), re.S
    )
    (tmp_path / "my_plugin.py").write_text(code)
    plugins.load(str(tmp_path / "my_plugin.py"))
    config = tiny("entropic", "search.options.coldest=0.5")
    search = digits(config)
    record = list(search.records())[-1]
    # Past its end a search is where its last epoch was: the third of three, whose temperature is 0.5^(2/3).
    assert torch.allclose(search.decided_gates, (search.alphas / 0.5 ** (2 / 3)).softmax(-1))
    entropy = search.architecture.values(search.parameters, Progress(2, 3, 1, 2))["entropy"]
    own = (search.alphas / 0.5 ** (2 / 3)).softmax(-1)
    assert torch.allclose(entropy, 0.05 * -(own * own.log()).sum(-1).mean(1))
    assert "alpha/entropy" in record.metrics
    with pytest.raises(UserError, match="there is a method 'entropic' already"):
        methods.add("entropic", METHODS["darts"])


def test_ddarts_with_two_groups_and_no_ablation_is_fairdarts(digits) -> None:
    same = (
        "search.sharing=normal_reduce",
        "search.w_zero_one=10",
        "alpha.schedule=constant",
        "alpha.weight_decay=1e-3",
    )
    ours = digits(tiny("ddarts", *same, "ablation.loss=none", "discretise.edges_per_node=2"))
    theirs = digits(tiny("fairdarts"))
    assert list(ours.records()) == list(theirs.records()) and equal(ours.net.state_dict(), theirs.net.state_dict())
    assert ours.discretise() == theirs.discretise()


# --- operations that nobody here knows ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(methods.EDGES) - {"partial-channels"}))
def test_an_edge_with_one_gate_open_is_that_operation(name: str) -> None:
    """So one-hot gates give the derived network (`test_one_hot`); partial channels, which it lacks, are below."""
    conformance.opens_one_gate(name)


class Foreign(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.conv(x))


class Residual(operations.Normalised):
    def forward(self, x):
        changed = super().forward(x)
        return changed + F.adaptive_avg_pool2d(x, changed.shape[2:])


class Doubled(nn.MaxPool2d):
    def forward(self, x):
        return 2 * super().forward(x).sigmoid()


def conv(channels: int, kernel: int = 1, stride: int = 1, **options: Any) -> nn.Module:
    return operations.Conv2d(channels, channels, kernel, stride, kernel // 2, **{"bias": False, **options})


def separable(channels: int, stride: int, first: type[nn.Module] = operations.BatchNorm, **options: Any) -> nn.Module:
    halves = [
        [nn.ReLU(), conv(channels, 3, s, groups=channels, **options), conv(channels), norm(channels, affine=False)]
        for s, norm in ((stride, first), (1, operations.BatchNorm))
    ]
    return operations.Separable(*halves[0], *halves[1])


#: Operations of a user's that look like ours.
FOREIGN = {
    "a module": Foreign,
    "torch's last": lambda c, s: operations.Normalised(nn.ReLU(), conv(c, 3, s), nn.BatchNorm2d(c, affine=False)),
    "torch's within": lambda c, s: separable(c, s, first=nn.BatchNorm2d),
    "weights of its own": lambda c, s: operations.Normalised(nn.ReLU(), conv(c, 3, s), operations.BatchNorm(c)),
    "no ReLU": lambda c, s: operations.Normalised(nn.GELU(), conv(c, 3, s), operations.BatchNorm(c, affine=False)),
    "a subclass": lambda c, s: Residual(nn.ReLU(), conv(c, 3, s), operations.BatchNorm(c, affine=False)),
    "another pool": lambda c, s: Doubled(3, s, padding=1),
    "another padding": lambda c, s: separable(c, s, padding_mode="reflect"),
    "a bias": lambda c, s: separable(c, s, bias=True),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_operation_that_nobody_here_knows_runs_in_the_readable_form(kind: str, monkeypatch) -> None:
    """Bit for bit, and an alpha step leaves its running statistics alone."""

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        return FOREIGN[kind](channels, stride)

    monkeypatch.setitem(operations.OPERATIONS._entries, "avg_pool_3x3", factory)
    torch.manual_seed(0)
    info = DataInfo("x", num_classes=4, channels=1, image_size=8, mean=(0.5,), std=(0.5,))
    net = Supernet(SearchConfig(num_cells=3, channels=2, steps=2), info).train()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 2)
    x, gates = torch.randn(4, 1, 8, 8), torch.rand(3, 5, 7)
    before = copy.deepcopy(net.state_dict())
    with batch_statistics(net):
        readable = net(x, gates)
        net.form = FastForm(0)
        assert torch.equal(net(x, gates), readable)
    assert equal(dict(net.state_dict()), dict(before))
    net(x, gates)
    moved = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert any("ops.1." in key and "running_mean" in key for key in moved)


# --- DARTS-, beta-DARTS, PC-DARTS, P-DARTS --------------------------------------------------------------------------


def test_darts_minus_without_its_skip_is_darts() -> None:
    info = DataInfo("x", num_classes=4, channels=1, image_size=8, mean=(0.5,), std=(0.5,))
    darts, minus = (tiny(name, "search.batch_size=4").search for name in ("darts", "darts-minus"))
    torch.manual_seed(0)
    plain, skipping = Supernet(darts, info), Supernet(minus, info)
    lacking = skipping.load_state_dict(plain.state_dict(), strict=False)
    assert not lacking.unexpected_keys and all(".ops.8." in key for key in lacking.missing_keys)
    parameters = Architecture(darts, 2).parameters(torch.Generator().manual_seed(0))
    x = torch.randn(4, 1, 8, 8)
    last = Progress(50, 50)  # its weight is 0 there
    expected = plain(x, Architecture(darts, 2).gates(parameters, last))
    assert torch.equal(skipping(x, Architecture(minus, 2).gates(parameters, last)), expected)
    first = Architecture(minus, 2).gates(parameters, Progress(0, 50))
    assert not torch.allclose(skipping(x, first), expected)
    assert first[..., 8].unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("decay", "expected"), [("linear", 0.8), ("cosine", 0.904508), ("slow-cosine", 0.951057), ("constant", 1.0)]
)
def test_the_weight_of_the_auxiliary_skip(decay: str, expected: float) -> None:
    search = tiny("darts-minus", f"search.options.auxiliary_decay={decay}").search
    (weight,) = methods.EDGES["auxiliary-skip"](search).weights(Progress(10, 50))
    assert weight == pytest.approx(expected, abs=1e-6)


def test_beta_decay_by_autograd_and_its_weight() -> None:
    config = resolve({"method": "beta-darts"})
    architecture = Architecture(config.search, 2)
    ((term, setting),) = architecture.terms
    assert [architecture.weight(setting, Progress(e, 50, e, 50)) for e in (0, 1, 49)] == [0, 0.5, 24.5]
    alphas = torch.randn(2, 14, 8, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(alphas.exp().sum(-1).log().flatten().mean(), alphas)
    found = architecture.pull({"alphas": alphas.detach()}, Progress(20, 50, 20, 50))["alphas"]
    assert torch.allclose(found, 10 * expected)
    assert torch.allclose(found, 10 * alphas.detach().softmax(-1) / 28)
    assert torch.allclose(term.value({"alphas": alphas}, alphas), alphas.logsumexp(-1).mean(-1))


@pytest.mark.parametrize("stride", [1, 2])
def test_partial_channels_by_hand(stride: int) -> None:
    """The published shuffle: view (batch, K, channels / K), transposed."""
    torch.manual_seed(0)
    edge = PartialMixedOp(S_NONE, 8, stride, share=4).double()
    x, gates = torch.randn(3, 8, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64).softmax(-1)
    through = sum(gate * op(x[:, :2]) for gate, op in zip(gates, edge.ops, strict=True))
    past = x[:, 2:] if stride == 1 else F.max_pool2d(x[:, 2:], 2, 2)
    joined = torch.cat([through, past], 1)
    size = joined.shape[-1]
    shuffled = joined.view(3, 4, 2, size, size).transpose(1, 2).reshape(3, 8, size, size)
    assert torch.allclose(edge(x, gates), shuffled)


def test_pcdarts_with_all_channels_and_equal_edges_is_darts() -> None:
    torch.manual_seed(0)
    whole, partial = MixedOp(S_NONE, 4, 1), PartialMixedOp(S_NONE, 4, 1, share=1)
    partial.mixed.load_state_dict(whole.state_dict())
    x, gates = torch.randn(2, 4, 6, 6), torch.rand(8)
    assert torch.equal(partial(x, gates), whole(x, gates))
    search = resolve({"method": "pcdarts"}).search
    parameters = Architecture(search, 2).parameters(torch.Generator().manual_seed(0))
    parameters["edges"].zero_()
    found = Architecture(search, 2).gates(parameters, Progress())
    into = torch.tensor([float(target) for _, target in edge_list(4)])  # node 2 has two edges, node 3 three, ...
    assert torch.allclose(found * into[:, None], parameters["alphas"].softmax(-1))
    weights = softmax_per_node(torch.randn(2, 14))
    for node in range(2, 6):
        assert torch.allclose(weights[:, into == node].sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("search.channels=6",), "search.channels 6 must be a multiple of search.options.channel_share 4"),
        (("search.gates=sigmoid", "search.w_zero_one=1"), "partial-channels needs gates that sum"),
        (("search.options.temperature=1",), "unknown option 'temperature': choose one of channel_share"),
        (("search.options.channel_share=0",), "channel_share"),
    ],
)
def test_parts_refuse_what_has_no_meaning(overrides, words) -> None:
    with pytest.raises(UserError, match=words):
        resolve({"method": "pcdarts"}, overrides)


def test_the_networks_of_pdarts(digits) -> None:
    course = Course(resolve({"method": "pdarts"}))
    epochs = [(stage.phase, stage.epochs, course.settings(n).search.num_cells) for n, stage in enumerate(course.stages)]
    assert epochs == [
        (phase, length, cells) for cells in (5, 11, 17) for phase, length in (("warmup", 10), ("search", 15))
    ]
    assert [course.stages[n].kept for n in (0, 2, 4)] == [None, 5, 3]
    place = course.at(36)
    assert (place.network, place.stage_epoch, place.epoch, place.epochs) == (1, 1, 11, 25)
    search = digits(tiny("pdarts"))
    kept = []
    for record in search.records():
        if record.phase == "search":
            names = [[len(edge.ops) for edge in cell.edges] for cell in search.net.cells]
            assert {number for cell in names for number in cell} == {
                8 if search.kept is None else len(search.kept[0][0])
            }
            kept.append((len(search.net.cells), names[0][0], search.architecture.own_scores(search.parameters)))
    assert [(cells, operations) for cells, operations, _ in kept] == [(3, 8), (4, 5), (5, 3)]
    assert search.architecture.scores(search.parameters).count_nonzero(-1).unique().tolist() == [3]


def test_the_best_operations_are_kept() -> None:
    plan = methods.PLANS["progressive"](resolve({"method": "pdarts"}).search)
    scores = [[[0.1, 0.4, 0.2, 0.3], [0.3, 0.3, 0.3, 0.1]]]
    assert plan.keep(scores, [[[0, 2, 5, 7], [1, 2, 3, 4]]], 2) == [[[2, 7], [1, 2]]]


def test_dropout_of_skips_falls() -> None:
    from ddarts_core.supernets.skip_dropout import DroppedIdentity

    search = tiny("pdarts", "search.options.skip_dropout=0.5").search
    edge = methods.EDGES["skip-dropout"](search)
    module = edge.build(S_NONE, 2, 1)
    (skip,) = (op for op in module.ops if isinstance(op, DroppedIdentity))
    draw = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    for progress, expected in (
        (Progress(0, 25, 0, 10), 0.48),
        (Progress(9, 25, 9, 10), 0.3),
        (Progress(12, 25, 2, 15), 0.5 * math.exp(-0.4)),
    ):
        edge.begin(module, progress)
        assert skip.probability == pytest.approx(expected)
    x = torch.ones(1000, 2, 4, 4)
    edge.begin(module, Progress(0, 25, 0, 10, "weights", draw))
    kept = skip(x)
    assert kept.mean() == pytest.approx(1, abs=0.02) and (kept == 0).float().mean() == pytest.approx(0.48, abs=0.02)
    assert torch.equal(skip.eval()(x), x)


def test_skips_are_taken_one_by_one() -> None:
    """Two intermediate nodes, each with skips on its best edges; the weakest skips give way first."""
    names = ("skip_connect", "sep_conv_3x3")
    gates = [[0.9, 0.1], [0.8, 0.3], [0.7, 0.2], [0.6, 0.05], [0.1, 0.01]]
    config = DiscretiseConfig(rule="darts", threshold=0.0, max_skips=2)
    assert sum(edge.op == "skip_connect" for edge in select(gates, names, 2, config)) == 4
    restricted = without_skips(gates, names, 2, config)
    # 0.6 goes first (its edge then has 0.05, below edge 4's skip 0.1), then that skip, then 0.7.
    assert [row[0] for row in restricted] == [0.9, 0.8, 0.0, 0.0, 0.0]
    found = select(restricted, names, 2, config)
    assert [(edge.target, edge.source, edge.op) for edge in found if edge.op == "skip_connect"] == [
        (2, 0, "skip_connect"),
        (2, 1, "skip_connect"),
    ]


# --- DOTS, random search --------------------------------------------------------------------------------------------


def test_the_stages_of_dots(digits) -> None:
    course = Course(resolve({"method": "dots"}))
    assert [(stage.phase, stage.epochs, stage.fresh) for stage in course.stages] == [
        ("warmup", 15, False),
        ("search", 15, False),
        ("warmup", 20, True),
        ("joint", 20, False),
    ]
    assert (course.at(69).epoch, course.at(69).epochs) == (69, 70)  # one cosine of the learning rate over all
    gates = methods.GATES["softmax-pairs"](course.settings(3).search)
    parameters = {"alphas": torch.randn(2, 14, 2).double(), "pairs": torch.randn(2, 20).double()}
    for epoch in (0, 7, 19):
        temperature = 10 * (0.02 / 10) ** (epoch / 19)
        found = gates.gates(parameters, Progress(0, 70, epoch, 20))
        for group in range(2):
            first = 0
            for node in range(2, 6):
                into = [e for e, (_, target) in enumerate(edge_list(4)) if target == node]
                pairs = [(a, b) for i, a in enumerate(into) for b in into[i + 1 :]]
                values = [
                    math.exp(v / temperature) for v in parameters["pairs"][group, first : first + len(pairs)].tolist()
                ]
                first += len(pairs)
                for edge in into:
                    weight = sum(v for pair, v in zip(pairs, values, strict=True) if edge in pair) / sum(values)
                    assert float(found[group, edge].sum()) == pytest.approx(weight, abs=1e-9)
    search = digits(tiny("dots"))
    records = list(search.records())
    assert [record.phase for record in records] == ["search", "warmup", "joint"]
    names = S_NONE
    for kept in (edge for group in search.kept for edge in group):
        assert len(kept) == 2 and names[kept[0]] in names[:4] and names[kept[1]] in names[4:]
    genotype = search.discretise().genotype
    assert all(sum(edge.target == node for edge in cell.edges) == 2 for cell in genotype.cells for node in (2, 3))


def test_groups_of_operations_sum_to_one_each() -> None:
    gates = methods.GATES["softmax-groups"](resolve({"method": "dots"}).search)
    alphas = torch.randn(2, 14, 8)
    found = gates.gates({"alphas": alphas}, Progress())
    assert torch.allclose(found, torch.cat([alphas[..., :4].softmax(-1), alphas[..., 4:].softmax(-1)], -1))


def test_random_search_draws_a_genotype_and_never_trains_alphas(digits) -> None:
    search = digits(tiny("random"))
    before = search.alphas
    assert [record.phase for record in search.records()] == ["warmup"] * 3
    assert torch.equal(search.alphas, before)
    others = {digits(tiny("random", f"seed={seed}")).discretise().genotype.hash for seed in range(4)}
    assert len(others) == 4


# --- OLES -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["fast", "readable"])
def test_oles_freezes_the_operations_whose_gradients_disagree(form: str, digits) -> None:
    """Mean cosines of two steps by plain backward passes on a twin; what is frozen takes not even the deciding step."""
    settings = (f"search.implementation={form}", "search.weight_decay=0.01", "search.warmup_epochs=0")
    config = tiny("oles", *settings, "search.options.freeze_below=0")
    search, twin = digits(config), digits(config)
    batches = list(zip(search._batches(search.splits.weights, "weights", 0, 0), search._alpha_batches(0), strict=False))
    operations = [
        [list(op.parameters()) for cell in found.net.cells for edge in cell.edges for op in edge.ops]
        for found in (search, twin)
    ]
    own, plain = ([weights for weights in found if weights] for found in operations)

    def gradients(batch) -> list[torch.Tensor]:
        twin.net.zero_grad()
        twin.net.train()
        with batch_statistics(twin.net):
            F.cross_entropy(twin.net(batch[0], twin.gates), batch[1]).backward()
        return [torch.cat([weight.grad.flatten() for weight in weights]) for weights in plain]

    found = []
    for step, (weights, alphas) in enumerate(batches[:2]):
        of_alphas = gradients(alphas)
        twin._alpha_step(alphas, weights, 0, step)
        found.append(
            torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in zip(of_alphas, gradients(weights), strict=True)])
        )
        twin._weight_step(*weights, 0, step)
        search._alpha_step(alphas, weights, 0, step)
        assert not search._watch.frozen.any()
        before = copy.deepcopy(own)
        search._weight_step(*weights, 0, step)
    expected = torch.stack(found).nanmean(0) < 0
    assert torch.equal(search._watch.frozen, expected) and 0 < int(expected.sum()) < len(expected)
    search._alpha_step(*batches[0][::-1], 0, 2)
    search._weight_step(*batches[0][0], 0, 2)
    for frozen, old, new in zip(expected.tolist(), before, own, strict=True):
        assert all(torch.equal(a, b) == frozen for a, b in zip(old, new, strict=True))


def test_any_method_may_freeze_and_second_order_may_not(digits) -> None:
    rule = ("search.freezing=gradient-direction", "search.options.freeze_every=1", "search.options.freeze_below=1")
    search = digits(tiny("gdas", *rule))
    *_, record = search.records()
    sampled = search._watch.frozen
    assert 0 < record.metrics["operations/frozen"] == int(sampled.sum()) < len(sampled)
    with pytest.raises(UserError, match="gradient-direction compares first-order gradients"):
        tiny("darts-second-order", *rule)
