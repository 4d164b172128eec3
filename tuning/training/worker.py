"""What each worker of a training does: its share of every batch.

Every worker runs the loop (`Retrain`, for instance) of a `Job`. The first worker writes the checkpoint, as a training
in one process does, and tells the driver through a queue what happens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ddarts_core.ground import plugins
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.ground.plugin_files import Source
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord
from ddarts_core.training.parallel import Group

from ..store.locks import join_workers

CHECKPOINT = "checkpoint.pt"
#: What workers and driver leave for one another while they train.
SCRATCH = "ray"

Tell = Callable[[tuple[str, Any]], None]
Made = TypeVar("Made")


class Loop(Protocol):
    """What the loops that workers run have in common."""

    epoch: int
    device: torch.device

    @property
    def over(self) -> bool:
        """Whether the last epoch is done."""

    def records(self) -> Iterator[EpochRecord]:
        """Train from the current epoch to the last one, and yield the record of each."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the loop where it was when the state was taken."""


@dataclass(frozen=True)
class Job(ABC):
    """The job that is sent to each worker.

    Attributes:
        folder: the absolute path of the folder for `checkpoint.pt`. If this file is there, the training goes on from
            it. On a cluster, all machines must share the folder.
        sources: the sources of the plug-ins that the driver has loaded.
    """

    folder: Path
    sources: tuple[Source, ...]

    @abstractmethod
    def train(self, group: Group, tell: Tell) -> None:
        """Do what every worker does. Only what the first worker tells is heard.

        Raises:
            UserError: the user made a mistake.
            Diverged: a loss is not finite.
        """


def train_worker(arguments: dict[str, Any]) -> None:
    """Run the training in one worker, on the worker's share of each batch. Only the first worker writes and tells.

    But a mistake is told by whichever worker finds it, since a file that is damaged is read by only one of them.
    """
    group = Group.joined()
    presence = join_workers(arguments["job"].folder / SCRATCH)
    put: Tell = arguments["queue"].put
    tell: Tell = put if group.rank == 0 else lambda _: None
    try:
        plugins.load_sent(arguments["job"].sources)
        arguments["job"].train(group, tell)
    except UserError as error:  # would come again: the worker ends as if all were well, and is not restarted
        put(("mistake", str(error)))
    except Diverged as error:
        tell(("diverged", str(error)))
    finally:
        presence.close()


def run_epochs(
    run: Loop, records: list[dict[str, Any]], job: Job, key: str, every: int, group: Group, tell: Tell
) -> None:
    """Train to the last epoch. The first worker writes checkpoints as often as a training in one process does."""
    _check_alike(run, group)
    tell(("start", run.epoch))
    for record in run.records():
        done = record.to_dict(timing=True)
        records.append(done)
        if group.rank == 0 and (len(records) % every == 0 or run.over):
            checkpoint.save(job.folder / CHECKPOINT, {key: run.state_dict(), "records": records}, packed=True)
        tell(("epoch", done))


def go_on(run: Loop, job: Job, key: str) -> list[dict[str, Any]]:
    """Put a loop where it was when its checkpoint was taken, if there is one. Returns the records so far."""
    if not (job.folder / CHECKPOINT).exists():
        return []
    state = checkpoint.load(job.folder / CHECKPOINT)
    run.load_state_dict(state[key])
    records: list[dict[str, Any]] = state["records"]
    return records


def unanimous(group: Group, make: Callable[[], Made]) -> Made:
    """Return what `make` returns. If it raises in one process, it raises in all, and none waits for another in vain."""
    made: Made | None = None
    refusal = None
    try:
        made = make()
    except UserError as error:
        refusal = str(error)
    refusals = [found for found in group.gathered(refusal) if found is not None]
    if refusals:
        raise UserError(refusals[0])
    assert made is not None
    return made


def _check_alike(run: Loop, group: Group) -> None:
    """Refuse workers that would not train the same network.

    Raises:
        UserError: the workers read different checkpoints, or have different kinds of GPU, which draw different numbers.
    """
    epochs = set(group.gathered(run.epoch))
    if len(epochs) > 1:
        raise UserError(
            f"the workers find checkpoints of different epochs ({', '.join(map(str, sorted(epochs)))}): "
            "the output folder (--out) must be one that all machines share"
        )
    if run.device.type == "cuda":
        kinds = sorted(set(group.gathered(torch.cuda.get_device_name(run.device))))
        if len(kinds) > 1:
            raise UserError(f"the workers have different GPUs ({', '.join(kinds)}): use machines with one kind")
