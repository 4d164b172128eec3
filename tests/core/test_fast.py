"""Every fast path is the same function as the readable form and the textbook one."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from ddarts_core.ground.errors import UserError
from ddarts_core.networks.depthwise import convolve, input_gradient, weight_gradient
from ddarts_core.networks.operations import BatchNorm
from ddarts_core.networks.separable import normalised_separable, separable
from ddarts_core.settings.config import resolve
from ddarts_core.supernets import execution
from ddarts_core.supernets import fast as fast_form
from ddarts_core.supernets.contributions import ablated_losses, ablated_losses_and_gradient, random_gates
from ddarts_core.supernets.execution import CheckpointedForm, CompiledForm, choose
from ddarts_core.supernets.fast import FastForm
from ddarts_core.supernets.supernet import Cell, CellNotes, MixedOp, batch_statistics, frozen, readable
from ddarts_core.tensors import compiler
from tests.benchmarks.counts import Meter
from tests.core import textbook

CPU = torch.device("cpu")
FORMS = {
    "alone": FastForm(0),
    "merged": FastForm(math.inf),
    "checkpointed": CheckpointedForm(FastForm(0)),
    "readable-checkpointed": CheckpointedForm(readable),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _with(net, form, layout=torch.channels_last):
    other = copy.deepcopy(net).to(memory_format=layout)
    other.form = form
    return other


def _gradients(loss, alphas, net):
    return torch.autograd.grad(loss, [alphas, *net.parameters()])


@pytest.fixture(scope="module")
def literal():
    """By space: the textbook's logits and gradients in two passes, its statistics then, and its logits by them."""
    return {}


@pytest.mark.parametrize(
    ("space", "form", "layout"),
    [
        *itertools.product(["S"], FORMS, LAYOUTS),
        *itertools.product(["S_o", "S_none"], ["merged", "checkpointed"], ["channels_last"]),
    ],
)
def test_logits_gradients_and_running_statistics(float64_net, literal, space, form, layout):
    """Against the textbook form: normal and reduction cells, an odd batch, one image channel, two passes."""
    net, alphas, x, y = float64_net(space=space, image_channels=1, batch=5, num_cells=4)
    fast = _with(net, FORMS[form], LAYOUTS[layout])
    if space not in literal:
        passes = []
        for _ in range(2):
            leaf = alphas.clone().requires_grad_()
            logits = textbook.forward(net, x, list(torch.sigmoid(leaf)))
            passes.append((logits.detach(), _gradients(F.cross_entropy(logits, y), leaf, net)))
        state = copy.deepcopy(net.state_dict())
        literal[space] = passes, state, textbook.forward(net.eval(), x, list(torch.sigmoid(alphas))).detach()
    passes, state, evaluated = literal[space]
    for expected_logits, expected in passes:
        found = alphas.clone().requires_grad_()
        logits = fast(x.contiguous(memory_format=LAYOUTS[layout]), found.sigmoid())
        assert torch.allclose(logits, expected_logits, atol=1e-11)
        for gradient, wanted in zip(_gradients(F.cross_entropy(logits, y), found, fast), expected, strict=True):
            assert torch.allclose(gradient, wanted, atol=1e-10)
    for (name, wanted), value in zip(state.items(), fast.state_dict().values(), strict=True):
        assert torch.allclose(value, wanted, atol=1e-12), name
    assert torch.allclose(fast.eval()(x, alphas.sigmoid()), evaluated, atol=1e-10)


