"""Temporary folders that are removed after the process that owns them, even if this process was killed. Torch-free."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

#: In each folder: a file that its process, and no other, holds the lock of while it lives.
LOCK = ".lock"

_held: list[int] = []


def own_folder(prefix: str) -> Path:
    """A new folder of this process, which is removed when the process ends.

    A process that is killed cannot remove its folder. So the next process that asks for a folder of the same prefix
    removes the folders whose processes are gone: it can tell, since the system has released their locks.

    Args:
        prefix: how the folder's name begins.
    """
    remove_stale(prefix)
    new = Path(tempfile.mkdtemp(prefix=f"new-{prefix}"))
    handle = os.open(new / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    folder = new.with_name(new.name.removeprefix("new-"))
    new.rename(folder)  # under its own name it is locked from the beginning
    _held.append(handle)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_stale(prefix: str) -> None:
    """Remove the folders of this prefix whose processes are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            handle = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # another user's, or no folder of ours
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process lives
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
