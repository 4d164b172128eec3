"""What only a GPU runs, on machines without one: tensors of one device, and fp16 with its scaled loss.

Device: torch's `meta`, which every machine has, stands for the GPU. Its tensors have no contents; one that was made on
the CPU by mistake, which no test on a CPU can see and a GPU would refuse, is refused where it meets them.
fp16: a CPU computes it too slowly for users, but it does.
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.search import search
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.supernets import execution
from ddarts_core.training import retrain

CPU, META = torch.device("cpu"), torch.device("meta")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as CUDA does; numbers (no dimensions) on the CPU may take part."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        devices = {x.device.type for x in tensors if x.dim() or x.device != CPU}
        if len(devices) > 1 and func not in COPIES:
            raise AssertionError(f"{func} takes tensors of {', '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_meta(monkeypatch):
    """What torch does not have on meta: random streams and autocast."""
    for module in (search, retrain):
        monkeypatch.setattr(module, "generator", lambda *stream, device=CPU: torch.Generator())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)
    monkeypatch.setattr(retrain.Retrain, "_autocast", lambda self: nullcontext())


def test_the_mode_refuses_what_a_gpu_does():
    on_device, elsewhere = torch.zeros(3, device=META), torch.ones(3)
    with OneDevice():
        assert (on_device * torch.tensor(2.0)).device == META
        assert (on_device + elsewhere.to(META)).device == META
        with pytest.raises(AssertionError, match="mul"):
            on_device * elsewhere


@pytest.mark.parametrize(
    "overrides",
    [
        ("ablation.loss=monitor", "ablation.removal=random"),
        ("ablation.loss=centered", "ablation.removal=identity"),
        ("ablation.loss=relative", "ablation.removal=random", "search.implementation=readable"),
        ("ablation.loss=centered", "search.checkpoint_cells=true"),
        ("method=ddarts-published",),
        ("method=darts-second-order",),
    ],
)
def test_a_search_step_stays_on_its_device(overrides, tiny_config, on_meta):
    small = ("search.num_cells=2", "search.reductions=[1]")
    config = tiny_config(*overrides, *small, "data.flip=true", "data.crop_padding=2", "data.cutout=3")
    info, train = load_train(config.data)
    built = search.Search(config, info, split(train, config.data, config.seed), META)
    assert config.search.implementation == "readable" or merges(built.execution.form)
    built._step.num_steps = 1  # the first step looks at the error of the second order, a number that meta lacks
    with OneDevice():
        batch = next(built._alpha_batches(0))
        images, labels = next(built._batches(built.splits.weights, "weights", 0, 0))
        report = built._alpha_step(batch, (images, labels), 0, 0)
        loss, correct = built._weight_step(images, labels)
    assert {x.device for x in (images, labels, report.gradients["alphas"], loss, correct)} == {META}


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
@pytest.mark.parametrize(
    "overrides", [("method=ddarts-published",), ("ablation.sample_cells=2",), ("ablation.loss=centered",)]
)
def test_a_search_resumes_on_its_device(overrides, tiny_config, on_meta):
    """A checkpoint is read into main memory; what it brings must follow the search to its device."""
    config = tiny_config(*overrides, "search.num_cells=2", "search.reductions=[1]")
    info, train = load_train(config.data)
    splits = split(train, config.data, config.seed)
    before = search.Search(config, info, splits, CPU)
    batch = next(before._batches(before.splits.weights, "weights", 0, 0))
    before._alpha_step(batch, batch, 0, 0)
    before._weight_step(*batch)
    built = search.Search(config, info, splits, META)
    built.load_state_dict(before.state_dict())
    with OneDevice():
        batch = next(built._batches(built.splits.weights, "weights", 0, 0))
        report = built._alpha_step(batch, batch, 0, 1)
        built._weight_step(*batch)
    assert report.gradients["alphas"].device == META


def merges(form):
    """Whether all edges of a node are merged, as only a GPU's form has it."""
    return getattr(form, "form", form).merge_bytes == float("inf")


