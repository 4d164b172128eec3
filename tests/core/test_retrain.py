"""Training from scratch: schedules, one step by hand, bit-exact resume, every setting has an effect."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.nn import functional as F

from ddarts_core.data.sets import DataInfo, ImageSet, load_train
from ddarts_core.data.splits import hold_out
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.loops import checkpoint
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.tensors.seeding import generator
from ddarts_core.training.retrain import RECALIBRATION_BATCHES, Retrain
from ddarts_core.training.schedules import drop_path_probability, learning_rate

CELL = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3"), Edge(3, 2, "max_pool_3x3")), (2, 3))
GENOTYPE = Genotype((CELL,) * 3, (1, 2))
#: Every part of the loop at once.
FULL = {
    "label_smoothing": 0.1,
    "auxiliary_weight": 0.4,
    "drop_path": 0.5,
    "ema_decay": 0.9,
    "warmup_epochs": 1,
    "crop_padding": 1,
    "flip": True,
    "cutout": 2,
}

Make = Callable[..., Retrain]


@pytest.fixture(scope="module")
def digits() -> tuple[DataInfo, ImageSet, ImageSet]:
    info, images = load_train(DataConfig(name="digits", num_train=120))
    return (info, *hold_out(images, 0.2, 0, info.classes))


@pytest.fixture(scope="module")
def make(digits: tuple[DataInfo, ImageSet, ImageSet]) -> Make:
    def build(*, seed: int = 0, validation: bool = True, genotype: Genotype = GENOTYPE, **settings: Any) -> Retrain:
        info, train, held_out = digits
        base = {"epochs": 2, "batch_size": 24, "channels": 2, "device": "cpu"}
        config = RetrainConfig.model_validate({**base, **settings})
        return Retrain(config, genotype, info, train, held_out if validation else None, seed)

    return build


def tensors(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a nested state by its path."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in tensors(inner, f"{path}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, inner in enumerate(value) for k, v in tensors(inner, f"{path}/{i}").items()}
    return {path: value}


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, torch.Tensor):
            assert value.contiguous().numpy().tobytes() == right[name].contiguous().numpy().tobytes(), name
        else:
            assert value == right[name], name


# --- schedules ------------------------------------------------------------------------------------------------------


def test_cosine_as_in_darts() -> None:
    config = RetrainConfig(lr=0.025, epochs=600)
    assert learning_rate(config, 0) == 0.025
    assert learning_rate(config, 300) == pytest.approx(0.0125)
    assert learning_rate(config, 599) == pytest.approx(0.025 * (1 + math.cos(math.pi * 599 / 600)) / 2)
    assert learning_rate(RetrainConfig(lr=0.5, lr_min=0.1, epochs=4), 2) == pytest.approx(0.3)


def test_step_as_in_darts_on_imagenet() -> None:
    config = RetrainConfig(schedule="step", lr=0.1, step_decay=0.97, epochs=250, lr_min=0.001)
    assert learning_rate(config, 3) == pytest.approx(0.1 * 0.97**3)
    assert learning_rate(config, 249) == 0.001


def test_linear_as_in_pc_darts() -> None:
    config = RetrainConfig(schedule="linear", lr=0.5, epochs=250, warmup_epochs=5)
    assert [learning_rate(config, e) for e in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert learning_rate(config, 5) == pytest.approx(0.5 * 240 / 245)
    assert learning_rate(config, 244) == pytest.approx(0.5 / 245)
    assert [learning_rate(config, e) for e in range(245, 250)] == pytest.approx(
        [0.5 * k / (5 * 245) for k in (5, 4, 3, 2, 1)]
    )


@pytest.mark.parametrize("schedule", ["cosine", "step", "linear"])
@pytest.mark.parametrize("epochs", [1, 2, 5, 6, 30])
def test_schedules_stay_within_bounds(schedule: str, epochs: int) -> None:
    config = RetrainConfig(schedule=schedule, lr=0.5, lr_min=0.01, epochs=epochs)
    rates = [learning_rate(config, epoch) for epoch in range(epochs)]
    assert rates[0] == pytest.approx(0.5)
    assert all(0.01 <= rate <= 0.5 + 1e-12 for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_warm_up_comes_before_the_cosine() -> None:
    config = RetrainConfig(lr=0.4, warmup_epochs=2, epochs=6)
    assert [learning_rate(config, e) for e in range(3)] == pytest.approx([0.2, 0.4, 0.4])
    assert learning_rate(config, 4) == pytest.approx(0.2)


def test_drop_path_grows_linearly(make: Make) -> None:
    config = RetrainConfig(drop_path=0.2, epochs=600)
    assert [drop_path_probability(config, e) for e in (0, 300)] == [0, 0.1]
    retrain, seeds = make(drop_path=0.4), set()
    for record in retrain.records():
        assert retrain._trained.drop_path == pytest.approx(0.4 * record.epoch / 2)
        assert retrain._trained.generator is not None
        seeds.add(retrain._trained.generator.initial_seed())
    assert len(seeds) == 2, "every epoch draws from its own stream"


# --- one step -------------------------------------------------------------------------------------------------------


def test_step_by_hand(make: Make) -> None:
    """The first update is SGD on the smoothed loss plus the weighted auxiliary loss, clipped, with weight decay."""
    settings = {"auxiliary_weight": 0.3, "label_smoothing": 0.2, "grad_clip": 0.5, "weight_decay": 0.01, "lr": 0.1}
    retrain = make(**settings)
    reference = copy.deepcopy(retrain._trained).train()
    images, labels = next(iter(retrain._batches(0)))
    logits, auxiliary = reference(images)

    def smoothed(z: torch.Tensor) -> torch.Tensor:
        log_p = z.log_softmax(1)
        return -(0.8 * log_p[range(len(labels)), labels] + 0.2 * log_p.mean(1)).mean()

    loss = smoothed(logits) + 0.3 * smoothed(auxiliary)
    named = dict(reference.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    norm = torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()
    assert norm > 0.5, "the clip must bind"
    expected = {
        name: p - 0.1 * (g * 0.5 / (norm + 1e-6) + 0.01 * p) if g is not None else p
        for (name, p), g in zip(named.items(), gradients, strict=True)
    }
    reported, hits = retrain._step(images, labels)
    for name, parameter in retrain._trained.named_parameters():
        torch.testing.assert_close(parameter, expected[name], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(reported, torch.stack([smoothed(logits), loss]).detach())
    assert hits == (logits.argmax(1) == labels).sum()


def test_average_by_hand(make: Make) -> None:
    retrain = make(ema_decay=0.5)
    start = {name: value.clone() for name, value in retrain.network.state_dict().items()}
    images, labels = next(iter(retrain._batches(0)))
    retrain._step(images, labels)
    for name, average in retrain.network.state_dict().items():
        current = retrain._trained.state_dict()[name]
        expected = torch.lerp(start[name], current, 0.9) if average.is_floating_point() else current
        torch.testing.assert_close(average, expected)
    assert retrain.network is not retrain._trained


def test_evaluate_by_hand(make: Make, digits: tuple[DataInfo, ImageSet, ImageSet]) -> None:
    info, _, held_out = digits
    retrain = make()
    list(retrain.records())
    x, y = next(iter(held_out.batches(len(held_out), info=info)))
    retrain.network.load_state_dict(retrain.weights())
    with torch.no_grad():
        logits = retrain.network.eval()(x)
    result = retrain.evaluate(held_out)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
    assert result.metrics["accuracy"] == float((logits.argmax(1) == y).double().mean())
    assert [sum(row) for row in result.matrix] == y.bincount(minlength=10).tolist()
    assert [sum(column) for column in zip(*result.matrix, strict=True)] == logits.argmax(1).bincount(
        minlength=10
    ).tolist()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_statistics_after_few_steps_are_those_of_the_weights(
    make: Make, digits: tuple[DataInfo, ImageSet, ImageSet], ema_decay: float
) -> None:
    """For few steps (0.9^88 is 1e-4) by torch's `update_bn`, without drop-path; then running ones."""
    info, _, held_out = digits
    retrain = make(ema_decay=ema_decay, drop_path=0.5, auxiliary_weight=0.4)
    next(retrain.records())
    before = copy.deepcopy(retrain.network.state_dict())
    found = retrain.evaluate(held_out)
    assert found.recalibration_batches == min(RECALIBRATION_BATCHES, len(retrain.train) // retrain.config.batch_size)
    assert all(torch.equal(value, before[name]) for name, value in retrain.network.state_dict().items())
    twin = copy.deepcopy(retrain.network)
    twin.drop_path = 0.0
    stream = generator(retrain.seed, "retrain", "recalibration")
    batches = retrain.train.batches(retrain.config.batch_size, generator=stream, info=info, drop_last=True)
    torch.optim.swa_utils.update_bn(list(batches)[:RECALIBRATION_BATCHES], twin)
    for name, value in retrain.weights().items():
        if "running" in name:
            torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
    kept = make(ema_decay=ema_decay, auxiliary_weight=0.4)
    kept.network.load_state_dict(retrain.weights())
    for name, count in kept.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            count.fill_(300)  # the average of averages forgets more slowly
    scores = kept.evaluate(held_out)
    assert scores.recalibration_batches == 0
    assert (scores.loss, scores.matrix) == (found.loss, found.matrix)


# --- the loop -------------------------------------------------------------------------------------------------------


def test_it_learns(make: Make) -> None:
    records = list(make(channels=4, epochs=8, lr=0.1).records())
    assert [r.epoch for r in records] == list(range(8)) and {r.phase for r in records} == {"retrain"}
    assert records[-1].metrics["train/loss"] < 0.7 * records[0].metrics["train/loss"]
    assert records[-1].metrics["validation/accuracy"] > 0.3


def test_metrics(make: Make) -> None:
    record = next(make(validation=False).records())
    assert set(record.metrics) == {"train/loss", "train/accuracy"}
    assert record.seconds["weights"] > 0 and record.peak_memory > 0
    record = next(make().records())
    of_validation = {
        f"validation/{name}" for name in ("loss", "accuracy", "balanced_accuracy", "recalibration_batches")
    }
    assert set(record.metrics) == {"train/loss", "train/accuracy", *of_validation}


@pytest.mark.parametrize("stop", [1, 2])
def test_resume_is_bit_exact(make: Make, tmp_path: Path, stop: int) -> None:
    """Stop after an epoch, load the file in a fresh object: the rest and the end are the same, byte for byte."""
    whole = make(epochs=3, **FULL)
    expected = [record.to_dict() for record in whole.records()]

    first = make(epochs=3, **FULL)
    iterator = first.records()
    head = [next(iterator).to_dict() for _ in range(stop)]
    checkpoint.save(tmp_path / "state.pt", first.state_dict())
    torch.manual_seed(987)
    second = make(epochs=3, **FULL)
    second.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    assert second.epoch == stop
    assert_same_state(second.state_dict(), first.state_dict())
    assert head + [record.to_dict() for record in second.records()] == expected
    assert_same_state(second.state_dict(), whole.state_dict())
    assert list(second.records()) == []


def test_global_random_state_is_neither_read_nor_changed(make: Make) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    retrain = make(**FULL)
    a = [record.to_dict() for record in retrain.records()]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert [record.to_dict() for record in make(**FULL).records()] == a
    assert [record.to_dict() for record in make(seed=1, **FULL).records()] != a


def test_validation_images_train_nothing(make: Make) -> None:
    with_validation, without = make(), make(validation=False)
    list(with_validation.records())
    list(without.records())
    assert_same_state(with_validation._trained.state_dict(), without._trained.state_dict())


@pytest.fixture(scope="module")
def plain(make: Make) -> dict[str, Any]:
    """Metrics of the last epoch, all settings as they are."""
    *_, last = make(epochs=3).records()
    return last.to_dict()["metrics"]


@pytest.mark.parametrize(
    "setting",
    [
        {"lr": 0.2},
        {"lr_min": 0.04},
        {"schedule": "step", "step_decay": 0.5},
        {"schedule": "linear"},
        {"warmup_epochs": 1},
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"grad_clip": 0.01},
        {"label_smoothing": 0.3},
        {"auxiliary_weight": 1.0},
        {"drop_path": 0.8},
        {"amp": "bf16"},
        {"ema_decay": 0.99},
        {"crop_padding": 2},
        {"flip": True},
        {"cutout": 4},
        {"batch_size": 12},
        {"channels": 3},
        {"form": "imagenet"},
    ],
    ids=lambda setting: "-".join(map(str, setting.items())),
)
def test_every_setting_has_an_effect(make: Make, plain: dict[str, Any], setting: dict[str, Any]) -> None:
    changed = [record.to_dict()["metrics"] for record in make(epochs=3, **setting).records()]
    assert changed[-1] != plain
    assert all(math.isfinite(value) for metrics in changed for value in metrics.values())


