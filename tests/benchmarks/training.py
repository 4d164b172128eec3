"""Steps of the training of a derived network: the plain loop, written here as one would write it, and ours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddarts_core.data.images import ImageSet
from ddarts_core.data.sets import augment_of
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.networks.building import build_network
from ddarts_core.networks.network import Network
from ddarts_core.networks.operations import Identity
from ddarts_core.settings.recipes import RECIPES
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.tensors.seeding import generator
from ddarts_core.training.retrain import Retrain
from ddarts_core.training.schedules import learning_rate
from tests.benchmarks.works import Shape, Step

#: What is trained, and the settings of all rows.
GENOTYPE = ZOO["DARTS_V2"].genotype
PLAIN: dict[str, Any] = {"epochs": 2, "momentum": 0.9, "weight_decay": 3e-4, "grad_clip": 5.0}
#: All that a recipe may add to a step.
FULL = PLAIN | {"auxiliary_weight": 0.4, "drop_path": 0.2, "drop_path_unit": "operation", "ema_decay": 0.999}
#: The epoch of the steps: drop-path grows with it.
EPOCH = 1


def config_of(shape: Shape, settings: dict[str, Any]) -> RetrainConfig:
    """The settings of a training."""
    size = {"num_cells": shape.cells, "channels": shape.channels, "batch_size": shape.batch, "device": shape.device}
    return RetrainConfig.model_validate(size | settings)


def our_step(shape: Shape, settings: dict[str, Any] = PLAIN) -> tuple[nn.Module, Step]:
    """`Retrain._step`, of a batch that lies ready."""
    torch.manual_seed(1)
    images, labels = shape.batch_of(torch.channels_last)
    pixels = torch.zeros(shape.batch, 3, shape.image, shape.image, dtype=torch.uint8)
    retrain = Retrain(
        config_of(shape, settings), GENOTYPE, shape.info, ImageSet(pixels, labels.cpu()), None, 0, images.device
    )
    retrain._begin(EPOCH)
    return retrain._trained, lambda: retrain._step(images, labels)


def plain_step(shape: Shape, settings: dict[str, Any] = PLAIN) -> tuple[nn.Module, Step]:
    """The same mathematics in torch's own layout: DARTS' loop over nodes, torch's optimiser, an average by weight."""
    config = config_of(shape, settings)
    torch.manual_seed(1)
    images, labels = shape.batch_of()
    net = build_network(config, GENOTYPE, shape.info).to(shape.device).train()
    assert isinstance(net, Network)
    lr = learning_rate(config, EPOCH)
    sgd = torch.optim.SGD(net.parameters(), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay)
    averaged = build_network(config, GENOTYPE, shape.info).to(shape.device) if config.ema_decay else None
    dropped = config.drop_path * EPOCH / config.epochs

    def step() -> None:
        logits, auxiliary = _plain_forward(net, images, dropped)
        loss = F.cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = loss + config.auxiliary_weight * F.cross_entropy(auxiliary, labels)
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip)
        sgd.step()
        if averaged is not None:
            with torch.no_grad():
                for mine, theirs in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
                    if mine.is_floating_point():
                        mine.mul_(config.ema_decay).add_(theirs, alpha=1 - config.ema_decay)

    return net, step


def _plain_forward(net: Network, x: Tensor, dropped: float) -> tuple[Tensor, Tensor | None]:
    """Logits and the auxiliary head's, as DARTS writes a cell: every node sums its operations."""
    auxiliary = None
    s0, s1 = net.stem(x)
    for number, cell in enumerate(net.cells):
        states = {0: cell.preprocess[0](s0), 1: cell.preprocess[1](s1)}  # type: ignore[index]  # a ModuleList
        for node in sorted({target for _, target in cell.edges}):  # type: ignore[union-attr]  # a tuple
            total: Any = 0
            for (source, target), op in zip(cell.edges, cell.operations, strict=True):  # type: ignore[arg-type]  # cells
                if target == node:
                    value = op(states[source])
                    if dropped and not isinstance(op, Identity):
                        keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= dropped
                        value = value.div(1 - dropped).mul(keep)
                    total = total + value
            states[node] = total
        s0, s1 = s1, torch.cat([states[i] for i in cell.concat], dim=1)  # type: ignore[union-attr]
        if number == net.auxiliary_position and net.auxiliary_head is not None:
            auxiliary = net.auxiliary_head(s1)
    return net.classifier(F.adaptive_avg_pool2d(s1, 1).flatten(1)), auxiliary


#: Steps by name, timed and counted.
STEPS: dict[str, Callable[[Shape], tuple[nn.Module, Step]]] = {
    "plain": plain_step,
    "ours": our_step,
    "plain, full": lambda shape: plain_step(shape, FULL),
    "ours, full": lambda shape: our_step(shape, FULL),
}


def grown(shape: Shape) -> dict[str, Shape]:
    """The shapes of the rows: the given one, and with half of the batch, of the width and of the cells."""
    smaller = {field: getattr(shape, field) // 2 for field in ("batch", "channels", "cells")}
    smaller["cells"] = max(3, smaller["cells"])
    return {"": shape} | {f"{field}={value}": replace(shape, **{field: value}) for field, value in smaller.items()}


#: Recipes whose images are changed a batch at a time; those of ImageNet change one image at a time, in the readers.
WHOLE_BATCHES = ("quick", "cifar")


def augmentation(shape: Shape, recipe: str, rounds: int) -> float:
    """Seconds in which a whole batch is read from memory, augmented and normalised by a recipe; the median."""
    config = RetrainConfig.model_validate(RECIPES[recipe] | {"batch_size": shape.batch})
    number = (rounds + 1) * shape.batch
    pixels = torch.randint(0, 256, (number, 3, shape.image, shape.image), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(number) % 10)
    batches = images.batches(
        shape.batch, generator=generator(0), info=shape.info, augment=augment_of(config, shape.info.name)
    )
    next(batches)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        x, _ = next(batches)
        x.contiguous(memory_format=torch.channels_last)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