@pytest.mark.parametrize("form", ["alone", "merged"])
def test_running_statistics_of_edges_that_differ(float64_net, form):
    """A loaded state may hold different statistics for pools of one node: each is moved from its own value."""
    net, alphas, x, _ = float64_net()
    for norm in net.modules():
        if isinstance(norm, BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
            norm.num_batches_tracked.random_(0, 9)
    fast = _with(net, FORMS[form])
    gates = alphas.sigmoid()
    net(x, gates)
    fast(x, gates)
    for (name, wanted), value in zip(net.state_dict().items(), fast.state_dict().values(), strict=True):
        assert torch.allclose(value, wanted, atol=1e-12), name
    assert torch.allclose(fast.eval()(x, gates), net.eval()(x, gates), atol=1e-10)


@pytest.mark.parametrize(
    ("one", "other"),
    [("max_pool_3x3", "avg_pool_3x3"), ("dil_conv_3x3", "sep_conv_3x3"), ("dil_conv_3x3", "dil_conv_5x5")],
)
@pytest.mark.parametrize("form", ["alone", "merged"])
def test_edges_that_keep_other_operations(form, one, other):
    """As after a first network of several: pools are not shared then, and weights of another size not stacked."""
    torch.manual_seed(0)
    by_edge = [[name, "skip_connect"] for name in (one, one, other, other, one)]
    cell = Cell(by_edge[0], 2, (4, 4), 4, reduction=False, after_reduction=False, by_edge=by_edge)
    assert FORMS[form]._plan(cell) is not None
    x, gates = torch.randn(2, 4, 6, 6), torch.rand(5, 2)
    other_cell = copy.deepcopy(cell)
    for _ in range(2):  # in training, then by the statistics that it left
        torch.testing.assert_close(FORMS[form](cell, x, x, gates), other_cell(x, x, gates))
        cell.eval(), other_cell.eval()


@pytest.mark.parametrize("form", ["alone", "merged", "checkpointed"])
def test_passes_that_measure_leave_no_trace(float64_net, form):
    net, alphas, x, y = float64_net()
    fast = _with(net, FORMS[form])
    alphas.requires_grad_()
    with batch_statistics(fast), frozen(fast):
        torch.autograd.grad(F.cross_entropy(fast(x, alphas.sigmoid()), y), alphas)
    for (name, wanted), value in zip(net.state_dict().items(), fast.state_dict().values(), strict=True):
        assert torch.equal(value, wanted), name
    assert all(norm.track_running_stats for norm in fast.modules() if isinstance(norm, BatchNorm))


@pytest.mark.parametrize("removal", ["identity", "zero", "uniform", "random"])
@pytest.mark.parametrize("sharing", ["own", "normal_reduce"])
def test_every_removal(float64_net, removal, sharing):
    """Ablated losses with and without notes of the full pass, and their gradient, against the readable form."""
    net, alphas, x, y = float64_net(sharing=sharing, num_cells=3, image_channels=1)
    fast = [_with(net, FORMS[form]) for form in ("alone", "merged", "checkpointed")]
    groups = list(range(net.num_groups))
    results = []
    for of in (net, *fast):
        leaf = alphas.clone().requires_grad_()
        draws = 2 * len(groups) if removal == "random" else 0
        stream = torch.Generator().manual_seed(3)
        with batch_statistics(of), frozen(of):
            gates = leaf.sigmoid()
            noise = [random_gates(of, gates.detach(), stream) for _ in range(draws)]
            notes = [CellNotes() for _ in of.cells]
            outputs = of.outputs(x, gates, notes)
            given = (of, outputs, gates.detach(), y, groups, removal, noise)
            values = torch.stack([ablated_losses(*given, spared) for spared in (None, notes)])
            found, gradient = ablated_losses_and_gradient(of, outputs, gates, y, groups, removal, noise)
        results.append((values, found, gradient))
    for values, found, gradient in results[1:]:
        assert torch.allclose(values, results[0][0], atol=1e-11)
        assert torch.allclose(found, results[0][1], atol=1e-11)
        assert torch.allclose(gradient, results[0][2], atol=1e-10)


def test_compiled_edges():
    """On the CPU; `search.compile=reduce-overhead` is another mode of the same call and needs a GPU."""
    torch.manual_seed(0)
    cell = Cell(("skip_connect", "dil_conv_3x3"), 2, (4, 4), 4, reduction=False, after_reduction=False).double()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    results = []
    for form in (readable, CompiledForm("default")):
        output = form(cell, x, x, gates)
        results.append((output, *torch.autograd.grad(output.square().sum(), (x, gates))))
    for wanted, found in zip(*results, strict=True):
        assert torch.allclose(found, wanted, atol=1e-11)


def test_notes_spare_the_branches_of_unchanged_inputs(float64_net, monkeypatch):
    """The ablated cell and the one after it take what the full pass computed: 2 and 1 of their sources."""
    net, alphas, x, y = float64_net(num_cells=3, steps=2)
    fast = _with(net, FastForm(0))
    computed = []
    leave = type(fast.form).__call__.__globals__["_CellPass"].leave
    monkeypatch.setattr("ddarts_core.supernets.fast._CellPass.leave", lambda *a: computed.append(1) or leave(*a))
    gates = alphas.sigmoid()
    with batch_statistics(fast), torch.no_grad():
        notes = [CellNotes() for _ in fast.cells]
        outputs = fast.outputs(x, gates, notes)
        assert len(computed) == 9
        for group, wanted in ((0, 1 + 2 + 3), (1, 1 + 2), (2, 1)):
            computed.clear()
            ablated_losses(fast, outputs, gates, y, [group], "uniform", [], notes)
            assert len(computed) == wanted


@pytest.mark.parametrize("form", ["alone", "merged"])
def test_float32_is_within_rounding(float64_net, form):
    net, alphas, x, y = float64_net(channels=4, batch=7)
    single = _with(net, FORMS[form]).float()
    wanted, found = (a.clone().requires_grad_() for a in (alphas, alphas.float()))
    expected = F.cross_entropy(textbook.forward(net, x, list(torch.sigmoid(wanted))), y)
    loss = F.cross_entropy(single(x.float(), found.sigmoid()), y)
    assert abs(loss.item() - expected.item()) < 1e-5
    for gradient, exact in zip(_gradients(loss, found, single), _gradients(expected, wanted, net), strict=True):
        assert torch.allclose(gradient.double(), exact, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), list(itertools.product((3, 5, 7), (1, 2), (1, 2))))
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 5), (1, 2), (3, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_depthwise_gradients(kernel, stride, dilation, height, width, layout):
    torch.manual_seed(0)
    x = torch.randn(3, 4, height, width, dtype=torch.float64).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    weight = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, weight, None, stride, dilation * (kernel // 2), dilation, groups=4)
    upstream = torch.randn_like(y)
    assert torch.allclose(convolve(x, weight, stride, dilation), y, atol=1e-12)
    expected = torch.autograd.grad(y, (x, weight), upstream)
    with torch.no_grad():
        assert torch.allclose(input_gradient(upstream, weight, x, stride, dilation), expected[0], atol=1e-12)
        assert torch.allclose(weight_gradient(upstream, weight, x, stride, dilation), expected[1], atol=1e-12)


@pytest.mark.parametrize(("size", "dilation", "kept"), [(8, 1, 7), (5, 2, 5), (4, 2, 3), (2, 1, 3), (1, 2, 3)])
def test_weights_that_meet_nothing_but_padding_are_left_out(size, dilation, kept):
    with Meter() as meter:
        convolve(torch.zeros(2, 4, size, size), torch.zeros(4, 1, 7, 7), 1, dilation)
    assert meter.macs == 2 * 4 * size**2 * kept**2


@pytest.mark.parametrize(
    ("groups", "kernel", "stride", "dilation"), [(1, 3, 1, 1), (2, 5, 2, 1), (2, 5, 1, 2), (1, 3, 2, 2)]
)
def test_separable_half_by_finite_differences(groups, kernel, stride, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    depthwise = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    pointwise = torch.randn(4, 4 // groups, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: separable(*a, stride, dilation), (x, depthwise, pointwise))
    assert torch.autograd.gradcheck(lambda *a: normalised_separable(*a, [], 0.1, 1e-5), (x, depthwise, pointwise))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("edges", [2, 3, 4])
def test_merged_edges_give_the_bits_of_a_sum(edges, dtype):
    """The gradient of the shared input, whose additions one by one would round twice in 16 bits."""
    torch.manual_seed(0)
    x = torch.randn(4, 8, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = [torch.randn(edges * 8, width, k, k).to(dtype) for width, k in ((1, 3), (8, 1))]
    stacked = torch.cat([x.detach()] * edges, 1).requires_grad_()
    for source, each in ((x, stacked.detach()), (stacked, stacked)):
        separable(source, *weights, 1, 1, each).square().sum().backward()
    assert torch.equal(x.grad, stacked.grad.unflatten(1, (edges, -1)).sum(1))


@pytest.mark.parametrize("of_gates", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("edges", [2, 3, 4])
def test_a_branch_that_edges_share_gives_the_bits_of_five_dimensions(edges, layout, of_gates, monkeypatch):
    """Values, gradients and their layout, from which normalisations go on, and no more bytes kept."""
    results = []
    for slow in (True, False):
        monkeypatch.setattr(fast_form, "sums_slowly", lambda x, slow=slow: slow)
        torch.manual_seed(0)
        total = torch.randn(5, edges * 8, 6, 6).contiguous(memory_format=LAYOUTS[layout])
        branch = torch.randn(5, 8, 6, 6).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
        scale = torch.randn(edges * 8, requires_grad=of_gates)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.nbytes) or x, lambda x: x):
            mixed = fast_form._add_scaled(total, branch, scale, edges)
        gradients = torch.autograd.grad(mixed, [branch, scale][: 1 + of_gates], torch.randn_like(mixed))
        results.append((sum(kept), mixed, *gradients))
    assert results[0][0] <= results[1][0]
    for found, wanted in zip(results[0][1:], results[1][1:], strict=True):
        assert torch.equal(found, wanted) and found.stride() == wanted.stride()


def test_a_pass_keeps_less_than_a_third_of_the_textbook(float64_net):
    """Bytes that autograd stores, which no clock can disturb."""

    def saved(compute, of):
        storages = {}
        weights = {weight.untyped_storage().data_ptr() for weight in of.parameters()}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = compute()
        del loss
        return sum(size for address, size in storages.items() if address not in weights)

    net, alphas, x, y = float64_net(channels=16, batch=8, num_cells=3, steps=4)
    net, alphas, x = net.float(), alphas.float(), x.float()
    fast = _with(net, FastForm(0))
    alphas.requires_grad_()

    def literal():
        return F.cross_entropy(textbook.forward(net, x, list(torch.sigmoid(alphas))), y)

    def ours():
        return F.cross_entropy(fast(x, alphas.sigmoid()), y)

    assert saved(ours, fast) < saved(literal, net) / 3
    with frozen(fast):
        assert saved(ours, fast) < saved(literal, net) / 3


def _config(*overrides):
    return resolve({"search": {"num_cells": 3, "channels": 2, "steps": 2}}, overrides)


def test_searches_before_do_not_use_up_what_torch_compiles(monkeypatch):
    """Of trials in one process, each with other widths: beyond a limit torch compiles nothing more, in silence."""
    compiled, compile_ = [], torch.compile

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, dynamic, mode: compile_(f, dynamic=dynamic, backend=backend))
    monkeypatch.setattr(compiler, "RECOMPILE_LIMIT", 2)
    with torch._dynamo.config.patch(recompile_limit=2):
        for channels in range(2, 7):
            form = execution.CompiledForm("default")
            form.mix(MixedOp(("avg_pool_3x3",), channels, 1), torch.zeros(2, channels, 4, 4), torch.ones(1))
            assert len(compiled) == channels - 1


def test_what_auto_chooses():
    on_cpu, on_gpu = (choose(_config(), torch.device(name)) for name in ("cpu", "cuda"))
    assert isinstance(on_cpu.form, FastForm) and on_cpu.form.merge_bytes < math.inf
    assert isinstance(on_gpu.form, FastForm) and on_gpu.form.merge_bytes == math.inf
    assert on_cpu.layout == on_gpu.layout == torch.channels_last
    assert on_cpu.autocast is None and not on_cpu.scales_loss
    assert choose(_config("search.implementation=readable"), CPU).form is readable


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("search.amp=fp16",), "fp16 needs a GPU"),
        (("search.amp=bf16", "method=darts-second-order"), "order second"),
        (("search.amp=bf16", "method=ddarts-published"), "published"),
        (("search.compile=default", "search.checkpoint_cells=true"), "exclude each other"),
        (("search.compile=default", "search.implementation=fast"), "readable form"),
        (("search.compile=reduce-overhead",), "needs a GPU"),
    ],
)
def test_settings_that_exclude_each_other(overrides, words):
    with pytest.raises(UserError, match=words):
        choose(_config(*overrides), CPU)


