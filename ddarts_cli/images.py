"""Images before anything is trained on them: progress of the look at them, and what a user should know."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddarts_cli.console import say, say_prose

if TYPE_CHECKING:
    from ddarts_core.data.images import DataInfo, Images
    from ddarts_core.settings.data_settings import DataConfig

#: Seconds between two lines of progress without a terminal; what is shorter gets none.
EVERY = 5.0


@contextmanager
def scanning() -> Iterator[None]:
    """Within the block a scan of images shows how far it is: a bar on a terminal, a line now and then elsewhere."""
    from ddarts_core.datasets.scan import watched

    if not sys.stdout.isatty():
        with watched(_Lines()):
            yield
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{what} images", total=total)
            bar.update(tasks[what], completed=done, total=total)

        with watched(tell):
            yield


class _Lines:
    """Says in a line how far a scan of images is, if the last line is more than `EVERY` seconds old."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self.last > EVERY:
            self.last = time.monotonic()
            say(f"{what} images: {done:,} of {total:,}")


def read_train(config: DataConfig) -> tuple[DataInfo, Images]:
    """Read the training images and their facts; a scan of the images shows its progress (`scanning`).

    Raises:
        UserError: see `load_train`.
    """
    from ddarts_core.data.sets import load_train

    with scanning():
        return load_train(config)


def say_data(config: DataConfig, info: DataInfo, train: Images) -> None:
    """Print the first lines of every command that trains, about its images.

    The lines say what was chosen of the data, what looks wrong in them, and what a guess would score.
    """
    from ddarts_core.data.sets import class_counts, data_notes
    from ddarts_core.datasets.facts import majority

    for note in data_notes(config):
        say_prose(f"data: {note}")
    say_prose(f"data: {majority(class_counts(info, train), info.classes)}")
