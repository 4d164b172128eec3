"""The search loop: no leak between splits, the published loop reproduced, bit-exact repetition and resumption."""

from __future__ import annotations

import io
import json
import math
import warnings

import pytest
import torch
from torch.nn import functional as F

from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.loops.records import read_jsonl, write_jsonl
from ddarts_core.methods.parts import Progress
from ddarts_core.networks.operations import BatchNorm
from ddarts_core.search import alpha_step
from ddarts_core.settings.config import resolve
from ddarts_core.settings.hashing import config_hash
from ddarts_core.tensors.seeding import generator
from tests.core import textbook

LOSSES = ["none", "monitor", "centered", "relative", "paper", "rescale", "credit"]


def _records(search):
    return [json.dumps(record.to_dict(), sort_keys=True) for record in search.records()]


def _state_bytes(search) -> bytes:
    buffer = io.BytesIO()
    torch.save(search.state_dict(), buffer)
    return buffer.getvalue()


def _batches(search, epoch=0):
    weights = list(search._batches(search.splits.weights, "weights", epoch, 0))
    alphas = search._alpha_batches(epoch)
    return [(next(alphas), batch) for batch in weights]


def test_records_carry_their_splits(digits, tiny_config):
    search = digits(tiny_config("search.warmup_epochs=1"))
    warmup, first, last = list(search.records())
    assert (warmup.phase, first.phase, last.phase) == ("warmup", "search", "search")
    assert not any(name.startswith("alpha/") for name in warmup.metrics) and not warmup.contributions
    names = set(last.metrics)
    for split in ("train", "alpha", "held_out"):
        assert {f"{split}/loss", f"{split}/accuracy"} <= names
    assert {
        "held_out/balanced_accuracy",
        "held_out/recalibration_batches",
        "alpha/zero_one",
        "alpha/total",
        "saturation/over_0.9",
        "discretised/skip_connections",
    } <= names
    assert len(last.contributions) == len(last.ablation) == 3
    assert abs(sum(last.ablation)) < 1e-4
    assert len(last.alphas) == 3 and len(last.alphas[0]) == 5 and len(last.alphas[0][0]) == 7


@pytest.mark.parametrize(("loss", "removal"), [("centered", "identity"), *((loss, "random") for loss in LOSSES)])
def test_same_seed_same_records_and_genotype(digits, tiny_config, loss, removal):
    config = tiny_config(f"ablation.loss={loss}", f"ablation.removal={removal}", "search.epochs=1")
    one, two = digits(config), digits(config)
    assert _records(one) == _records(two)
    assert _state_bytes(one) == _state_bytes(two)
    assert one.discretise() == two.discretise()


def test_another_seed_is_another_search(digits, tiny_config):
    one, two = tiny_config("search.epochs=1"), tiny_config("search.epochs=1", "seed=1")
    assert _records(digits(one)) != _records(digits(two))


@pytest.mark.parametrize(
    "overrides",
    [
        ("ablation.sample_cells=2", "ablation.removal=random", "ablation.num_draws=2", "ablation.schedule=rising"),
        ("ablation.every=3", "alpha.init=normal", "data.flip=true", "data.crop_padding=1", "data.cutout=2"),
        ("search.order=single_level", "search.warmup_epochs=1"),
    ],
)
def test_resumed_at_any_epoch_is_bit_exact(digits, tiny_config, overrides):
    """Each method does, with its own settings, too: `test_methods.py`."""
    config = tiny_config("search.epochs=3", *overrides)
    whole = digits(config)
    records, states = [], []
    for record in whole.records():
        records.append(json.dumps(record.to_dict(), sort_keys=True))
        states.append(_state_bytes(whole))
    for stop in range(1, whole.num_epochs):
        resumed = digits(config)
        resumed.load_state_dict(torch.load(io.BytesIO(states[stop - 1]), weights_only=True))
        record = next(resumed.records())
        assert json.dumps(record.to_dict(), sort_keys=True) == records[stop]
        assert _state_bytes(resumed) == states[stop], "from which the next epoch follows, which is resumed too"


