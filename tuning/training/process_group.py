"""torch's process group of the workers of a training: over which network they talk, and how the group is opened."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import ray.train.torch
from ray.train.backend import Backend
from torch import distributed as dist

#: Variables by which gloo and NCCL are told a network interface.
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass
class ClusterConfig(ray.train.torch.TorchConfig):
    """torch's process group on a cluster, as Ray opens it, over the network by which the machines reach each other.

    torch would take the network that a machine's own name stands for, which is loopback wherever /etc/hosts says so.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that opens and closes the group."""
        return _ClusterBackend


class _ClusterBackend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]  # Ray names it nowhere else
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_use_network)
        super().on_start(worker_group, backend_config)


def _use_network() -> None:
    """Make gloo and NCCL use the network interface by which Ray knows this machine, unless the user chose another."""
    name = interface_of(str(ray.util.get_node_ip_address()))  # type: ignore[no-untyped-call]  # Ray has no types
    if name is not None:
        for variable in INTERFACES:
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """The name of the network interface that has an address; None if none has, as if the address is translated."""
    names = (n for n, found in psutil.net_if_addrs().items() if any(entry.address == address for entry in found))
    return next(names, None)


@dataclass
class LoopbackConfig(ray.train.torch.TorchConfig):
    """torch's process group on one machine: its store is a file, and its sockets listen on loopback.

    By itself, Ray would make torch open a server on all interfaces as the store, and it would ask nobody who they are.

    Attributes:
        folder: the folder of the file; every start has a new file.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that opens and closes the group."""
        return _LoopbackBackend


class _LoopbackBackend(Backend):
    share_cuda_visible_devices = True  # as in Ray's own: GPUs of one machine exchange data directly

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        count = len(worker_group)
        store = f"{backend_config.folder}/store-{uuid.uuid4().hex}"
        timeout = timedelta(seconds=backend_config.timeout_s)
        ray.get(
            [
                worker_group.execute_single_async(rank, _join, backend_config.backend, store, rank, count, timeout)
                for rank in range(count)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_leave)


def _join(backend: str, store: str, rank: int, count: int, timeout: timedelta) -> None:
    os.environ.update(dict.fromkeys(INTERFACES, "lo"))
    opened = dist.FileStore(store, count)  # type: ignore[attr-defined]  # torch does not list it
    dist.init_process_group(backend, store=opened, rank=rank, world_size=count, timeout=timeout)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
