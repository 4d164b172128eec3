"""Who runs a study in an object store, where there is no lock that is released when a process ends.

The driver keeps an object, lease.json, and renews it. A lease that has not been renewed for `LAPSE_S` seconds belongs
to a process that died. Before a process sends anything, it looks whether the lease is still that of its own run of the
sweep. So a process that is left of an earlier run, on whatever machine, cannot write into a study that goes on
elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError

from .mirror import Mirror

LEASE = "lease.json"
RENEW_S = 20.0
LAPSE_S = 120.0


class LostLease(RuntimeError):
    """The error of a process whose study another process runs now."""


def holder(mirror: Mirror) -> dict[str, Any] | None:
    """The lease, if there is one: token, host, pid, folder, time."""
    try:
        lease: dict[str, Any] = json.loads(mirror.read(LEASE))
    except FileNotFoundError:
        return None
    return lease


def _me(folder: Path) -> dict[str, Any]:
    """This machine and folder. Of two runs on one machine and in one folder, only one can hold the folder's lock."""
    return {"host": socket.gethostname(), "machine": uuid.getnode(), "folder": str(folder)}


def _same(lease: dict[str, Any], me: dict[str, Any]) -> bool:
    return all(lease.get(key) == value for key, value in me.items())


def is_held(mirror: Mirror, folder: Path, locked: Callable[[Path], bool]) -> bool:
    """Whether a process runs the study, as far as this process can see.

    Args:
        mirror: the mirror of the study.
        folder: the folder that a driver on this machine works in.
        locked: a function that says whether a process holds the lock of a folder.
    """
    lease = holder(mirror)
    if lease is None:
        return False
    if _same(lease, _me(folder)):
        return locked(folder)
    return time.time() - float(lease["time"]) < LAPSE_S


def bind(mirror: Mirror, token: str | None) -> None:
    """Let a mirror send, from now on, only while the lease has this token."""

    def fence() -> None:
        lease = holder(mirror)
        if token is None or lease is None or lease["token"] != token:
            raise LostLease(f"another process runs {mirror.uri} now, or none: nothing is sent any more")

    mirror.fence = fence


@contextlib.contextmanager
def hold(mirror: Mirror) -> Iterator[None]:
    """Hold the lease of a study while this process runs the study, under the lock of the mirror's folder.

    Raises:
        UserError: a process runs the study on another machine, or in another folder of this machine.
    """
    mine = {"token": uuid.uuid4().hex, "pid": os.getpid(), **_me(mirror.folder)}
    _acquire(mirror, mine)
    bind(mirror, str(mine["token"]))
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(mirror, mine, done), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(LostLease, UserError):
            mirror.fence()
            mirror.delete(LEASE)
        mirror.fence = lambda: None


def _acquire(mirror: Mirror, mine: dict[str, Any]) -> None:
    lease = holder(mirror)
    if lease is None:
        try:
            return mirror.write(LEASE, _with_time(mine), new=True)
        except FileExistsError:
            lease = holder(mirror)
    if lease is not None:
        # In the same folder it would hold the lock that this process has: it is dead.
        silent = time.time() - float(lease["time"])
        if not _same(lease, _me(mirror.folder)) and silent < LAPSE_S:
            raise UserError(
                f"study {mirror.uri} is running on {lease['host']} (process {lease['pid']}, last seen {silent:.0f} s "
                f"ago): wait for it or stop it; if it was killed, try again in {LAPSE_S - silent:.0f} s"
            )
    mirror.write(LEASE, _with_time(mine))
    time.sleep(1.0)  # of two that take over at the same moment, the one that wrote last has it
    lease = holder(mirror)
    if lease is None or lease["token"] != mine["token"]:
        raise UserError(f"study {mirror.uri} was taken over by another process at the same moment")


def _with_time(mine: dict[str, Any]) -> bytes:
    return json.dumps({**mine, "time": time.time()}).encode()


def _renew(mirror: Mirror, mine: dict[str, Any], done: threading.Event) -> None:
    while not done.wait(RENEW_S):
        try:
            mirror.fence()
            mirror.write(LEASE, _with_time(mine))
        except UserError:  # the store is away: again, later
            continue
        except LostLease:
            return  # whoever sends next is told