@pytest.mark.parametrize("method", ["ddarts", "ddarts-published"])
def test_a_state_of_before_there_were_methods_goes_on(digits, tiny_config, method):
    """As version 0.1 wrote it: alphas in a tensor of their own, no stages, the leak's residual of alphas alone."""
    config = tiny_config(f"method={method}", "search.epochs=2", "search.warmup_epochs=1")
    calm, torn = digits(config), digits(config)
    whole = _records(calm)
    list(zip(range(2), torn.records(), strict=False))
    state = torn.state_dict()
    alphas, step = state.pop("architecture")["alphas"], dict(state["alpha_step"])
    step["residual"] = None if step["residual"] is None else step["residual"]["alphas"]
    old = {key: value for key, value in state.items() if key not in ("stage", "kept")}
    resumed = digits(config)
    resumed.load_state_dict(old | {"alphas": alphas, "alpha_step": step})
    assert whole[2:] == _records(resumed)
    assert _state_bytes(calm) == _state_bytes(resumed)


def test_a_state_of_another_configuration_is_refused(digits, tiny_config):
    state = digits(tiny_config()).state_dict()
    with pytest.raises(UserError, match="another configuration"):
        digits(tiny_config("search.lr=0.01")).load_state_dict(state)


def test_where_it_is_stored_does_not_change_a_search(digits, tiny_config):
    state = digits(tiny_config()).state_dict()
    digits(tiny_config("name=other", "storage=elsewhere")).load_state_dict(state)


def _to_double(search):
    """The same search in float64, so that sums taken in another order still agree to 1e-6 after Adam."""
    search.net.double()
    alphas = [torch.nn.Parameter(alpha.detach().double()) for alpha in search._parameters["alphas"]]
    search._parameters = {"alphas": alphas}
    alpha = search.config.alpha
    search._adams = [
        torch.optim.Adam([a], lr=alpha.lr, betas=alpha.betas, weight_decay=alpha.weight_decay) for a in alphas
    ]
    return search


def _mixture(search, step_batches):
    """Coefficients of the two splits' gradients in one actual weight step (least squares), and the residual."""
    (x_alpha, y_alpha), (x_weight, y_weight) = step_batches
    weights = list(search.net.parameters())
    for group in search._sgd.param_groups:
        group.update(momentum=0.0, weight_decay=0.0)
    before = [weight.detach().clone() for weight in weights]
    search._alpha_step((x_alpha, y_alpha), (x_weight, y_weight), 0, 0)
    unchanged = all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    gates = search.gates

    def gradient(x, y, gates):
        loss = F.cross_entropy(search.net(x, gates), y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]).double()

    gates_before = torch.zeros_like(gates).sigmoid()
    on_alpha = gradient(x_alpha, y_alpha, gates_before).detach()
    on_weight = gradient(x_weight, y_weight, gates)
    search._weight_step(x_weight, y_weight)
    lr = search._sgd.param_groups[0]["lr"]
    step = torch.cat([((old - weight) / lr).flatten() for old, weight in zip(before, weights, strict=True)]).double()
    found = torch.linalg.lstsq(torch.stack([on_weight, on_alpha], 1), step.detach()[:, None])
    fitted = torch.stack([on_weight, on_alpha], 1) @ found.solution
    residual = (fitted[:, 0] - step).norm() / step.norm()
    return found.solution.flatten().tolist(), residual.item(), unchanged


@pytest.mark.parametrize("loss", ["centered", "monitor", "relative"])
def test_weights_never_see_the_alpha_split(digits, tiny_config, loss):
    search = digits(tiny_config(f"ablation.loss={loss}", "search.grad_clip=1e9", "search.lr=1.0"))
    search = _to_double(search)
    batches = [tuple((x.double(), y) for x, y in pair) for pair in _batches(search)]
    (on_weight, on_alpha), residual, unchanged = _mixture(search, batches[0])
    assert unchanged
    assert on_weight == pytest.approx(1, abs=1e-6)
    assert on_alpha == pytest.approx(0, abs=1e-6)
    assert residual < 1e-6


def test_the_probe_catches_the_published_leak(digits, tiny_config):
    search = digits(tiny_config("method=ddarts-published", "search.grad_clip=1e9", "search.lr=1.0"))
    search = _to_double(search)
    batches = [tuple((x.double(), y) for x, y in pair) for pair in _batches(search)]
    (on_weight, on_alpha), residual, _ = _mixture(search, batches[0])
    assert on_weight == pytest.approx(1, abs=1e-6)
    assert on_alpha == pytest.approx(3, abs=1e-6)  # once per cell
    assert residual < 1e-6


