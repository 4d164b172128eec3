"""A study in an object store: a folder on this machine is a copy of the objects below a URI.

Objects cannot be locked, appended to or renamed; they can only be replaced as a whole. So the driver works in a folder
of the user's cache, and each trial in a folder of its own. Both work there as if the study were on a shared file
system, and send what has changed:

study.json, optuna.log, report.html, ...   by the driver
trials/TRIAL_ID/...                        by the trial; by the driver while the trial has no process
lease.json                                 who runs the study (see lease.py)

The store is the truth: what a process did but did not send before it was killed does not count.

fsspec, which pandas and torch use too, speaks with the stores: with `s3://` by the package s3fs, with `gs://` by gcsfs,
with `abfs://` by adlfs. These packages look for credentials in their usual places (environment, files, the machine's
role).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_not_exception_type, stop_after_delay, wait_exponential

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.ground.redact import has_password, hide_secrets, one_line, without_secrets

from .checkpoints import is_checkpoint

NOTE = ".mirror.json"
"""A file in a folder that is a copy. It says what the folder is a copy of, and which state of each file was equal to
its object."""

CACHE_VARIABLE = "DDARTS_CACHE"
"""Environment variable: the folder for copies of studies; ~/.cache/ddarts without it."""

MARKS = ("ETag", "etag", "LastModified", "updated", "created", "mtime", "size")
"""The fields of the stores' listings that change when an object changes."""

PATIENCE_VARIABLE = "DDARTS_STORE_PATIENCE"
"""Environment variable: for how many seconds a store that does not answer is asked again; a minute without the
variable."""

Value = TypeVar("Value")


def is_uri(name: str | Path) -> bool:
    """Whether the name of a storage is a URI, and not a path."""
    return "://" in str(name)


def check_storage(name: str) -> str:
    """Return a path as it is, and the URI of a store without a slash at its end.

    Raises:
        UserError: the URI has a password or options in it, names no place, or is that of local files.
    """
    if not is_uri(name):
        return name
    parts = urlsplit(name)
    shown = without_secrets(name)
    if parts.scheme in ("file", "local"):
        raise UserError(f"storage {shown!r}: give a folder of this machine as a path: {parts.path}")
    if has_password(name) or parts.query or parts.fragment:
        raise UserError(
            f"storage {shown!r} must be SCHEME://PLACE/PATH without password, ? and #: the credentials go where the "
            "store's own tools look for them, for example AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL for s3"
        )
    if not parts.netloc:
        raise UserError(f"storage {shown!r} names no place: give for example {parts.scheme}://BUCKET/studies")
    return name.rstrip("/")


def copy_folder(uri: str, use: str) -> Path:
    """The folder of this user's copy of a study, by the study's URI: one copy to `run` it, one to `view` it."""
    base = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/ddarts").expanduser().absolute()
    return base / hashlib.sha256(uri.encode()).hexdigest()[:12] / use / uri.rpartition("/")[2]


def filesystem(uri: str) -> tuple[Any, str]:
    """fsspec's file system for a URI, and the path in this file system.

    Raises:
        UserError: there is no file system for such URIs, or its package is missing.
    """
    import fsspec  # type: ignore[import-untyped]  # it has no types

    scheme = urlsplit(uri).scheme
    try:
        found, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except (ImportError, ValueError, OSError) as error:  # an OSError: a library of the system is missing
        hint = "pip install 'ddarts[s3]'" if scheme == "s3" else "choose a path, s3://, gs:// or abfs://"
        raise UserError(f"storage {uri!r} cannot be used: {one_line(str(error))[:300]}: {hint}") from error
    return found, str(path)


def is_shared(name: str) -> bool:
    """Whether a file of a study's folder, named by its path in the folder, is sent and fetched as it is."""
    parts = name.split("/")
    # What earlier versions left of Ray's is not part of a study.
    return not (any(part.startswith(".") for part in parts) or re.fullmatch(r"ray(-\d+)?|lease\.json", parts[0]))


def copied_from(folder: Path) -> str | None:
    """The URI of what a folder is a copy of, if it is one."""
    note = folder / NOTE
    return str(json.loads(note.read_text(encoding="utf-8"))["uri"]) if note.exists() else None


class StoreError(UserError):
    """The store refuses, or does not answer."""


def patiently(uri: str, call: Callable[[], Value]) -> Value:
    """Ask a store for something, and ask again as long as the store does not answer.

    Raises:
        StoreError: the store refuses, or has not answered for as long as `PATIENCE_VARIABLE` says.
        FileNotFoundError, FileExistsError: the call raised it.
    """
    final = (FileNotFoundError, FileExistsError, PermissionError, UserError)
    try:
        for attempt in Retrying(
            stop=stop_after_delay(_patience()),
            wait=wait_exponential(0.5, max=10),
            retry=retry_if_not_exception_type(final),
            reraise=True,
        ):
            with attempt:
                return call()
    except (FileNotFoundError, FileExistsError, UserError):
        raise
    except Exception as error:  # each store has its own
        reason = one_line(hide_secrets(str(error)))[:300] or type(error).__name__
        raise StoreError(f"the store of {uri} cannot be used: {reason}") from error
    raise AssertionError("an attempt returns or raises")


