"""`tune.resources: auto`: the share of a device that a trial needs, from its estimated memory."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from dataclasses import dataclass
from typing import Any

import torch

from ddarts_core.data.readers import MOST
from ddarts_core.data.sets import data_info, load_train
from ddarts_core.data.streaming import StreamedSet
from ddarts_core.datasets.facts import DataInfo
from ddarts_core.estimates.estimate import data_memory, retrain_memory
from ddarts_core.estimates.memory import CONTEXT_BYTES, largest_that_fits, step_memory
from ddarts_core.estimates.room import check_search
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path, set_path
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.tensors.devices import pick_device

from ..settings.config import SweepConfig
from ..settings.space import Space, base_settings, trial_config
from ..settings.tune import ResourcesConfig
from .machines import gpu_memory, machines, smallest_gpu

SIZES = (
    "search.num_cells",
    "search.channels",
    "search.steps",
    "search.batch_size",
    "search.momentum",
    "data.image_size",
    "discretise.edges_per_node",
    "retrain.num_cells",
    "retrain.channels",
    "retrain.batch_size",
    "retrain.momentum",
    "retrain.auxiliary_weight",
    "retrain.ema_decay",
)
"""Settings that memory grows with. Of the others, those that choose from words, or true and false, are tried."""

MARGIN = 1.15
"""Factor for what an allocator and the libraries' workspaces take beside the bytes that are counted."""

STEP = 0.05
"""Shares of a GPU are rounded up to a multiple of this."""

READER_BYTES = 200 * 2**20
"""Bytes of main memory of a process that reads images, with its share of the server that it was forked from."""

PROCESS_BYTES = 700 * 2**20
"""Bytes of main memory of a trial's process before its first step."""


