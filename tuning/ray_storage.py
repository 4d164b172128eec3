"""An object store as Ray wants it: a file system of pyarrow that waits for a store that does not answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import fs

from .mirror import filesystem, patiently


class Handler(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """fsspec's file system for a URI. Its pickle is the URI alone: every machine finds its own credentials."""

    def __init__(self, uri: str) -> None:
        super().__init__(filesystem(uri)[0])
        self._uri = uri

    def __reduce__(self) -> tuple[Any, ...]:
        return Handler, (self._uri,)

    def open_input_stream(self, path: str) -> Any:
        """A file, read as a whole."""
        data = patiently(self._uri, lambda: self.fs.cat_file(path))
        return pa.PythonFile(io.BytesIO(data), mode="r")

    open_input_file = open_input_stream

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """A file that is sent as a whole when it is closed."""
        return pa.PythonFile(_Parcel(lambda data: self._send(path, data)), mode="w")

    def _send(self, path: str, data: bytes) -> None:
        patiently(self._uri, lambda: self.fs.pipe_file(path, data))


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(fs.FSSpecHandler, name)

    def call(self: Handler, *args: Any) -> Any:
        return patiently(self._uri, lambda: method(self, *args))

    return call


for _name in (
    "get_file_info",
    "get_file_info_selector",
    "create_dir",
    "delete_dir",
    "delete_dir_contents",
    "delete_file",
):
    setattr(Handler, _name, _patient(_name))


class _Parcel(io.BytesIO):
    """What is written, sent when it is closed; nothing of it if that never happens."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._send(data)

    def __del__(self) -> None:
        super().close()


def ray_filesystem(uri: str) -> Any:
    """For `storage_filesystem` of Ray; the path in it is `mirror.filesystem(uri)[1]`."""
    return fs.PyFileSystem(Handler(uri))