def _patience() -> float:
    text = os.environ.get(PATIENCE_VARIABLE) or "60"
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise UserError(f"{PATIENCE_VARIABLE} is {text!r}: give seconds, for example 600")
    return float(text)


class Mirror:
    """One folder, and the URI that the folder is a copy of. Any thread may use a mirror.

    Args:
        uri: the URI of the study.
        folder: the folder, which is made when something is fetched.
        checkpoints: whether the checkpoints of trials are fetched too. Only a process that goes on with a trial needs
            them.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, folder: Path, checkpoints: bool = False) -> None:
        self.uri = uri
        self._checkpoints = checkpoints
        self.folder = folder
        self.fence: Callable[[], None] = lambda: None
        """A function that is called before anything is sent, and raises if another process runs the study now."""
        self.fs, self.root = filesystem(uri)
        self._turn = threading.RLock()
        self._equal: dict[str, tuple[str, int, int]] = {}  # the store's mark, and time and size of the file
        if (folder / NOTE).exists():
            noted = json.loads((folder / NOTE).read_text(encoding="utf-8"))
            self._equal = {name: tuple(entry) for name, entry in noted["files"].items()}

    def ask(self, call: Callable[[], Value]) -> Value:
        """Ask the store for something, see `patiently`."""
        return patiently(self.uri, call)

    def path(self, name: str) -> str:
        """The path of an object in the store, by its path in the study."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """Read an object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return bytes(self.ask(lambda: self.fs.cat_file(self.path(name))))

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Write an object as a whole.

        Raises:
            FileExistsError: the object must be new, and there is one already.
        """
        mode = {"mode": "create"} if new else {}
        self.ask(lambda: self.fs.pipe_file(self.path(name), data, **mode))

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self.ask(lambda: self.fs.rm_file(self.path(name)))

    def found(self, below: str, wanted: Callable[[str], bool] = is_shared) -> dict[str, str]:
        """The names of the objects below a path in the study, each with the store's mark that changes with the object.

        Raises:
            StoreError: not even the bucket exists.
        """
        try:
            entries = self.ask(lambda: self.fs.find(self.path(below), detail=True))
        except FileNotFoundError as error:  # not the objects: the bucket
            raise StoreError(f"the store of {self.uri} cannot be used: {error}") from error
        names = {path.removeprefix(self.root).lstrip("/"): entry for path, entry in entries.items()}
        return {name: str([entry.get(key) for key in MARKS]) for name, entry in names.items() if wanted(name)}

    def pull(self, *below: str) -> None:
        """Make the files of the folder equal to the store: all of them, or those below some paths in the study."""

        def wanted(name: str) -> bool:
            return is_shared(name) and (self._checkpoints or not is_checkpoint(name))

        with self._turn:
            for part in below or ("",):
                self._pull(self.found(part, wanted), part)
            self._note()

    def _pull(self, found: dict[str, str], part: str) -> None:
        for name, mark in found.items():
            if self._equal.get(name, ("", 0, 0)) != (mark, *_stamp(self.folder / name)):
                with contextlib.suppress(FileNotFoundError):  # it was deleted in this moment
                    write_atomic(self.folder / name, self.read(name))
                    self._equal[name] = (mark, *_stamp(self.folder / name))
        for name in [name for name in self._equal if _is_below(name, part) and name not in found]:
            (self.folder / name).unlink(missing_ok=True)
            del self._equal[name]

    def push(self, *below: str) -> None:
        """Send the files of the folder that have changed since they were last equal to the store.

        The objects of files that are gone are deleted.
        """
        with self._turn:
            changed = []
            for name in self._names(below or ("",)):
                stamp = _stamp(self.folder / name)
                if self._equal.get(name, ("", 0, 0))[1:] != stamp:
                    changed.append((name, stamp))
            gone = [
                name
                for name in self._equal
                if any(_is_below(name, part) for part in below or ("",)) and not (self.folder / name).exists()
            ]
            if not changed and not gone:
                return
            self.fence()
            for name, stamp in changed:
                self.write(name, (self.folder / name).read_bytes())
                self._equal[name] = ("", *stamp)  # the mark is not known: the next `pull` fetches it once
            for name in gone:
                self.delete(name)
                del self._equal[name]
            self._note()

    def _names(self, below: Iterable[str]) -> list[str]:
        files: list[Path] = []
        for part in below:
            at = self.folder / part
            files += [at] if at.is_file() else [file for file in at.rglob("*") if file.is_file()]
        names = (file.relative_to(self.folder).as_posix() for file in files)
        return sorted({name for name in names if is_shared(name)})

    def _note(self) -> None:
        """Write what was fetched, so that the next process fetches only changes and knows the folder as a copy."""
        write_atomic(self.folder / NOTE, json.dumps({"uri": self.uri, "files": self._equal}))


def _stamp(file: Path) -> tuple[int, int]:
    """Time and size of a file; zeros if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _is_below(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}/")
