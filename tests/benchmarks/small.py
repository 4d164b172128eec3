"""What a small trial is made of: launches and multiply-adds of a trial of the first sweep, and of trials as one model.

The trial is that of experiments/quickstart_sweep.yaml with its first choices, counted on tensors without contents. The
stacked model has the weights of several trials side by side, each with gates of its own, under `torch.vmap`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import Splits, split
from ddarts_core.estimates.memory import Rehearsal
from ddarts_core.estimates.search_cost import _AllAblations
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.networks.building import build_network
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.supernets.supernet import Supernet, batch_statistics, readable
from ddarts_core.tensors.optimisers import SGD
from tests.benchmarks.counts import Counts, Meter, count

SWEEP = Path(__file__).parents[2] / "experiments" / "quickstart_sweep.yaml"
DERIVED = "steps of the derived network"
#: Numbers of trials that are stacked.
STACKED = (2, 8)
Step = Callable[[], object]


def settings(*overrides: str) -> ExperimentConfig:
    """The settings of a trial of the sweep, without what the sweep varies."""
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    return resolve({name: value for name, value in sweep.items() if name not in ("space", "tune")}, overrides)


def parts(config: ExperimentConfig) -> dict[str, tuple[Counts, int]]:
    """Counts of each kind of step of a trial, and how often the trial does it."""
    info, images = load_train(config.data)
    splits = split(images, config.data, config.seed)
    return {name: (count(make), times) for name, (make, times) in _steps(config, info, splits).items()}


def _steps(
    config: ExperimentConfig, info: DataInfo, splits: Splits
) -> dict[str, tuple[Callable[[], tuple[nn.Module, Step]], int]]:
    search, retrain = config.search, config.retrain
    per_epoch = len(splits.weights) // search.batch_size
    epochs = search.warmup_epochs + search.epochs
    ablated = -(-search.epochs * per_epoch // config.ablation.every)
    passes = search.recalibration_batches + -(-len(splits.held_out) // search.batch_size)
    trained = (len(splits.weights) + len(splits.alphas)) // retrain.batch_size

    def of(step: Callable[[Rehearsal], object], number: int = 0) -> Callable[[], tuple[nn.Module, Step]]:
        def make() -> tuple[nn.Module, Step]:
            rehearsal = Rehearsal(config, info, torch.device("cpu"))
            rehearsal.step = _AllAblations(rehearsal.net, config, rehearsal.kept)

            def again() -> object:
                rehearsal.step.num_steps = number
                return step(rehearsal)

            return rehearsal.net, again

        return make

    @torch.no_grad()
    def forward(rehearsal: Rehearsal) -> object:
        return rehearsal.net(rehearsal.images, rehearsal.gates(rehearsal.parameters))

    return {
        "weight steps": (of(Rehearsal.weight_step), epochs * per_epoch),
        "alpha steps with ablated networks": (of(Rehearsal.alpha_step), ablated),
        "other alpha steps": (of(Rehearsal.alpha_step, 1), search.epochs * per_epoch - ablated),
        "passes that score and recalibrate": (of(forward), epochs * passes),
        DERIVED: (lambda: _derived(config, info), retrain.epochs * trained),
    }


def _derived(config: ExperimentConfig, info: DataInfo) -> tuple[nn.Module, Step]:
    """A training step of a network like the one that is found: DARTS_V2 in as many cells."""
    retrain = config.retrain.model_copy(update={"num_cells": config.search.num_cells})
    net = build_network(retrain, ZOO["DARTS_V2"].genotype, info).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch
    images = torch.zeros(retrain.batch_size, info.channels, info.image_size, info.image_size)
    images, labels = images.contiguous(memory_format=torch.channels_last), torch.zeros(len(images), dtype=torch.int64)
    sgd = SGD(net.parameters(), lr=retrain.lr, momentum=retrain.momentum, weight_decay=retrain.weight_decay)

    def step() -> None:
        output = net(images)
        F.cross_entropy(output[0] if isinstance(output, tuple) else output, labels).backward()
        nn.utils.clip_grad_norm_(net.parameters(), retrain.grad_clip)
        sgd.step()

    return net, step


def seconds(rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of one thread for a step of each part that a search repeats, ours and in the readable form."""
    info, images = load_train(settings().data)
    work: dict[str, dict[str, Step]] = {}
    for form in ("auto", "readable"):
        config = settings(f"search.implementation={form}")
        for name, (make, _) in _steps(config, info, split(images, config.data, config.seed)).items():
            if name != DERIVED:
                work.setdefault(name, {})[form] = make()[1]
    found: dict[str, dict[str, list[float]]] = {name: {form: [] for form in forms} for name, forms in work.items()}
    for number in range(-1, rounds):
        for name, forms in work.items():
            for form, step in forms.items():
                began = time.process_time()
                step()
                if number >= 0:  # the first of each warms up
                    found[name][form].append(time.process_time() - began)
    return found


def stacked_launches(config: ExperimentConfig, number: int) -> int:
    """Launches of the gradient of so many trials' weights, as one model under `torch.vmap`, on two images each.

    The cells are in the form that reads like the equations: the fast one has gradients of its own, which vmap cannot
    batch. Optimisers are left out, which take one step for all stacked weights either way.
    """
    info, _ = load_train(config.data)
    nets = [Supernet(config.search, info) for _ in range(number)]
    weights, buffers = stack_module_state(nets)  # type: ignore[arg-type]  # modules
    shape = (len(nets[0].cells[0].edges), len(nets[0].cells[0].names))  # type: ignore[arg-type]  # cells
    gates = torch.rand(number, nets[0].num_groups, *shape)
    images = torch.rand(number, 2, info.channels, info.image_size, info.image_size)
    labels = torch.zeros(2, dtype=torch.int64)

    def loss(of_one: Any, held: Any, of_gates: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(nets[0], (of_one, held), (x, of_gates)), labels)

    with batch_statistics(nets[0].train()), Meter() as meter:
        values = torch.vmap(loss)(weights, buffers, gates, images)
        torch.autograd.grad(values.sum(), list(weights.values()))
    return meter.launches


def lone_launches(config: ExperimentConfig, form: str) -> int:
    """The same of one trial alone, its cells in the readable form or in that of the search."""
    info, _ = load_train(config.data)
    net = Rehearsal(config, info, torch.device("cpu")).net.train()
    if form == "readable":
        net.form = readable
    gates = torch.rand(net.num_groups, len(net.cells[0].edges), len(net.cells[0].names))  # type: ignore[arg-type]  # cells
    images, labels = torch.rand(2, info.channels, info.image_size, info.image_size), torch.zeros(2, dtype=torch.int64)
    with batch_statistics(net), Meter() as meter:
        torch.autograd.grad(F.cross_entropy(net(images, gates), labels), list(net.parameters()))
    return meter.launches


def row(rounds: int) -> dict[str, Any]:
    """The numbers of the page: each part of a trial, its seconds, and a step of trials that are stacked."""
    config = settings()
    found: dict[str, Any] = {
        name: {**asdict(counts), "times": times} for name, (counts, times) in parts(config).items()
    }
    lone = {f"alone, {form}": lone_launches(config, form) for form in ("fast", "readable")}
    stacked = lone | {str(number): stacked_launches(config, number) for number in STACKED}
    return {"parts": found, "seconds": seconds(rounds), "stacked": stacked}
