"""A cache that keeps what a scan found for later runs, as arrays in numpy's own format, which hold no code. Torch-free.

The cache may be deleted at any time. If its folder cannot be written, every process scans for itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ground.errors import UserError
from ..ground.files import write_with

Arrays = Mapping[str, np.ndarray[Any, Any]]

#: Version of the files; those of another are not read.
VERSION = 2


def folder() -> Path:
    """Return the folder of the cache: `$XDG_CACHE_HOME/ddarts/data`, or `~/.cache/ddarts/data` if that is not set."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ddarts" / "data"


def path_of(root: Path, what: str, origin: str = "") -> Path:
    """Return the file of the cache that keeps one kind of facts about the images at a path.

    Args:
        root: the folder or the file of the images.
        what: the kind of facts, such as `heads`.
        origin: what reads the images (`sources.Found.origin`), since another reader may find other pictures there.
    """
    key = hashlib.sha256(os.fsencode(f"{origin}\0{os.path.realpath(root)}")).hexdigest()[:16]
    return folder() / f"{key}-{what}.v{VERSION}.npz"


def as_array(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return texts as an array of bytes. The texts may be names of files that are not valid Unicode."""
    return np.frombuffer(json.dumps(list(texts)).encode("ascii"), np.uint8)


def as_texts(array: np.ndarray[Any, np.dtype[np.uint8]]) -> list[str]:
    """Return the texts that `as_array` turned into bytes."""
    found: list[str] = json.loads(array.tobytes())
    return found


def read(path: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return the arrays in a file by name; None if the file is missing or damaged. Then the images are read again."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception:  # zipfile, zlib and numpy raise many kinds, and whatever it is: the images are there
        return None


def write(path: Path, arrays: Arrays) -> None:
    """Write arrays by name to a file. Nothing happens if the folder cannot be written."""

    def save(name: str) -> None:
        np.savez_compressed(name, **arrays)  # type: ignore[arg-type]  # its stub takes the names for its own

    with contextlib.suppress(OSError, UserError):
        write_with(path, save)


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let one process of this machine scan the images at a path. Others wait, and then read what that process found."""
    lock = path_of(root, "lock").with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed; processes that are started do not inherit it
        yield
