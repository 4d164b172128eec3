"""`tune.resources: auto`: the share of a device that a trial needs, from its estimated memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ddarts_core.config import ExperimentConfig
from ddarts_core.data import data_info
from ddarts_core.errors import UserError
from ddarts_core.estimate import peak_memory
from ddarts_core.memory import CONTEXT_BYTES, largest_that_fits
from ddarts_core.nested import get_path

from .cluster import gpu_memory, machines, smallest_gpu
from .config import ResourcesConfig, SweepConfig
from .space import Space, base_settings, trial_config

SIZES = (
    "search.num_cells",
    "search.channels",
    "search.steps",
    "search.batch_size",
    "retrain.num_cells",
    "retrain.channels",
    "retrain.batch_size",
)
"""Settings that memory grows with."""

MARGIN = 1.15
"""What an allocator and the libraries' workspaces take beside what is counted."""

STEP = 0.05
"""Shares of a GPU are rounded up to this."""

PROCESS_BYTES = 700 * 2**20
"""Main memory of a trial's process before its first step."""


@dataclass(frozen=True)
class Device:
    """What trials run on.

    Attributes:
        kind: `cuda` or `cpu`.
        memory: bytes of one GPU, or of the machine.
        cpus: cores.
        gpus: number of GPUs.
    """

    kind: str
    memory: int
    cpus: int
    gpus: int

    @property
    def overhead(self) -> int:
        """Bytes that a process takes before its first step."""
        return CONTEXT_BYTES if self.kind == "cuda" else PROCESS_BYTES


def this_device(config: SweepConfig) -> Device:
    """What a sweep's trials use of this machine: its GPU, if it has one and they may, else its main memory."""
    cpus = len(os.sched_getaffinity(0))
    memory = smallest_gpu() if uses_gpus(config) else None
    if memory is not None:
        return Device("cuda", memory, cpus, torch.cuda.device_count())
    return Device("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), cpus, 0)


def idle_gpus(config: SweepConfig) -> int:
    """GPUs of this machine that no trial would use although it could."""
    given = config.tune.resources == "auto" or config.tune.resources.gpu > 0
    return 0 if given or not uses_gpus(config) else torch.cuda.device_count()


def cluster_device(config: SweepConfig) -> Device:
    """What fits the smallest machine of the cluster that this process has joined, of those with GPUs if there are any.

    Raises:
        UserError: no machine is there, or Ray counts GPUs on one where torch finds none.
    """
    there = machines()
    if not there:
        raise UserError(
            "tune.resources auto: no machine of the Ray cluster has cores now: give tune.resources {cpu: 1}"
        )
    with_gpus = [machine for machine in there if machine.gpus >= 1] if uses_gpus(config) else []
    if with_gpus:
        fewest = min(with_gpus, key=lambda machine: machine.cpus / machine.gpus)
        memory = min(gpu_memory(machine) for machine in with_gpus)
        return Device("cuda", memory, int(fewest.cpus), int(fewest.gpus))
    smallest = min(there, key=lambda machine: machine.memory / machine.cpus)
    return Device("cpu", smallest.memory, int(smallest.cpus), 0)


def uses_gpus(config: SweepConfig) -> bool:
    """Whether any part of a trial would run on a GPU that it is given."""
    trains = config.tune.objective == "derived"
    return config.search.device != "cpu" or (trains and config.retrain.device != "cpu")


def with_resources(config: SweepConfig, space: Space, device: Device | None = None) -> SweepConfig:
    """The configuration with `auto` replaced by what the space's largest trial needs.

    Args:
        config: of a sweep.
        space: its search space.
        device: the one that trials run on; None is this machine's.

    Raises:
        UserError: the largest trial cannot fit; names the estimate, and the largest width or batch that would.
    """
    if config.tune.resources != "auto":
        return config
    device = device or this_device(config)
    largest = largest_trial(config, space)
    need = math.ceil(peak_memory(largest, torch.device(device.kind)) * MARGIN) + device.overhead
    if need > device.memory:
        raise UserError(_refusal(largest, device, need))
    resources = ResourcesConfig(cpu=1.0)
    if device.kind == "cuda":
        share = min(1.0, round(math.ceil(need / device.memory / STEP - 1e-9) * STEP, 2))
        per_gpu = int(1 / share + 1e-9)
        resources = ResourcesConfig(cpu=max(0.1, min(1.0, device.cpus / (per_gpu * device.gpus))), gpu=share)
    else:
        together = min(int(device.memory / need), device.cpus)
        resources = ResourcesConfig(cpu=max(1.0, device.cpus / together))
    return config.model_copy(update={"tune": config.tune.model_copy(update={"resources": resources})})


def largest_trial(config: SweepConfig, space: Space) -> ExperimentConfig:
    """The settings with the largest value that the space has of each size."""
    drawn = dict(space.distributions)
    params: dict[str, Any] = {path: max(drawn[path].corners()) for path in SIZES if path in drawn}
    return trial_config(base_settings(config), params, where="the space's largest trial")


def _refusal(config: ExperimentConfig, device: Device, need: int) -> str:
    limit = int((device.memory - device.overhead) / MARGIN)
    info, kind = data_info(config.data), torch.device(device.kind)
    there = "GPU" if device.kind == "cuda" else "machine"
    advice = []
    for path, name in (("channels", "search.channels"), ("batch_size", "search.batch_size")):
        value = largest_that_fits(config, info, kind, limit, path)  # type: ignore[arg-type]  # mypy: str of a tuple
        if value is not None and value >= 2:
            advice.append(f"{name} {value}")
    sizes = ", ".join(f"{path} {value}" for path, value in _sizes(config.model_dump()).items())
    would = f"at most {' or '.join(advice)} would fit" if advice else "no width or batch alone makes it fit"
    return (
        f"tune.resources auto: the largest trial ({sizes}) needs about {need / 2**30:.2f} GiB, the {there} has "
        f"{device.memory / 2**30:.2f} GiB: {would}"
    )


def _sizes(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {path: get_path(settings, path) for path in ("search.channels", "search.batch_size", "search.num_cells")}