@dataclass(frozen=True)
class Device:
    """The device that trials run on.

    Attributes:
        kind: `cuda` or `cpu`.
        memory: bytes of one GPU's memory, or of the machine's main memory.
        cpus: number of cores.
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
    """What a sweep's trials use of this machine: its GPU, if it has one and the trials may use it, else main memory."""
    cpus = len(os.sched_getaffinity(0))
    memory = smallest_gpu() if uses_gpus(config) else None
    if memory is not None:
        return Device("cuda", memory, cpus, torch.cuda.device_count())
    return Device("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), cpus, 0)


def idle_gpus(config: SweepConfig) -> int:
    """How many GPUs of this machine no trial would use although the trials could."""
    given = config.tune.resources == "auto" or config.tune.resources.gpu > 0
    return 0 if given or not uses_gpus(config) else torch.cuda.device_count()


def cluster_device(config: SweepConfig) -> Device:
    """The smallest machine of the cluster that this process has joined; if any have GPUs, the smallest of these.

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
    """Whether any part of a trial would run on a GPU that the trial is given."""
    return config.search.device != "cpu" or (trains(config) and config.retrain.device != "cpu")


def with_resources(config: SweepConfig, space: Space, device: Device | None = None) -> SweepConfig:
    """The configuration of a sweep in which what the space's largest trial needs has replaced `auto`.

    Args:
        config: the configuration of a sweep.
        space: the search space of the sweep.
        device: the device that trials run on; None stands for that of this machine.

    Raises:
        UserError: the largest trial cannot fit. The message names the estimate, and the largest width or batch that
            would fit.
    """
    if config.tune.resources != "auto":
        return config
    device = device or this_device(config)
    largest = largest_trial(config, space, device)
    peaks = _peaks(largest, device, trains(config))
    need = _whole(peaks, largest, device)
    if need > device.memory:
        raise UserError(_refusal(largest, device, peaks))
    if device.kind == "cuda":
        share = min(1.0, round(math.ceil(need / device.memory / STEP - 1e-9) * STEP, 2))
        per_gpu = int(1 / share + 1e-9)
        # More than a core for each would wait for the GPU, unless other processes read images.
        useful = 1.0 + num_readers(config.data, MOST)
        cpu = max(0.1, min(useful, device.cpus / (per_gpu * device.gpus)))
        resources = ResourcesConfig(cpu=cpu, gpu=share, threads=1)
    else:
        together = min(int(device.memory / need), device.cpus)
        resources = ResourcesConfig(cpu=max(1.0, device.cpus / together))
    return config.model_copy(update={"tune": config.tune.model_copy(update={"resources": resources})})


def check_smallest(config: SweepConfig, space: Space, info: DataInfo) -> None:
    """Refuse a sweep on this machine if not even the search of the space's smallest trial fits its memory.

    A larger trial that does not fit says so itself when it begins (trainable.py).

    Raises:
        UserError: see `room.check_search`.
    """
    drawn, base = dict(space.distributions), base_settings(config)
    if config.search.number is not None or "search.number" in drawn:
        return  # architectures by their numbers: nothing is searched
    sizes = {path: min(drawn[path].corners()) for path in SIZES if path in drawn}
    words = {
        path: [value for value in distribution.corners() if isinstance(value, str | bool)]
        for path, distribution in drawn.items()
    }
    chosen: list[dict[str, Any]] = [{path: value} for path, values in words.items() for value in values]
    refused: UserError | None = None
    for choice in chosen or [{}]:
        params = {**sizes, **choice}
        for path, distribution in space.distributions:  # what depends on the choice, parents first
            if distribution.when and path not in params and space.active(distribution, params):
                params[path] = distribution.corners()[0]
        try:
            smallest = trial_config(base, params)
        except UserError:  # it contradicts another choice, and such a trial fails at once
            continue
        try:
            check_search(smallest, info, pick_device(smallest.search.device))
        except UserError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused


def num_readers(config: DataConfig, most: int) -> int:
    """How many processes read images for a trial, none if no images stay in files; `most` stands for `auto`."""
    if not _images(config, torch.device("cpu"))[1]:
        return 0
    return most if config.num_workers == "auto" else config.num_workers


def with_readers(config: SweepConfig) -> SweepConfig:
    """The configuration in which a trial takes a core for each of the `data.num_workers` that are asked for.

    If the largest machine has fewer cores, a trial takes all of them. The number of threads that compute stays the
    same, so that results do not depend on who reads.
    """
    resources, asked = config.tune.fixed_resources, config.data.num_workers
    if asked == "auto" or asked <= resources.cpu:
        return config
    cpu = max([resources.cpu, *(min(float(asked), machine.cpus) for machine in machines())])
    threads = resources.threads or max(1, int(resources.cpu))
    resources = resources.model_copy(update={"cpu": cpu, "threads": threads})
    return config.model_copy(update={"tune": config.tune.model_copy(update={"resources": resources})})


def trains(config: SweepConfig) -> bool:
    """Whether a trial of the sweep trains the network that it finds."""
    return config.tune.objective != "supernet"


def memory_of(config: ExperimentConfig, device: Device, trained: bool) -> int:
    """Bytes that a trial takes at its largest moment, with those of its process and with a margin."""
    return _whole(_peaks(config, device, trained), config, device)


def _whole(peaks: dict[str, int], config: ExperimentConfig, device: Device) -> int:
    readers = 0 if device.kind == "cuda" else READER_BYTES * num_readers(config.data, 1)
    return math.ceil(max(peaks.values()) * MARGIN) + device.overhead + readers


def _peaks(config: ExperimentConfig, device: Device, trained: bool) -> dict[str, int]:
    """Bytes at the largest moment of the search and of the training, by the group of settings that decides them."""
    return {group: _peak(group, config, device) for group in (("search", "retrain") if trained else ("search",))}


def _peak(group: str, config: ExperimentConfig, device: Device) -> int:
    info, kind = data_info(config.data), torch.device(device.kind)
    alone = step_memory(config, info, kind).peak if group == "search" else retrain_memory(config, info)
    return alone + _images(config.data, kind)[0]


@functools.lru_cache(maxsize=8)
def _images(config: DataConfig, device: torch.device) -> tuple[int, bool]:
    """Bytes that the training images take on a device, and whether the images stay in their files."""
    info, images = load_train(config)
    return data_memory(images, info, device), isinstance(images, StreamedSet)


def largest_trial(config: SweepConfig, space: Space, device: Device) -> ExperimentConfig:
    """The settings with the largest value of each size, and with the value of each choice that takes the most memory.

    Choices are tried one after the other, each together with the settings that took the most memory so far.
    """
    drawn = dict(space.distributions)
    params: dict[str, Any] = {path: max(drawn[path].corners()) for path in SIZES if path in drawn}
    base, where = base_settings(config), "the space's largest trial"
    largest = trial_config(base, params, where=where)
    for path, distribution in drawn.items():
        choices = [value for value in distribution.corners() if isinstance(value, str | bool)]
        found = {}
        for choice in choices:
            with contextlib.suppress(UserError):  # it contradicts another choice, and such a trial fails at once
                found[choice] = trial_config(base, {**params, path: choice}, where=where)
        if found:
            choice = max(found, key=lambda choice: memory_of(found[choice], device, trains(config)))
            params[path], largest = choice, found[choice]
    return largest


def _refusal(config: ExperimentConfig, device: Device, peaks: dict[str, int]) -> str:
    limit = int((device.memory - device.overhead) / MARGIN)
    there = "GPU" if device.kind == "cuda" else "machine"
    settings = config.model_dump(mode="json")
    sizes, advice = [], []
    for group in (group for group, peak in peaks.items() if peak > limit):
        values = {path: get_path(settings, path) for path in (f"{group}.channels", f"{group}.batch_size")}
        sizes += [f"{path} {value}" for path, value in values.items()]
        fitting = []
        for path, value in values.items():

            def peak(value: int, path: str = path, group: str = group) -> int:
                return _peak(group, ExperimentConfig.model_validate(set_path(settings, path, value)), device)

            found = largest_that_fits(peak, limit, value, quadratic=path.endswith("channels"))
            fitting += [f"{path} {found}"] if found is not None and found >= 2 else []
        advice.append(f"at most {' or '.join(fitting)}" if fitting else f"no {group}.channels or batch_size alone")
    need = math.ceil(max(peaks.values()) * MARGIN) + device.overhead
    return (
        f"tune.resources auto: the largest trial ({', '.join(sizes)}) needs about {need / 2**30:.2f} GiB, the {there} "
        f"has {device.memory / 2**30:.2f} GiB: {', and '.join(advice)} would fit"
    )
