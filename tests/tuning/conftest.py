"""Settings of searches that take seconds, and one Ray per module that needs it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep

from ddarts_core.ground.nested import merge

os.environ.setdefault("OMP_NUM_THREADS", "1")

SETTINGS: dict[str, Any] = {
    "seed": 5,
    "data": {"num_train": 150},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 2, "batch_size": 30},
    "alpha": {"lr": 0.1, "weight_decay": 0.0},
    "retrain": {"channels": 4, "epochs": 2, "batch_size": 30},
    "space": {
        "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0, "log": True},
        "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]},
        "ablation.weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"ablation.loss": ["centered"]}},
    },
    "tune": {"num_samples": 3, "max_concurrent": 1, "scheduler": "fifo", "num_startup_trials": 2},
}

Make = Callable[..., SweepConfig]


@pytest.fixture(scope="module")
def make_sweep(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A sweep configuration of this module's storage folder: name, then groups that are merged over the settings."""
    storage = tmp_path_factory.mktemp("runs")

    def make(name: str, /, **groups: Any) -> SweepConfig:
        own = {"name": name, "storage": str(storage)}
        settings = {**SETTINGS, **({"space": {}} if "space" in groups else {})}
        return resolve_sweep(merge(merge(settings, own), groups))

    return make


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Ray on this machine, as a sweep starts it."""
    import ray
    from ddarts_tuning.cluster.connection import start_ray

    start_ray(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture
def my_searcher(tmp_path: Path) -> Path:
    """The plug-in of the documents that adds a searcher."""
    text = Path("docs/extending.md").read_text()
    (code,) = re.findall(r"```python\n(import random\n.*?)```", text, re.S)
    path = tmp_path / "my_searcher.py"
    path.write_text(code)
    return path


@pytest.fixture
def study_path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "study"
