"""An object store as Ray wants it: a file system of pyarrow."""

from __future__ import annotations

from typing import Any

from pyarrow import fs

from .mirror import filesystem


class Handler(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """fsspec's file system for a URI. Its pickle is the URI alone: every machine finds its own credentials."""

    def __init__(self, uri: str) -> None:
        super().__init__(filesystem(uri)[0])
        self._uri = uri

    def __reduce__(self) -> tuple[Any, ...]:
        return Handler, (self._uri,)


def ray_filesystem(uri: str) -> Any:
    """For `storage_filesystem` of Ray; the path in it is `mirror.filesystem(uri)[1]`."""
    return fs.PyFileSystem(Handler(uri))