@pytest.mark.parametrize("loss", ["none", "centered", "monitor"])
def test_running_statistics_move_once_per_weight_step(digits, tiny_config, loss):
    search = digits(tiny_config(f"ablation.loss={loss}", "search.epochs=1"))
    steps = len(_batches(search))
    before = {name: value.clone() for name, value in search.net.state_dict().items()}
    pair = _batches(search)[0]
    search._alpha_step(*pair, 0, 0)
    assert all(torch.equal(value, before[name]) for name, value in search.net.state_dict().items())
    list(search.records())
    counts = {norm.num_batches_tracked.item() for norm in search.net.modules() if isinstance(norm, BatchNorm)}
    assert counts == {steps}


def test_the_weight_step_leaves_the_alphas_alone(digits, tiny_config):
    search = digits(tiny_config())
    before = search.alphas
    search._weight_step(*_batches(search)[0][1])
    assert torch.equal(search.alphas, before)
    assert all(alpha.grad is None for alpha in search._parameters["alphas"])


def test_published_mode_is_the_published_loop(digits, tiny_config):
    steps = 5
    config = tiny_config(
        "method=ddarts-published", "data.num_train=250", "search.batch_size=16", "alpha.lr=0.003", "alpha.lr_min=0.003"
    )
    search = _to_double(digits(config))
    batches = [tuple((x.double(), y) for x, y in pair) for pair in _batches(search)[:steps]]
    assert len(batches) == steps
    literal = _to_double(digits(config))
    shape = (len(literal.net.cells), *literal.alphas.shape[1:])
    draws = []
    for step in range(steps):
        stream = generator(config.seed, "ablation", 0, step)
        draws.append([torch.rand(shape, generator=stream)[cell].double() for cell in range(shape[0])])
    expected, contributions = textbook.published_steps(
        literal.net,
        literal.alphas,
        batches,
        draws,
        w_zero_one=8.0,
        w_ablation=0.5,
        alpha_lr=0.003,
        alpha_decay=config.alpha.weight_decay,
        lr=config.search.lr,
        momentum=0.9,
        decay=3e-4,
        clip=5.0,
    )
    search._set_learning_rates(search.course.at(0))
    measured = []
    for step, (alpha_batch, weight_batch) in enumerate(batches):
        measured.append(search._alpha_step(alpha_batch, weight_batch, 0, step).contributions.tolist())
        search._weight_step(*weight_batch)
    assert (search.alphas - expected).abs().max() < 1e-6
    assert expected.abs().max() > 0.01
    assert torch.allclose(torch.tensor(measured), torch.tensor(contributions), atol=1e-6)


@pytest.mark.parametrize(("schedule", "share"), [("constant", 1.0), ("rising", 0.25), ("falling", 0.75)])
def test_clean_gradient_is_the_literal_total_loss(float64_net, schedule, share):
    """Equations 3, 4, 7 (centred) and 8 written out in the textbook form and differentiated by autograd."""
    from ddarts_core.search.alpha_step import AlphaStep

    net, alphas, x, y = float64_net(num_cells=3)
    search = {"num_cells": 3, "channels": 3, "steps": 2, "w_zero_one": 2.0}
    step = AlphaStep(net, resolve({"search": search, "ablation": {"schedule": schedule}}))
    second = Progress(epoch=7, epochs=10, stage_epoch=1, stage_epochs=4)
    found = step.gradients({"alphas": alphas}, (x, y), (x, y), None, torch.Generator(), second)
    a = alphas.clone().requires_grad_()
    gates = list(torch.sigmoid(a))
    full = F.cross_entropy(textbook.forward(net, x, gates), y)
    ablated = [F.cross_entropy(textbook.forward(net, x, gates, {i: textbook.identity}), y) for i in range(3)]
    marginal = torch.stack([full - loss for loss in ablated])
    mean = marginal.mean()
    totals = []
    for i in range(3):
        l_01 = -((torch.sigmoid(a[i]) - 0.5) ** 2).mean()
        l_ab = (marginal[i] - mean) / mean.detach().abs().clamp_min(0.05)
        totals.append(full + 2.0 * l_01 + 0.5 * share * l_ab)
        (expected,) = torch.autograd.grad(totals[-1], a, retain_graph=True)
        assert torch.allclose(found.gradients["alphas"][i], expected[i], atol=1e-12)
    assert torch.allclose(found.scalars["total"], torch.stack(totals).mean())