def test_drop_path_unit_has_an_effect(make: Make) -> None:
    a, b = (list(make(drop_path=0.5, drop_path_unit=unit).records())[-1] for unit in ("node", "operation"))
    assert a.metrics != b.metrics


def test_class_weights_of_images_that_are_not_balanced(digits: tuple[DataInfo, ImageSet, ImageSet]) -> None:
    """An image of a rare class counts for more, in both heads; with `none` the loss is torch's to the bit."""
    info, train, _ = digits
    rare = [(train.labels == label).nonzero()[:2, 0] for label in range(8)]
    few = train.subset(torch.cat([*rare, (train.labels > 7).nonzero()[:, 0]]))
    settings = {"epochs": 1, "batch_size": len(few), "channels": 2, "device": "cpu", "auxiliary_weight": 0.5}
    counts = few.labels.bincount(minlength=10)
    assert counts.max() > 4 * counts.min()
    for choice in ("balanced", "none"):
        config = RetrainConfig.model_validate({**settings, "class_weights": choice})
        retrain = Retrain(config, Genotype((CELL,) * 3, (1,)), info, few, None, seed=0)
        x, labels = next(retrain._batches(0))
        main, auxiliary = retrain._trained.train()(x)
        weights = len(few) / (10 * counts[labels]) if choice == "balanced" else torch.ones(len(labels))
        hand = [(weights * F.cross_entropy(logits, labels, reduction="none")).mean() for logits in (main, auxiliary)]
        loss, _ = retrain._step(x, labels)
        torch.testing.assert_close(loss, torch.stack([hand[0], hand[0] + 0.5 * hand[1]]).detach())
        assert choice == "balanced" or loss[0] == F.cross_entropy(main, labels)


