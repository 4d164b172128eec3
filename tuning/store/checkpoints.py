"""The checkpoints of a trial: files in the trial's folder, each named by the number of epochs that the trial had done.

Checkpoints are ordered by these epochs. No clock and no time of a file says which is the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError

NUM_KEPT = 2
"""How many checkpoints a trial that runs keeps: the newest, and the one before it in case the newest is damaged."""

_NAME = re.compile(r"checkpoint-(\d{6,})\.pt")


def file_of(folder: Path, epochs: int) -> Path:
    """The path of the checkpoint after a number of epochs in a trial's folder."""
    return folder / f"checkpoint-{epochs:06d}.pt"


def is_checkpoint(name: str) -> bool:
    """Whether a path is that of a checkpoint of a trial."""
    return bool(_NAME.fullmatch(name.rpartition("/")[2]))


def found(folder: Path) -> dict[int, Path]:
    """The checkpoints in a trial's folder by their epochs, the fewest epochs first."""
    names = ((_NAME.fullmatch(file.name), file) for file in folder.glob("checkpoint-*.pt"))
    return dict(sorted((int(name[1]), file) for name, file in names if name))


def intact(folder: Path, above: int = 0, up_to: int | None = None) -> Iterator[dict[str, Any]]:
    """The states of a trial's checkpoints that can be read, the furthest first.

    Args:
        folder: the folder of the trial.
        above: a state must have more epochs than this.
        up_to: a state must not have more epochs than this; None sets no bound.
    """
    from ddarts_core.loops import checkpoint  # torch, which the names alone do not need

    for epochs, file in reversed(found(folder).items()):
        if above < epochs and (up_to is None or epochs <= up_to):
            try:
                yield checkpoint.load(file)
            except UserError:
                continue  # damaged: the one before it


def forget(folder: Path, lasting: int | None = None) -> None:
    """Delete all but the newest checkpoints of a trial.

    Args:
        folder: the folder of the trial.
        lasting: the epochs of a further checkpoint that stays, because another member of the population may go on from
            it.
    """
    there = found(folder)
    for epochs in list(there)[:-NUM_KEPT]:
        if epochs != lasting:
            there[epochs].unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Delete all checkpoints of a trial that has ended."""
    for file in found(folder).values():
        file.unlink(missing_ok=True)
