"""`tune.resources: auto`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_core.errors import UserError
from tuning.config import SweepConfig
from tuning.resources import Device, largest_trial, with_resources
from tuning.space import base_settings
from tuning.study import create_study
from tuning.trainable import SearchTrial

Make = Callable[..., SweepConfig]

SPACE: dict[str, Any] = {
    "search.channels": {"type": "int", "low": 2, "high": 6},
    "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0},
}


@pytest.fixture
def sweep(make_sweep: Make) -> SweepConfig:
    return make_sweep("auto", space=SPACE, tune={"resources": "auto"})


def test_the_largest_trial_counts(sweep: SweepConfig) -> None:
    largest = largest_trial(sweep, sweep.build_space())
    assert largest.search.channels == 6 and sweep.search.channels == 2


@pytest.mark.parametrize(("gibibytes", "share"), [(80, 0.05), (1, 0.5), (0.6, 0.85)])
def test_share_of_a_gpu(sweep: SweepConfig, gibibytes: float, share: float) -> None:
    """CUDA itself takes half a GiB, so tiny searches need half of a GPU of 1 GiB."""
    device = Device("cuda", int(gibibytes * 2**30), cpus=8, gpus=1)
    resources = with_resources(sweep, sweep.build_space(), device).tune.fixed_resources
    assert resources.gpu == share
    assert int(1 / share) * resources.cpu <= 8


def test_cores_of_a_machine_without_gpu_follow_its_memory(sweep: SweepConfig) -> None:
    space = sweep.build_space()
    ample = with_resources(sweep, space, Device("cpu", 64 * 2**30, cpus=4, gpus=0)).tune.fixed_resources
    tight = with_resources(sweep, space, Device("cpu", 2 * 2**30, cpus=4, gpus=0)).tune.fixed_resources
    assert (ample.cpu, ample.gpu) == (1.0, 0.0)
    assert tight.cpu == 2.0


def test_what_can_never_fit_is_refused_with_what_would(make_sweep: Make) -> None:
    space = {"search.channels": {"type": "int", "low": 2, "high": 128}}
    config = make_sweep("large", search={"steps": 1}, space=space, tune={"resources": "auto"})
    with pytest.raises(UserError, match=r"channels 128.*needs about .* GiB, the GPU has 0\.55 GiB: at most search\.ch"):
        with_resources(config, config.build_space(), Device("cuda", 560 * 2**20, cpus=4, gpus=1))


def test_resources_that_are_given_stay(make_sweep: Make) -> None:
    config = make_sweep("given", tune={"resources": {"cpu": 0.5}})
    assert with_resources(config, config.build_space()) is config


# --- what a trial's process keeps to -------------------------------------------------------------------------------

SEEN = """
import json, os
import ray
from tuning.cluster import start_ray
start_ray(num_cpus=2)
def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")
print(json.dumps([ray.get(ray.remote(num_cpus=share)(seen).remote()) for share in (0.5, 2)]))
"""


def test_a_trial_without_a_gpu_sees_none_and_has_the_threads_of_its_cores() -> None:
    """On a machine whose GPU is visible to the driver."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-c", SEEN], env={**env, "CUDA_VISIBLE_DEVICES": "0"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["", "1"], ["", "2"]]


@pytest.mark.parametrize(("gpu", "capped"), [(0.25, [0.25]), (1.0, []), (0.0, [])])
def test_a_share_of_a_gpu_is_a_share_of_its_memory(
    make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: float, capped: list[float]
) -> None:
    config = make_sweep("shares", storage=str(tmp_path), tune={"resources": {"cpu": 2.0, "gpu": gpu}})
    study = create_study(
        config.study_dir, {"config": config.model_dump(mode="json"), "base": base_settings(config), "objectives": []}
    )
    asked: list[float] = []
    threads = torch.get_num_threads()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", asked.append)
    try:
        trial = SearchTrial.__new__(SearchTrial)
        trial._study = study
        trial._limit_resources()
        assert asked == capped
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
