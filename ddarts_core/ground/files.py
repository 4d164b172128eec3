"""Files that are either whole or absent: they are written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import UserError


def write_with(path: str | Path, write: Callable[[str], object]) -> None:
    """Let `write(temporary_path)` make the file, sync it to disk, then rename it to `path`.

    Raises:
        UserError: there is a folder or a device at the path, or no folder can be made for it.
        OSError: the file cannot be written; the error names the path.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise UserError(f"{target} is a {'folder' if target.is_dir() else 'device'}: give the name of a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # its parents were made, and yet: the file system makes no folders
        raise UserError(f"no folder can be made at {target.parent}: choose another path") from error
    try:
        _replace(target, write)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from error


def _replace(target: Path, write: Callable[[str], object]) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix)
    os.close(handle)
    try:
        write(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes as a whole."""
    data = content.encode() if isinstance(content, str) else content
    write_with(path, lambda name: Path(name).write_bytes(data))


#: Bytes that the name of a socket may have.
SOCKET_NAME = 107


def short_temp(part: int, usual: str | None = None) -> str:
    """A folder for temporary files in which sockets can be named.

    Args:
        part: how many bytes of a socket's name follow the name of the folder.
        usual: the folder to use if its name is short enough and ASCII, as Ray needs it; None stands for Python's own,
            that of TMPDIR.

    Raises:
        UserError: the folder's name is too long or not ASCII, and there is no /tmp to use instead.
    """
    usual = os.path.abspath(usual or tempfile.gettempdir())
    if usual.isascii() and len(usual) + part <= SOCKET_NAME:
        return usual
    if not os.access("/tmp", os.W_OK):
        raise UserError(
            f"TMPDIR {usual}: its name does not suit the sockets in it, and /tmp cannot be written: set TMPDIR to a "
            f"folder whose name has at most {SOCKET_NAME - part} letters, all of them ASCII"
        )
    return "/tmp"


def check_folder(name: str) -> str:
    """Return the name of a folder after a check that the name is a path.

    Raises:
        UserError: the name is a URI, which as a path would be a folder called `s3:`, for instance.
    """
    if "://" in name:
        raise UserError(
            f"{name!r} is a URI, and this must be the path of a folder, whose files are appended to and renamed: give "
            "one of this machine or of a file system that all machines share; only a sweep may go to an object store"
        )
    return name