@pytest.mark.parametrize("settings", [{}, {"auxiliary_weight": 0.4, "drop_path": 0.2, "ema_decay": 0.9}])
def test_a_training_step_stays_on_its_device(settings, tiny_config, on_meta):
    info, train = load_train(tiny_config().data)
    config = RetrainConfig(channels=2, batch_size=8, flip=True, crop_padding=2, cutout=3, **settings)
    training = retrain.Retrain(config, ZOO["ResNet18"].genotype, info, train, None, seed=0, device=META)
    training._trained.drop_path = 0.2
    training._trained.generator = torch.Generator()
    with OneDevice():
        loss, hits = training._step(*next(training._batches(0)))
    assert loss.device == hits.device == META


# --- fp16 -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fp16_on_cpu(monkeypatch):
    for module in (execution, retrain):
        monkeypatch.setattr(module, "check_amp", lambda *_: None)


def scaler(scale):
    return torch.amp.GradScaler("cpu", init_scale=scale)


@pytest.mark.parametrize("loss", ["monitor", "centered"])
def test_a_search_in_fp16_is_the_search_up_to_rounding(digits, tiny_config, fp16_on_cpu, loss):
    same = ("search.epochs=1", f"ablation.loss={loss}")
    plain, half = digits(tiny_config(*same)), digits(tiny_config(*same, "search.amp=fp16"))
    half._scaler = scaler(512.0)
    (wanted,), (found,) = plain.records(), half.records()
    assert half._scaler.get_scale() == 512  # no step was left out
    for name in ("train/loss", "alpha/loss"):
        assert found.metrics[name] == pytest.approx(wanted.metrics[name], rel=1e-2)
    assert found.contributions == pytest.approx(wanted.contributions, abs=1e-2)
    assert found.contributions != wanted.contributions


@pytest.mark.parametrize("loss", ["monitor", "centered"])
def test_alpha_gradients_in_fp16_are_unscaled(digits, tiny_config, fp16_on_cpu, loss):
    def gradients(*overrides):
        built = digits(tiny_config(f"ablation.loss={loss}", "ablation.weight=2", *overrides))
        built._scaler = scaler(512.0) if overrides else built._scaler
        batch = next(built._alpha_batches(0))
        return built._alpha_step(batch, batch, 0, 0).gradients["alphas"]

    wanted, found = gradients(), gradients("search.amp=fp16")
    assert (found - wanted).norm() < 0.15 * wanted.norm()


def test_an_overflow_leaves_the_step_out_and_scales_less(digits, tiny_config, fp16_on_cpu):
    built = digits(tiny_config("search.amp=fp16"))
    built._scaler.update(2.0**60)
    alphas, weights = built.alphas.clone(), [weight.detach().clone() for weight in built.net.parameters()]
    batch = next(built._alpha_batches(0))
    built._alpha_step(batch, batch, 0, 0)
    assert torch.equal(built.alphas, alphas)
    assert built._scaler.get_scale() == 2.0**59
    built._weight_step(*batch)
    assert all(map(torch.equal, built.net.parameters(), weights))
    assert built._scaler.get_scale() == 2.0**58


def test_a_search_in_fp16_resumes(digits, tiny_config, fp16_on_cpu):
    whole, first, second = (digits(tiny_config("search.amp=fp16")) for _ in range(3))
    expected = list(whole.records())
    before = next(first.records())
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second.load_state_dict(torch.load(stored, weights_only=True))
    found = [before, *second.records()]
    assert [record.metrics for record in found] == [record.metrics for record in expected]
    assert torch.equal(second.alphas, whole.alphas)
    assert second._scaler.get_scale() == whole._scaler.get_scale()


def test_a_training_step_in_fp16(tiny_config, fp16_on_cpu):
    info, train = load_train(tiny_config().data)

    def step(amp, scale=512.0):
        config = RetrainConfig(channels=4, batch_size=32, amp=amp, device="cpu")
        training = retrain.Retrain(config, ZOO["ResNet18"].genotype, info, train, None, seed=0)
        before = torch.cat([weight.detach().flatten() for weight in training._parameters])
        training._scaler = scaler(scale) if amp == "fp16" else training._scaler
        loss, _ = training._step(*next(training._batches(0)))
        return loss[0], torch.cat([weight.detach().flatten() for weight in training._parameters]) - before

    (wanted, moved), (found, moved_in_half) = step("none"), step("fp16")
    assert float(found) == pytest.approx(float(wanted), rel=1e-2)
    assert (moved_in_half - moved).norm() < 0.15 * moved.norm()
    assert not step("fp16", 2.0**60)[1].any()
