"""The checkpoints of a trial: files in its own folder, each named by the epochs that it has behind it.

Their order is that of the epochs. No clock and no time of a file says which is the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError

NUM_KEPT = 2
"""Of a trial that runs: the newest, and the one before it in case that one is damaged."""

_NAME = re.compile(r"checkpoint-(\d{6,})\.pt")


def file_of(folder: Path, epochs: int) -> Path:
    """The checkpoint of a trial's folder after so many epochs."""
    return folder / f"checkpoint-{epochs:06d}.pt"


def is_checkpoint(name: str) -> bool:
    """Whether a path is that of a checkpoint of a trial."""
    return bool(_NAME.fullmatch(name.rpartition("/")[2]))


def found(folder: Path) -> dict[int, Path]:
    """The checkpoints in a trial's folder by their epochs, in this order."""
    names = ((_NAME.fullmatch(file.name), file) for file in folder.glob("checkpoint-*.pt"))
    return dict(sorted((int(name[1]), file) for name, file in names if name))


def intact(folder: Path, above: int = 0, up_to: int | None = None) -> Iterator[dict[str, Any]]:
    """The states that can be read, the furthest first.

    Args:
        folder: of the trial.
        above: epochs that a state must be beyond.
        up_to: epochs that it must not be beyond.
    """
    from ddarts_core.loops import checkpoint  # torch, which the names alone do not need

    for epochs, file in reversed(found(folder).items()):
        if above < epochs and (up_to is None or epochs <= up_to):
            try:
                yield checkpoint.load(file)
            except UserError:
                continue  # damaged: the one before it


def forget(folder: Path, lasting: int | None = None) -> None:
    """Delete all but the newest ones.

    Args:
        folder: of the trial.
        lasting: epochs of one that stays too, because another member of the population may go on from it.
    """
    there = found(folder)
    for epochs in list(there)[:-NUM_KEPT]:
        if epochs != lasting:
            there[epochs].unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Delete all, once the trial has ended."""
    for file in found(folder).values():
        file.unlink(missing_ok=True)
