"""A search or a training run to its end, with a checkpoint that a killed process goes on from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ddarts_cli.console import follow, say
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord

if TYPE_CHECKING:
    from ddarts_tuning.training.distributed import Together


class Loop(Protocol):
    """What `Search` and `Retrain` have in common."""

    num_epochs: int

    @property
    def over(self) -> bool:
        """Whether the last epoch is done."""

    def records(self) -> Iterator[EpochRecord]:
        """Run from the current epoch to the last."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state, to go on from where it was taken."""


def run_loop(loop: Loop, kind: str, title: str, state_file: Path, *, resume: bool, every: int = 1) -> list[EpochRecord]:
    """Run a loop to its end and return the records of all its epochs.

    If the loop goes on with an earlier run, the records of that run are among them.

    The checkpoint is written after every `every` epochs, after the last one, and when the run is interrupted (Ctrl-C,
    SIGTERM): then with the state of the last whole epoch.

    Args:
        loop: the loop, which has not begun.
        kind: the key of the loop's state in the checkpoint: `search`, `retrain` or `transfer`.
        title: the name of the run in its progress and its messages.
        state_file: the file of the checkpoint.
        resume: whether to go on from the checkpoint, if there is one.
        every: the number of epochs from one checkpoint to the next.

    Raises:
        UserError: the checkpoint is damaged or belongs to another run.
    """
    records: list[EpochRecord] = []
    if resume and state_file.exists():
        state = checkpoint.load(state_file)
        loop.load_state_dict(state[kind])
        records = [EpochRecord.from_dict(record) for record in state["records"]]
        say(f"{title}: resuming after epoch {len(records)} of {loop.num_epochs}")
    unsaved: dict[str, Any] | None = None

    def saved() -> Iterator[EpochRecord]:
        nonlocal unsaved
        for record in loop.records():
            records.append(record)
            unsaved = {kind: loop.state_dict(), "records": [one.to_dict(timing=True) for one in records]}
            if len(records) % every == 0 or loop.over:
                checkpoint.save(state_file, unsaved, packed=True)
                unsaved = None
            else:
                unsaved = copy.deepcopy(unsaved)  # the loop goes on training the tensors that its state refers to
            yield record

    try:
        for _ in follow(saved(), loop.num_epochs, title, len(records)):
            pass
    except KeyboardInterrupt:
        if unsaved is not None:
            checkpoint.save(state_file, unsaved, packed=True)
        say(f"{title}: stopped after {len(records)} of {loop.num_epochs} epochs")
        raise
    return records


def run_together(run: Together, total: int, title: str, state_file: Path, *, resume: bool) -> list[EpochRecord]:
    """Run a training by several workers, and return the records of all its epochs, as `run_loop` does.

    Args:
        run: the training as this process sees it; the workers read the images and write the checkpoint.
        total: the number of epochs of the whole training.
        title: the name of the run in its progress and its messages.
        state_file: the file of the checkpoint.
        resume: whether to go on from the checkpoint, if there is one. If not, an earlier checkpoint is removed.
    """
    from ddarts_tuning.training.distributed import await_earlier

    await_earlier(state_file.parent)
    records: list[EpochRecord] = []
    if resume and state_file.exists():
        records = [EpochRecord.from_dict(record) for record in checkpoint.load(state_file)["records"]]
        say(f"{title}: resuming after epoch {len(records)} of {total}")
    else:
        state_file.unlink(missing_ok=True)
    try:
        for record in follow(run.records(), total, title, len(records)):
            records = [*records[: record.epoch], record]
    except KeyboardInterrupt:
        say(f"{title}: stopped after {len(records)} of {total} epochs")
        raise
    if run.restarts:
        say(f"{title}: a worker died; started again {run.restarts} times, from the last checkpoint")
    return records
