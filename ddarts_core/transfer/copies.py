"""Finds files that are copies of each other, byte by byte, and reads few of them whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

#: Bytes at the begin of a file by which most pictures differ.
HEAD = 4096


def copies(paths: Sequence[Path], counts: Callable[[Sequence[int]], bool] = lambda group: len(group) > 1) -> list[int]:
    """Return, for each file, the number of the first file with the same content: its own if there is none before it.

    Files of the same size are compared by a hash of their begin, and those that are equal there by a hash of the whole.

    Args:
        paths: the files.
        counts: whether files that may be equal are compared further, given their numbers in ascending order.
    """
    keys: tuple[Callable[[Path], Hashable], ...] = (lambda path: path.stat().st_size, _begin, _whole)
    groups: list[Sequence[int]] = [range(len(paths))]
    for key in keys:
        finer: list[Sequence[int]] = []
        for group in groups:
            equal: dict[Hashable, list[int]] = {}
            for number in group:
                equal.setdefault(key(paths[number]), []).append(number)
            finer += filter(counts, equal.values())
        groups = finer
    first = [*range(len(paths))]
    for group in groups:
        for number in group:
            first[number] = group[0]
    return first


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(HEAD)).digest()


def _whole(path: Path) -> bytes:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while read := file.read(2**20):
            hashed.update(read)
    return hashed.digest()
