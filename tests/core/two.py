"""Two processes in one process group, which live for a module's tests and run functions of it together, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed as dist
from torch import multiprocessing

from ddarts_core.data import images
from ddarts_core.training.retrain import Retrain


@contextmanager
def float64() -> Iterator[None]:
    """Within it trainings compute in float64.

    In float32 they amplify rounding: by a factor of 1000 in two steps where a ReLU or a maximum falls the other way.
    """
    normalised, build_network = images.normalised, Retrain._build
    with (
        mock.patch.object(images, "normalised", lambda *arguments: normalised(*arguments).double()),
        mock.patch.object(Retrain, "_build", lambda self: build_network(self).double()),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


class Two:
    """Starts the processes; `run` has both of them call a function of a module and returns both results, by rank."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(2)]
        self.pipes = [pipe[0] for pipe in pipes]
        self.processes = [
            context.Process(target=_serve, args=(pipe[1], rank, str(folder / "store")), daemon=True)
            for rank, pipe in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((function, arguments))
        results = []
        for pipe in self.pipes:
            assert pipe.poll(120), "no answer for two minutes"
            results.append(pipe.recv())
        errors = [result for result in results if isinstance(result, Exception)]
        if errors:
            raise errors[0]
        return results

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(30)


def _serve(pipe: Connection, rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    while (order := pipe.recv()) is not None:
        function, arguments = order
        try:
            pipe.send(function(*arguments))
        except Exception as error:  # every one is the caller's
            pipe.send(error)
    dist.destroy_process_group()
