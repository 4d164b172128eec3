"""Who works in a study's folder: one sweep at a time and its trials, and one process at a time on a trial's own files.

The locks are those of the operating system. A lock is released when the process that holds it ends, however it ends.
NFS makes byte-range locks of them, so that a file must be readable for a shared lock, and writable for an exclusive
one.
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
"""Seconds that a sweep waits for processes that look whether the study is held; each of them shares the lock for an
instant."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a study. The lock is released when the process ends, however it ends.

    Raises:
        UserError: another process runs the study.
    """
    with (path / ".lock").open("w") as file:
        if not _comes(file, GLANCE_S, every=0.01):
            raise UserError(f"study {path.name!r} is running in another process: wait for it or stop it")
        yield


def is_locked(path: Path) -> bool:
    """Whether a process runs the study. Any number of processes may look at a time, since they share the lock."""
    try:
        with (path / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


WORKERS_S = 300.0
"""Seconds that a driver waits until the workers of an earlier driver that was killed have ended."""


def join_workers(path: Path) -> IO[str]:
    """Count this process as a worker of the folder until the file that is returned is closed, or the process ends."""
    file = (path / ".workers").open("a+")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def await_workers(path: Path, what: str) -> None:
    """Wait until the workers of a driver that was killed have ended: they live on for some seconds, and write.

    Args:
        path: the folder that the workers joined.
        what: what the message calls the workers, in the plural.

    Raises:
        UserError: the workers do not end.
    """
    with (path / ".workers").open("a") as file:
        if not _comes(file, WORKERS_S, every=0.1):
            raise UserError(f"{what} still run: stop them")


def _comes(file: IO[str], seconds: float, every: float) -> bool:
    """Whether this process gets the exclusive lock of a file within some seconds.

    Nobody is told when a lock is released, and flock itself would wait without an end. So the lock is tried again and
    again.
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
    """Hold the lock of a trial's folder, so that one process at a time does what needs it; wait for the others."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
