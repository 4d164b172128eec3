"""The estimate of a search step's memory against what torch's allocator measures on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.nn import functional as F

from ddarts_core.data.sets import data_info
from ddarts_core.estimates.memory import (
    Rehearsal,
    largest_that_fits,
    measure,
    step_memory,
    supernet_size,
)
from ddarts_core.extension.conformance import FEW_BLOCKS
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import operations_of
from ddarts_core.ground.nested import merge
from ddarts_core.methods import METHODS
from ddarts_core.networks.weight import operation_weight
from ddarts_core.search.alpha_step import AlphaStep
from ddarts_core.search.search import Search
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.supernets.sampled_op import OneOp
from ddarts_core.supernets.supernet import Supernet
from ddarts_core.tensors.hollow import Hollow, is_hollow
from ddarts_core.tensors.meter import Meter

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {"search": {"num_cells": 3, "channels": 6, "steps": 2, "batch_size": 24}}


def config_of(**groups: Any) -> ExperimentConfig:
    return resolve(merge(SETTINGS, groups))


def measured_peak(rehearsal: Rehearsal, kind: str) -> int:
    """What outlives a step, and the most that the allocator handed out beside it, by torch's profiler."""
    step = getattr(rehearsal, kind)
    step()  # the first step makes what later ones find
    rehearsal.step.num_steps = 0  # and takes most, in the second order
    return size_of(rehearsal.tensors()) + allocated(step)


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def allocated(step: Callable[[], object]) -> int:
    """The most that torch's allocator handed out in a step and had not got back, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"ablation": {"loss": "centered"}},
        {"ablation": {"loss": "paper"}, "search": {"implementation": "readable"}},
        {"search": {"checkpoint_cells": True, "channels": 4}},
        {"method": "darts-second-order", "search": {"hessian": "exact"}},
    ],
)
def test_peaks_are_those_of_the_allocator(groups: dict[str, Any]) -> None:
    config = config_of(**groups)
    info = data_info(config.data)
    estimate = step_memory(config, info, CPU)
    rehearsal = Rehearsal(config, info, CPU)
    assert estimate.weight_step == pytest.approx(measured_peak(rehearsal, "weight_step"), rel=0.15)
    assert estimate.alpha_step == pytest.approx(measured_peak(rehearsal, "alpha_step"), rel=0.15)


def few_steps(name: str, folder: Path) -> ExperimentConfig:
    """A search of a method in single steps, on cells of one node."""
    preset = resolve({"method": name}).search
    search: dict[str, Any] = {"num_cells": 3, "steps": 1, "channels": 12, "batch_size": 24}
    search |= {"epochs": 3 if preset.stages == "progressive" else 2, "warmup_epochs": 0, "device": "cpu"}
    options = {"attack_steps": 1, "freeze_every": 2, "value_orders": 1, "decision_batches": 1}
    options |= {
        "added_cells": [0, 1, 2],
        "channel_share": 2,
        "channel_shares": [2, 1],
        "path_steps": 1,
        "derived_cells": 3,
        "blocks": FEW_BLOCKS,
        "resolutions": [1],
        "hidden": 0,
    }
    search["options"] = {option: value for option, value in options.items() if option in preset.options}
    if preset.start is not None:
        start = folder / "start.json"
        cell = Cell((Edge(2, 1, "skip_connect"),), (2,))
        start.write_text(Genotype((cell,) * 3, (1, 2)).to_json())
        search |= {"start": str(start), "reductions": [1, 2]}
    return resolve({"method": name, "data": {"num_train": 100}, "search": search})


@pytest.mark.parametrize("name", METHODS)
def test_a_search_takes_no_more_than_is_estimated_and_hardly_less(
    name: str, digits: Callable[[ExperimentConfig], Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage of all tensors of a real search, whole epochs with their scores, but for its images and their order.

    Edges that sample or drop operations are made to take the heaviest ones.
    """
    config = few_steps(name, tmp_path)
    search = digits(config)
    monkeypatch.setattr(OneOp, "chosen", lambda edge, gates: edge.heaviest())
    if any(stage.kept or stage.beside for stage in search.course.stages):
        names = operations_of(config.search.space)
        ranks = sorted(range(len(names)), key=lambda k: operation_weight(names[k]))
        for values in search._parameters["alphas"]:
            values.data[:, ranks] = 20.0 * torch.arange(len(names))
    splits: list[Any] = [search.splits.weights, search.splits.alphas, search.splits.held_out]
    with Meter() as meter:
        meter.note(tensor for part in splits for tensor in (part.images, part.labels))
        images = meter.alive + 8 * (len(splits[0]) + len(splits[1]))
        own = [value for values in search._parameters.values() for value in values]
        meter.note([*search.net.parameters(), *search.net.buffers(), *own])
        for _ in search.records():
            pass
    measured = meter.peak - images
    estimate = step_memory(config, data_info(config.data), CPU).peak
    assert measured <= estimate <= 1.15 * measured