def test_unrolled_gradient_is_the_second_derivative(float64_net):
    """DARTS eq. 7 by double backward: the validation loss after one virtual SGD step with momentum and decay."""
    from ddarts_core.search.unrolled import Bilevel
    from ddarts_core.supernets.supernet import batch_statistics

    net, alphas, x, y = float64_net(num_cells=3, batch=8)
    x2, y2 = torch.randn_like(x), y.flip(0)
    weights = dict(net.named_parameters())
    sgd = torch.optim.SGD(weights.values(), lr=0.01, momentum=0.9, weight_decay=3e-3)
    for weight in weights.values():
        sgd.state[weight]["momentum_buffer"] = 0.01 * torch.randn_like(weight)
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    with batch_statistics(net):
        step = Bilevel(net, {"alphas": alphas}, (x, y), (x2, y2), sgd, lambda found: found["alphas"].sigmoid())
        found = step.gradient(radius=1e-6)["alphas"]
        exact = step.gradient("exact")["alphas"]
        assert all(torch.equal(weight, start[name]) for name, weight in weights.items())
        a = alphas.clone().requires_grad_()
        loss = F.cross_entropy(net(x2, a.sigmoid()), y2)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        virtual = {
            name: weight - 0.01 * (0.9 * sgd.state[weight]["momentum_buffer"] + gradient + 3e-3 * weight)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        loss = F.cross_entropy(torch.func.functional_call(net, virtual, (x, a.sigmoid())), y)
        (expected,) = torch.autograd.grad(loss, a)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(exact, expected, atol=1e-12)
    assert expected.abs().max() > 1e-3


def test_the_exact_product_is_what_the_difference_comes_to(float64_net):
    """In float64 a small radius is near the derivative and a large one is not; `product_error` says how near."""
    from ddarts_core.search.unrolled import Bilevel
    from ddarts_core.supernets.supernet import batch_statistics

    net, alphas, x, y = float64_net(num_cells=3, batch=8)
    weights = list(net.parameters())
    stream = torch.Generator().manual_seed(1)
    d = [torch.randn(weight.shape, generator=stream, dtype=torch.float64) for weight in weights]
    sgd = torch.optim.SGD(weights, lr=0.1)
    step = Bilevel(net, {"alphas": alphas}, (x, y), (x, y), sgd, lambda found: found["alphas"].sigmoid())
    with batch_statistics(net):
        (exact,) = step.exact_product(d)
        near = [float((step.finite_product(d, radius)[0] - exact).norm() / exact.norm()) for radius in (1e-6, 10.0)]
        assert near[0] < 1e-3 < 0.5 < near[1]
        assert step.product_error() > 0


@pytest.mark.parametrize("hessian", ["finite", "exact"])
def test_a_coarse_second_order_says_so_once(digits, tiny_config, hessian):
    """The number is in the record of the first epoch; `exact` has nothing to warn of."""
    search = digits(tiny_config("method=darts-second-order", f"search.hessian={hessian}", "search.lr=0.1"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first, second = search.records()
    messages = [str(warning.message) for warning in caught if "finite difference" in str(warning.message)]
    assert "alpha/hessian_error" not in second.metrics
    if hessian == "exact":
        assert not messages and "alpha/hessian_error" not in first.metrics
        return
    error = first.metrics["alpha/hessian_error"]
    assert len(messages) == (error >= alpha_step.LARGE_ERROR) and error > 0
    assert all(f"misses the second-order term by {100 * error:.0f} %" in message for message in messages)


@pytest.mark.parametrize("merge_bytes", [0, 1e9])
def test_the_fast_form_refuses_to_be_differentiated_twice(float64_net, merge_bytes):
    """torch's own check lets the product with the second derivative by the alphas pass, and it would be wrong."""
    from ddarts_core.search.unrolled import Bilevel
    from ddarts_core.supernets.fast import FastForm
    from ddarts_core.supernets.supernet import batch_statistics

    net, alphas, x, y = float64_net(num_cells=3)
    weights = list(net.parameters())
    net.form = FastForm(merge_bytes)
    sgd = torch.optim.SGD(weights, lr=0.1)
    step = Bilevel(net, {"alphas": alphas}, (x, y), (x, y), sgd, lambda found: found["alphas"].sigmoid())
    with batch_statistics(net), pytest.raises(RuntimeError, match="can be differentiated only once"):
        step.exact_product(weights)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("method=darts",), "search.hessian exact is for search.order second, not first"),
        (("method=darts-second-order", "search.implementation=fast"), "search.implementation fast does not allow"),
        (("method=darts-second-order", "search.compile=default"), "search.compile default does not allow"),
    ],
)
def test_an_exact_second_order_needs_the_readable_form(digits, tiny_config, settings, words):
    with pytest.raises(UserError, match=words):
        digits(tiny_config(*settings, "search.hessian=exact"))


