"""What a command says: what it is about to do, how far it is, what it wrote, what to try next."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from ddarts_core.loops.records import EpochRecord
from ddarts_core.studies.shell import ddarts

Item = TypeVar("Item")

#: Metrics that the progress shows, with their short names.
SHOWN = {
    "train/loss": "loss",
    "train/accuracy": "train",
    "alpha/accuracy": "alpha",
    "held_out/accuracy": "held out",
    "validation/accuracy": "validation",
    "held_out/box_ap": "box AP",
    "held_out/box_ap50": "box AP50",
    "held_out/mask_ap": "mask AP",
    "saturation/over_0.9": "over 0.9",
    "saturation/under_0.1": "under 0.1",
}


def say(text: str = "") -> None:
    """Print a line on standard output at once; print nothing if nobody reads it any more, as after `| head -1`."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNREAD:
            raise
        drop_output()


def say_prose(text: str) -> None:
    """Print sentences; on a terminal the lines end between words.

    The sentences should hold no command that somebody would copy, since a line may end within it.
    """
    if sys.stdout.isatty():
        text = textwrap.fill(text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    say(text)


#: What the system says of a pipe that nobody reads, and of a terminal that was closed.
UNREAD = (errno.EPIPE, errno.EIO)


def drop_output() -> None:
    """Send what is still to be printed nowhere, so that there is no message at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(metrics: Mapping[str, float]) -> str:
    """The metrics of `SHOWN` with their short names in one line: losses as numbers, shares as percentages."""
    parts = [
        f"{short} {metrics[name]:.3f}" if name.endswith("loss") else f"{short} {100 * metrics[name]:.1f} %"
        for name, short in SHOWN.items()
        if name in metrics
    ]
    return ", ".join(parts)


def follow(records: Iterable[EpochRecord], total: int, label: str, done: int = 0) -> Iterator[EpochRecord]:
    """Pass records on and show how far they are: by a bar on a terminal, by a line for each epoch elsewhere.

    Args:
        records: the records of the epochs, as they come.
        total: the number of all epochs.
        label: what the bar or the lines are about.
        done: the number of epochs that were done before, where the bar begins.
    """
    if not sys.stdout.isatty():
        for record in records:
            say(f"{label}: epoch {record.epoch + 1}/{total} ({record.phase}) {describe(record.metrics)}")
            yield record
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(label, total=total, completed=done, metrics="")
        for record in records:
            bar.update(task, completed=record.epoch + 1, metrics=describe(record.metrics))
            yield record


def watch(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Pass items on and show how far they are by a bar on a terminal; elsewhere one line says what begins.

    Args:
        items: the items, as they come.
        total: the number of all items.
        label: what the bar or the line is about.
    """
    if not sys.stdout.isatty():
        say(f"{label}: {total:,}")
        yield from items
        return
    from rich.progress import track

    yield from track(items, label, total)


def again(*options: str, without: tuple[str, ...] = ("--resume", "--force")) -> str:
    """The command that is running, as a shell takes it, with some options taken out and others put at its end.

    Args:
        options: the words to put at the end of the command.
        without: the words to take out of the command.
    """
    given: list[str] = click.get_current_context().obj
    return ddarts(*(word for word in given if word not in without), *options)


@contextmanager
def resumable(command: str, begun: Callable[[], bool]) -> Iterator[None]:
    """If Ctrl-C or SIGTERM stops the block, say which command goes on with the run.

    Args:
        command: the command that goes on.
        begun: tells whether there is something to go on with; if not, nothing is said.
    """
    try:
        yield
    except KeyboardInterrupt:
        if begun():
            say(f"go on: {command}")
        raise


def finish(wrote: Iterable[Path | str], commands: Iterable[str]) -> None:
    """The end of every command: the paths written and the next commands to try."""
    for path in wrote:
        say(f"wrote {path}")
    commands = list(commands)
    if commands:
        say("next:")
        for command in commands:
            say(f"  {command}")