def test_what_is_saved_for_the_gradient_is_in_the_estimate() -> None:
    """Saved tensors counted by torch's own hooks on a real forward pass: a lower bound, and most of the activations."""
    config = config_of(search={"batch_size": 64})
    info = data_info(config.data)
    rehearsal = Rehearsal(config, info, CPU)
    own = {tensor.untyped_storage().data_ptr() for tensor in rehearsal.tensors()}
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = rehearsal.net(rehearsal.images, rehearsal.parameters["alphas"].sigmoid()).sum()
    saved = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    saved_bytes = sum(size for address, size in saved.items() if address not in own)
    estimate = step_memory(config, info, CPU)
    activations = estimate.weight_step - estimate.parameters - estimate.gradients - estimate.optimiser
    assert 0.6 * activations < saved_bytes < activations
    del loss


def test_parts() -> None:
    config = config_of()
    info = data_info(config.data)
    found = step_memory(config, info, CPU)
    weights = sum(weight.numel() for weight in Supernet(config.search, info).parameters())
    assert supernet_size(config, info)[0] == weights
    assert found.gradients == 4 * weights
    assert found.optimiser > found.gradients  # momentum and the alphas' moments
    assert found.activations == found.peak - found.parameters - found.gradients - found.optimiser
    assert step_memory(config_of(search={"momentum": 0.0}), info, CPU).optimiser < found.optimiser


def test_a_second_half_batch_costs_half() -> None:
    config, twice = config_of(), config_of(search={"batch_size": 48})
    info = data_info(config.data)
    one, two = step_memory(config, info, CPU), step_memory(twice, info, CPU)
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)


@pytest.mark.parametrize("path", ["channels", "batch_size"])
def test_the_largest_that_fits_fits_and_the_next_does_not(path: Any) -> None:
    config = config_of(search={"channels": 16, "batch_size": 64, "steps": 1}, ablation={"loss": "none"})
    info = data_info(config.data)

    @functools.cache
    def peak(value: int) -> int:
        search = config.search.model_copy(update={path: value})
        return step_memory(config.model_copy(update={"search": search}), info, CPU).peak

    too_large: int = getattr(config.search, path)
    limit = int(0.55 * peak(too_large))
    value = largest_that_fits(peak, limit, too_large, quadratic=path == "channels")
    assert value is not None
    assert peak(value) <= limit and peak(value + 1) > 0.97 * limit
    assert largest_that_fits(peak, 10, too_large, quadratic=path == "channels") is None


def test_memory_does_not_grow_with_the_ablations() -> None:
    """All cells of a step are ablated, one after the other: notes of the full pass included, it takes no more."""
    peaks = {}
    for loss in ("none", "monitor", "centered"):
        config = config_of(search={"num_cells": 6, "channels": 4, "steps": 1}, ablation={"loss": loss})
        with Hollow():
            rehearsal = Rehearsal(config, data_info(config.data), CPU)
            rehearsal.step = AlphaStep(rehearsal.net, config)  # type: ignore[assignment]  # all ablations, not the first
            peaks[loss] = measure(rehearsal, rehearsal.alpha_step)
    assert max(peaks.values()) <= 1.03 * peaks["none"]


def test_what_is_measured_without_contents_is_what_real_tensors_take() -> None:
    """Views, changes in place, copies of another layout, indices and the gradients of all of them."""

    def passes() -> tuple[int, list[Any]]:
        with Meter() as meter:
            x = torch.zeros(4, 6, 8, 8).contiguous(memory_format=torch.channels_last)
            weight = torch.zeros(5, 6, 3, 3, requires_grad=True)
            y = F.batch_norm(F.conv2d(x, weight, padding=1), None, None, training=True)
            z = torch.cat([F.max_pool2d(part, 2) for part in y.chunk(2, 1)], 1).add_(1).flatten(1)
            loss = F.cross_entropy(z[1:], torch.zeros(3, dtype=torch.int64))
            loss.backward()
            forms = [(t.shape, t.stride(), t.dtype) for t in (x, y, z, loss, weight.grad) if t is not None]
        return meter.peak, forms

    real = passes()
    with Hollow():
        assert passes() == real
        hollow = torch.zeros(3)
        assert is_hollow(hollow[1:])
        with pytest.raises(DataDependentOutputException):
            float(hollow[0])


def test_meter_counts_shared_storage_once() -> None:
    with Meter() as meter:
        x = torch.zeros(100)
        y = x.view(10, 10)[2:]
        z = x + 1
        del x
        assert meter.alive == 800
        del y, z
    assert (meter.alive, meter.peak) == (0, 800)
