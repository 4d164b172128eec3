"""The machines that Ray has: what each holds, and whether trials find a place there."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ddarts_core.ground.errors import UserError

from ..settings.tune import ResourcesConfig, TuneConfig


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster as Ray counts it.

    Attributes:
        node: Ray's identifier of the machine.
        host: the machine's address.
        cpus: number of cores.
        gpus: number of GPUs.
        memory: bytes of main memory, without those of Ray's object store.
    """

    node: str
    host: str
    cpus: float
    gpus: float
    memory: int


def machines() -> list[Machine]:
    """The machines that are there now and take trials. The head of a cluster may have no cores, and takes none then."""
    import ray

    found = [
        Machine(
            node["NodeID"],
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            int(node["Resources"].get("memory", 0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]  # ray
        if node["Alive"]
    ]
    return [machine for machine in found if machine.cpus > 0]


def places(machine: Machine, resources: ResourcesConfig) -> int:
    """How many trials fit on a machine at a time. A trial that takes a GPU, or a share of one, runs on one GPU only.

    Example:
        >>> places(Machine("node", "host", cpus=8, gpus=2, memory=2**36), ResourcesConfig(cpu=1, gpu=0.4))
        4
    """
    by_cpus = int(machine.cpus / resources.cpu + 1e-6)
    return min(by_cpus, int(1 / resources.gpu + 1e-6) * int(machine.gpus)) if resources.gpu else by_cpus


def room(config: TuneConfig) -> int:
    """How many trials fit at a time on the machines that are there now."""
    return min(config.num_samples, sum(places(machine, config.fixed_resources) for machine in machines()))


def check_room(config: TuneConfig, cluster: bool) -> None:
    """Check that a trial fits on one of the machines, or that a machine may still come on which it fits.

    Args:
        config: the group `tune` of the sweep.
        cluster: whether Ray runs on more than this machine.

    Raises:
        UserError: a trial would wait for ever.
    """
    if room(config) or may_wait(config, cluster):
        return
    there = sorted({(machine.cpus, machine.gpus) for machine in machines()})
    has = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in there) or "none with CPUs"
    wanted = config.fixed_resources
    raise UserError(
        f"tune.resources cpu {wanted.cpu:g}, gpu {wanted.gpu:g}: a trial runs on one machine, and fits on none of "
        f"those that are there ({has})"
    )


def may_wait(config: TuneConfig, cluster: bool) -> bool:
    """Whether a trial may wait for a machine that is not there yet, until an autoscaler has started it."""
    return cluster and config.max_concurrent is not None


def smallest_gpu() -> int | None:
    """Bytes of memory of the smallest GPU that this process sees; None if torch finds no GPU."""
    import torch

    sizes = [torch.cuda.get_device_properties(k).total_memory for k in range(torch.cuda.device_count())]
    return min(sizes, default=None)


def gpu_memory(machine: Machine) -> int:
    """Bytes of memory of the smallest GPU of a machine, as a process on that machine finds them.

    Raises:
        UserError: torch finds no GPU there, although Ray counts some.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(machine.node, soft=False)
    # It takes no share of a GPU, which others may have taken whole; its process ends, and leaves nothing on one.
    once = ray.remote(num_cpus=0, max_calls=1, scheduling_strategy=there)  # type: ignore[call-overload]  # ray lacks it
    ask = once(_smallest_gpu_there)
    found: int | None = ray.get(ask.remote())
    if found is None:
        raise UserError(
            f"tune.resources auto: Ray counts {machine.gpus:g} GPUs on {machine.host}, but torch finds none there: "
            "install a torch with CUDA there, set search.device and retrain.device to cpu, or give tune.resources"
        )
    return found


def _smallest_gpu_there() -> int | None:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides them from a process that takes no share
    return smallest_gpu()
