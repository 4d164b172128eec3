"""`tune.resources: auto`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ddarts_core.errors import UserError
from tuning.config import SweepConfig
from tuning.resources import Device, largest_trial, with_resources

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
    config = make_sweep("large", space=space, tune={"resources": "auto"})
    with pytest.raises(UserError, match=r"channels 128.*needs about .* GiB, the GPU has 0\.59 GiB: at most search\.ch"):
        with_resources(config, config.build_space(), Device("cuda", 600 * 2**20, cpus=4, gpus=1))


def test_resources_that_are_given_stay(make_sweep: Make) -> None:
    config = make_sweep("given", tune={"resources": {"cpu": 0.5}})
    assert with_resources(config, config.build_space()) is config
