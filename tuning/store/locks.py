"""Who works in a study's folder: one sweep at a time, its trials, and one at a time for a trial's own files.

Locks of the operating system, which go with the process that holds them, however it ends. NFS makes byte-range locks of
them: a file must be readable to be shared, and writable to be held alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ddarts_core.ground.errors import UserError

GLANCE_S = 1.0
"""How long a sweep waits for those who look whether the study is held: each shares the lock for an instant."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a study; the lock goes with the process, however it ends.

    Raises:
        UserError: another process runs the study.
    """
    with (path / ".lock").open("w") as file:
        if not _comes(file, GLANCE_S, every=0.01):
            raise UserError(f"study {path.name!r} is running in another process: wait for it or stop it")
        yield


def is_locked(path: Path) -> bool:
    """Whether a process runs the study. Any number may look at a time: they share the lock."""
    try:
        with (path / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


WORKERS_S = 300.0
"""How long a driver waits for the workers of one that was killed to end."""


def join_workers(path: Path) -> IO[str]:
    """Count this process as a worker of the folder until the file that is returned is closed, or the process ends."""
    file = (path / ".workers").open("a+")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def await_workers(path: Path, what: str) -> None:
    """Wait for the workers of a driver that was killed: they live on for some seconds, and write.

    Args:
        path: of the folder that they joined.
        what: they are, in the plural, for the message.

    Raises:
        UserError: they do not end.
    """
    with (path / ".workers").open("a") as file:
        if not _comes(file, WORKERS_S, every=0.1):
            raise UserError(f"{what} still run: stop them")


def _comes(file: IO[str], seconds: float, every: float) -> bool:
    """Whether this process gets the lock of a file for itself within some seconds.

    A lock that is let go tells nobody, and flock itself would wait without an end: so it is asked again and again.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(every)
        else:
            return True


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of what they do under the same lock for the same trial; waits for them."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
