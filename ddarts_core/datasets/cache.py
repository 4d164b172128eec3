"""What a scan found, kept between runs: arrays of numpy's own format, which hold no code. Torch-free.

It may be deleted at any time. Where it cannot be written, every process scans for itself.
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

from ..ground.files import write_with

Arrays = Mapping[str, np.ndarray[Any, Any]]

#: Version of the files; those of another are not read.
VERSION = 1


def folder() -> Path:
    """`$XDG_CACHE_HOME/ddarts/data`, or below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ddarts" / "data"


def path_of(root: Path, what: str) -> Path:
    """The file that keeps something of the images at a path."""
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return folder() / f"{key}-{what}.v{VERSION}.npz"


def as_array(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Texts as bytes; names of files need not be valid Unicode."""
    return np.frombuffer(json.dumps(list(texts)).encode("ascii"), np.uint8)


def as_texts(array: np.ndarray[Any, np.dtype[np.uint8]]) -> list[str]:
    """What `as_array` made bytes of."""
    found: list[str] = json.loads(array.tobytes())
    return found


def read(path: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """The arrays in a file; None if it is missing or damaged: then the images are read again."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception:  # zipfile, zlib and numpy raise many kinds, and whatever it is: the images are there
        return None


def write(path: Path, arrays: Arrays) -> None:
    """Write arrays if the folder can be written."""

    def save(name: str) -> None:
        np.savez_compressed(name, **arrays)  # type: ignore[arg-type]  # its stub takes the names for its own

    with contextlib.suppress(OSError):
        write_with(path, save)


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let one process of this machine scan the images at a path, and the others wait and read what it found."""
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