def test_num_cells_derives(make: Make) -> None:
    assert len(make(num_cells=9, genotype=Genotype((CELL,) * 5, (1, 3))).network.cells) == 9


def test_best_epoch(make: Make) -> None:
    """The first epoch of the highest validation accuracy; its weights reproduce that accuracy."""
    retrain = make(epochs=5, lr=0.3, ema_decay=0.5)
    assert retrain.best_epoch is None
    accuracies = [record.metrics["validation/accuracy"] for record in retrain.records()]
    assert retrain.best_epoch == accuracies.index(max(accuracies))
    retrain.load_best()
    assert retrain.validation is not None
    assert retrain.evaluate(retrain.validation).metrics["accuracy"] == max(accuracies)
    with pytest.raises(UserError, match="validation_fraction"):
        make(validation=False).load_best()


# --- refusals -------------------------------------------------------------------------------------------------------


def test_divergence_names_the_step(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    retrain = make()
    step, calls = retrain._step, []

    def poisoned(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return step(images * float("nan") if len(calls) == 7 else images, labels)

    monkeypatch.setattr(retrain, "_step", poisoned)
    iterator = retrain.records()
    next(iterator)
    with pytest.raises(Diverged, match="nan in step 2 of epoch 1"):
        next(iterator)
    assert retrain.epoch == 1, "the failed epoch is not counted"


def test_divergence_is_found_early(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddarts_core.training.retrain.CHECK_EVERY", 2)
    retrain = make()
    with torch.no_grad():
        retrain._trained.classifier.bias.fill_(float("inf"))
    step = Mock(wraps=retrain._step)
    monkeypatch.setattr(retrain, "_step", step)
    with pytest.raises(Diverged, match="step 0 of epoch 0"):
        next(retrain.records())
    assert step.call_count == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 97}, "batch_size 97 exceeds the 96 images"),
        ({"batch_size": 1}, "2 images or more per batch"),
        ({"amp": "fp16"}, "fp16 needs a GPU"),
        ({"compile": "reduce-overhead"}, "retrain.compile reduce-overhead needs a GPU"),
        ({"num_cells": 8}, "smallest genotype has 5 cells"),
    ],
)
def test_mistakes(make: Make, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_missing_gpu(make: Make) -> None:
    with pytest.raises(UserError, match=r"retrain.device 'cuda'"):
        make(device="cuda")


@pytest.mark.parametrize(
    ("other", "what"),
    [({"lr": 0.01}, "configuration"), ({"seed": 5}, "seed"), ({"genotype": Genotype((CELL,) * 3, (0, 1))}, "genotype")],
)
def test_state_of_another_training_is_refused(make: Make, other: dict[str, Any], what: str) -> None:
    state = make().state_dict()
    with pytest.raises(UserError, match=f"another {what}"):
        make(**other).load_state_dict(state)
    with pytest.raises(UserError, match="another configuration"):
        make().load_state_dict({"epoch": 1})


def test_state_moves_between_devices(make: Make) -> None:
    make(device="auto").load_state_dict(make(device="cpu").state_dict())