def test_divergence_is_an_error_that_says_where(digits, tiny_config):
    search = digits(tiny_config("search.lr=10", "search.grad_clip=1e30", "search.momentum=0.99"))
    with torch.no_grad():
        search.net.classifier.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="epoch 0"):
        next(search.records())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("search.batch_size=500",), "weights"),
        (("data.image_size=10",), "halved"),
        (("search.device=cuda",), "no GPU"),
    ],
)
def test_settings_that_do_not_fit_the_data(tiny_config, overrides, words):
    from ddarts_core.search.search import build_search

    if "cuda" in overrides[0] and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=words):
        build_search(tiny_config(*overrides))


def test_an_ablated_network_that_overflows_says_nothing_of_its_cell(digits, tiny_config, monkeypatch):
    """As fp16 does now and then: the mean that divides later gradients must not keep an infinity."""
    search = digits(tiny_config("ablation.sample_cells=2", "search.epochs=1"))
    step, real = search._step, alpha_step.ablated_losses_and_gradient
    calls = []

    def overflowing(*args):
        found, through = real(*args)
        calls.append(None)
        return (found * float("inf") if len(calls) == 1 else found), through

    monkeypatch.setattr(alpha_step, "ablated_losses_and_gradient", overflowing)
    batch = next(search._alpha_batches(0))
    reports = [
        step.gradients(search.parameters, batch, batch, search._sgd, generator(0, number)) for number in range(3)
    ]
    assert not reports[0].gradients["alphas"].isfinite().all()  # in fp16 such a step is left out
    assert reports[0].contributions.isnan().all() and reports[-1].gradients["alphas"].isfinite().all()
    assert step.running_mean.isfinite() and reports[-1].contributions.nansum() != 0


def test_a_cell_that_no_step_removed_has_no_contribution_in_json(digits, tiny_config, tmp_path):
    """One step of two of three cells; strict JSON knows no NaN."""
    config = tiny_config("ablation.sample_cells=2", "search.epochs=1", "search.batch_size=60")
    (record,) = digits(config).records()
    assert sum(math.isnan(value) for value in record.contributions) == 1
    write_jsonl(tmp_path / "records.jsonl", [record])

    def refuse(word):
        raise AssertionError(word)

    line = json.loads((tmp_path / "records.jsonl").read_text(), parse_constant=refuse)
    assert line["contributions"].count(None) == 1
    (again,) = read_jsonl(tmp_path / "records.jsonl")
    assert [math.isnan(value) for value in again.contributions] == [math.isnan(v) for v in record.contributions]


@pytest.mark.parametrize("loss", ["rescale", "credit"])
def test_losses_that_compare_all_cells_take_no_sample(tiny_config, loss):
    with pytest.raises(UserError, match=f"ablation.loss {loss} compares all cells of a step"):
        tiny_config(f"ablation.loss={loss}", "ablation.sample_cells=2")


def test_where_a_search_runs_is_not_what_it_finds(tiny_config):
    here = config_hash(tiny_config())
    places = ("data.root=elsewhere", "data.num_workers=0", "search.device=auto", "retrain.device=cpu", "name=other")
    for place in (*places, "storage=there", "retrain.checkpoint_every=7"):
        assert config_hash(tiny_config(place)) == here, place
    for setting in ("seed=1", "data.flip=true", "search.lr=0.1", "retrain.channels=8", "search.amp=bf16"):
        assert config_hash(tiny_config(setting)) != here, setting