OPTIONS = [
    ("search.implementation=readable",),
    ("search.checkpoint_cells=true",),
    ("search.memory_format=contiguous",),
    ("search.amp=bf16",),
]
ON_A_GPU = [
    *OPTIONS,
    ("search.amp=fp16",),
    ("search.compile=default",),
    ("search.compile=reduce-overhead", "ablation.loss=monitor"),
    ("search.compile=reduce-overhead", "ablation.loss=centered"),
]


@pytest.mark.parametrize(
    ("device", "overrides"),
    [
        *(("cpu", overrides) for overrides in OPTIONS),
        *(pytest.param("cuda", overrides, marks=pytest.mark.gpu) for overrides in ON_A_GPU),
    ],
)
def test_an_option_does_not_change_a_search(digits, tiny_config, device, overrides):
    """One epoch from one seed: the same up to rounding (16 bits: three digits)."""
    same = ["search.epochs=1", f"search.device={device}", *(text for text in overrides if "ablation" in text)]
    (wanted,) = digits(tiny_config(*same)).records()
    (found,) = digits(tiny_config(*same, *overrides)).records()
    tolerance = 5e-2 if "search.amp" in overrides[0] else {"cpu": 1e-4, "cuda": 1e-3}[device]
    for name in ("train/loss", "alpha/loss"):
        assert found.metrics[name] == pytest.approx(wanted.metrics[name], rel=tolerance)
    assert found.contributions == pytest.approx(wanted.contributions, abs=4 * tolerance)
