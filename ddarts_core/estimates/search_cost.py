"""Counts the multiply-adds that a search takes, before it runs; and finds the search that a number of them pays for.

A rehearsal (`memory.Rehearsal`) with few images counts the passes of every step of weights and of alphas, forward and
backward, including ablated networks and the second order. It also counts the passes by which a plan decides, of which a
search may make fewer. The scores between epochs are not counted.

The numbers follow from shapes alone, and for edges that sample operations also from one fixed draw. So they are the
same on every machine, and in every process that goes on with a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..data.sets import load_train
from ..data.splits import split
from ..datasets.facts import DataInfo
from ..ground.errors import UserError
from ..ground.nested import merge
from ..ground.validation import validate
from ..methods import network_of
from ..search.stages import Course
from ..settings.config import ExperimentConfig
from ..tensors.seeding import seeded_init
from .memory import DryStep, Rehearsal

MOST_EPOCHS = 10_000
"""The largest value that `search.epochs` may have."""

FEW = 2
"""How many images a step has in which multiply-adds are counted. With more images they grow in proportion."""

ALIKE = {"seed": 0, "name": "counted"}
"""Values for settings that change no count, so that equal counts are made only once."""


class MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Counts the multiply-adds of convolutions and matrix products, and of their gradients, while it is active.

    Attributes:
        macs: how many multiply-adds were counted so far.

    Example:
        >>> with MacCounter() as counter:
        ...     y = torch.zeros(5, 7) @ torch.zeros(7, 3)
        >>> counter.macs
        105
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        self.macs += _macs(func.overloadpacket.__name__, args, result)
        return result


def _macs(name: str, args: tuple[Any, ...], result: Any) -> int:
    if name == "convolution":
        return convolution_macs(result, args[1])
    if name == "convolution_backward":
        # Either gradient has as many products as the convolution itself.
        return int(sum(args[10][:2])) * convolution_macs(args[0], args[2])
    factor = {"mm": 0, "addmm": 1, "bmm": 0}.get(name)
    return 0 if factor is None else int(result.numel() * args[factor].shape[-1])


def convolution_macs(output: Tensor, weight: Tensor) -> int:
    """Return how many multiply-adds a convolution takes, from its output and its weight."""
    return output.numel() * math.prod(weight.shape[1:])


class _AllAblations(DryStep):
    """A step of the alphas in a rehearsal that runs all its ablated networks."""

    def _players(self, stream: torch.Generator) -> list[int]:
        return list(range(self.config.ablation.sample_cells or self.net.num_groups))


@dataclass(frozen=True)
class StepMacs:
    """How many multiply-adds the steps of a search take, each on one batch.

    Attributes:
        weights: a step of the weights.
        forward: a forward pass without gradients.
        alphas: a step of the alphas without ablated networks.
        ablated: a step of the alphas with the ablated networks that `ablation` asks for.
        beside: a step of the network beside the supernet, without the supernet; 0 if there is no such network.
    """

    weights: int
    forward: int
    alphas: int
    ablated: int
    beside: int


@lru_cache(maxsize=64)
def step_macs(config: ExperimentConfig, info: DataInfo, keep: int | None = None) -> StepMacs:
    """Count the multiply-adds of the steps on one network.

    If a search has dropped operations, the heaviest ones are assumed to be left.

    Args:
        config: the settings of the experiment on this network.
        info: the facts of its data.
        keep: how many operations each edge has. None: all operations.
    """
    batch = config.search.batch_size
    plain = {"implementation": "readable", "amp": "none", "compile": "none", "batch_size": FEW}
    config = config.model_copy(update={"search": config.search.model_copy(update=plain)})
    with seeded_init(0, "counted"):
        rehearsal = Rehearsal(config, info, torch.device("cpu"), keep)
        first, rehearsal.step = rehearsal.step, _AllAblations(rehearsal.net, config, rehearsal.kept)
        rehearsal.step.watch, rehearsal.step.companion = first.watch, first.companion

        def alphas(number: int) -> int:
            rehearsal.step.num_steps = number
            return _counted(rehearsal.alpha_step) * batch // FEW

        ablated = alphas(0)
        of_weights = _counted(rehearsal.weight_step) * batch // FEW
        forward = _counted(partial(_forward, rehearsal)) * batch // FEW
        beside = 0 if first.companion is None else _counted(rehearsal.companion_step) * batch // FEW
        return StepMacs(of_weights, forward, alphas(1) if config.ablation.every > 1 else ablated, ablated, beside)


@torch.no_grad()
def _forward(rehearsal: Rehearsal) -> None:
    rehearsal.net(rehearsal.images, rehearsal.gates(rehearsal.parameters))


def _counted(step: Callable[[], None]) -> int:
    with MacCounter() as counter:
        step()
    macs: int = counter.macs
    return macs


def search_macs(config: ExperimentConfig, info: DataInfo, images: tuple[int, int]) -> int:
    """Return the multiply-adds of a whole search. If edges drop operations, the number is an upper bound.

    Args:
        config: the settings of the experiment.
        info: the facts of its data.
        images: how many images train the weights, and how many train the alphas.
    """
    course, keep, total = Course(config), None, 0
    for number, stage in enumerate(course.stages):
        keep = keep if stage.kept is None else stage.kept
        now = course.settings(number)
        same = now.search.model_copy(update={"epochs": 1, "warmup_epochs": 0})  # counted once for all lengths
        found = step_macs(now.model_copy(update={**ALIKE, "search": same}), info, keep)
        steps = stage.epochs * (sum(images[: 1 + stage.joint]) // now.search.batch_size)
        total += steps * found.weights
        if stage.decides:
            batches = images[1] // now.search.batch_size
            total += course.plan.passes(stage, network_of(now.search).groups, batches) * found.forward
        if stage.beside is not None:
            cycles = -(-stage.epochs // stage.beside.cycle)
            total += cycles * stage.beside.warmup * (images[1] // now.search.batch_size) * found.beside
        if stage.trains_alphas and stage.by_gradient:
            ablated = -(-steps // now.ablation.every)
            total += ablated * found.ablated + (steps - ablated) * found.alphas
    return total


def images_of(config: ExperimentConfig) -> tuple[DataInfo, tuple[int, int]]:
    """Return the facts of an experiment's data, and how many images train its weights and its alphas.

    Raises:
        UserError: the data cannot be read.
    """
    info, train = load_train(config.data)
    splits = split(train, config.data, config.seed)
    return info, (len(splits.weights), len(splits.alphas))


def afforded(config: ExperimentConfig, macs: float) -> tuple[ExperimentConfig, int]:
    """Return the same search with as many epochs as a number of multiply-adds pays for.

    Warm-up and search keep their shares of the epochs. The search has at least one epoch, however much that takes.

    Args:
        config: the settings of the experiment.
        macs: how many multiply-adds the search may take.

    Returns:
        The settings of that search, and how many multiply-adds it takes.

    Raises:
        UserError: the method needs more epochs, or the data cannot be read.
    """
    info, images = images_of(config)
    epochs = config.search.warmup_epochs + config.search.epochs
    number = min(max(int(macs * epochs / search_macs(config, info, images)), 1), MOST_EPOCHS)

    def cost(number: int) -> int:
        return search_macs(lasting(config, number), info, images)

    try:
        while number < MOST_EPOCHS and cost(number + 1) <= macs:
            number += 1
        while number > 1 and cost(number) > macs:
            number -= 1
        return lasting(config, number), cost(number)
    except UserError as error:
        raise UserError(f"{macs:g} multiply-adds pay for {number} epochs of this search: {error}") from error


def lasting(config: ExperimentConfig, epochs: int) -> ExperimentConfig:
    """Return the same search with another number of epochs, of which warm-up and search keep their shares.

    Raises:
        UserError: the method needs more epochs.

    Example:
        >>> from ddarts_core.settings.config import resolve
        >>> search = lasting(resolve({"search": {"warmup_epochs": 10, "epochs": 40}}), 7).search
        >>> search.warmup_epochs, search.epochs
        (1, 6)
    """
    search = config.search
    warmup = min(round(epochs * search.warmup_epochs / (search.warmup_epochs + search.epochs)), epochs - 1)
    plain = config.model_dump(include=set(ExperimentConfig.model_fields))
    changed: ExperimentConfig = validate(
        ExperimentConfig, merge(plain, {"search": {"warmup_epochs": warmup, "epochs": epochs - warmup}}), "this search"
    )
    return changed
