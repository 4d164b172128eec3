"""Tiny supernets and searches that the core's tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.search.search import Search
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.settings.search_settings import SearchConfig
from ddarts_core.supernets.supernet import Supernet

TINY = {
    "data": {"name": "digits", "num_train": 160},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 2, "batch_size": 24, "device": "cpu"},
    "alpha": {"lr": 0.05, "weight_decay": 0.0},
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_config() -> Callable[..., ExperimentConfig]:
    """`tiny_config("search.epochs=3", ...)`: a search of a second."""
    return lambda *overrides: resolve(TINY, overrides)


@pytest.fixture(scope="session")
def digits() -> Callable[[ExperimentConfig], Search]:
    """Build a search without reading the data set each time."""
    cache = {}

    def build(config: ExperimentConfig) -> Search:
        key = config.data.model_dump_json()
        if key not in cache:
            cache[key] = load_train(config.data)
        info, train = cache[key]
        return Search(config, info, split(train, config.data, config.seed))

    return build


@pytest.fixture
def float64_net() -> Callable[..., tuple[Supernet, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A supernet in float64 train mode, alphas, images and labels."""

    def make(*, sharing="own", num_cells=4, space="S", channels=3, image_channels=2, batch=5, steps=2, form="cifar"):
        torch.manual_seed(0)
        size = 8 if form == "cifar" else 32
        info = DataInfo("x", num_classes=4, channels=image_channels, image_size=size, mean=(0.5,), std=(0.5,))
        config = SearchConfig(
            num_cells=num_cells, channels=channels, steps=steps, sharing=sharing, space=space, form=form
        )
        net = Supernet(config, info).double().train()
        num_operations = len(net.cells[0].edges[0].ops)
        alphas = torch.randn(net.num_groups, len(net.cells[0].edges), num_operations, dtype=torch.float64)
        images = torch.randn(batch, image_channels, size, size, dtype=torch.float64)
        return net, alphas, images, torch.arange(batch) % 4

    return make
