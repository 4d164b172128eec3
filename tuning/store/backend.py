"""Where studies are: in folders, or in an object store. Code that works with a study has a `Folder` and need not ask.

What a process reads and writes of a study are files of a folder in either case. In the first that is the study's own,
which all see at once. In the second each process has a copy, fetches what others wrote and sends what it wrote.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import write_json

from . import lease
from .locks import await_workers, is_locked, lock
from .mirror import Mirror, check_storage, copied_from, copy_folder, is_uri

Wanted = Callable[[str], bool]
"""Whether a file is meant, by its path in the study."""

BEGUN = {".lock", ".workers", "trials", "mlartifacts"} | {f"mlflow.db{end}" for end in ("", "-journal", "-wal", "-shm")}
"""What a sweep that was killed before study.json leaves."""

UNFINISHED = ".mlflow-"
"""How the name of a folder begins in which a process was killed while it copied a database."""


class Folder:
    """The folder of one study, or of the studies below it, on this machine or shared by several.

    Args:
        folder: absolute.

    Attributes:
        location: what a user calls the study by: the folder, or a URI.
        folder: that this process has the study's files in.
        at_once: whether all see at once what one writes, also into the middle of a file, as a database needs it.
    """

    at_once = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.location = str(folder)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.location.rpartition("/")[2]

    @property
    def storage(self) -> str:
        """What the study is below."""
        return self.location.rpartition("/")[0]

    @property
    def run_folder(self) -> Path:
        """The folder that a sweep on this machine works in."""
        return self.folder

    def exists(self) -> bool:
        """Whether there is a study.

        Raises:
            UserError: the store cannot be used.
        """
        return (self.folder / "study.json").is_file()

    def is_taken(self) -> bool:
        """Whether there is a study, or anything else that is in the way of one."""
        return self.folder.exists()

    def is_same(self, other: Folder) -> bool:
        """Whether another is the same place, maybe by another path, as through a link."""
        if self.location == other.location:
            return True
        return self.folder.exists() and other.folder.exists() and os.path.samefile(self.folder, other.folder)

    def studies(self) -> list[Folder]:
        """The studies right below, in no order.

        Raises:
            UserError: the store cannot be used.
        """
        return [Folder(file.parent) for file in self.folder.glob("*/study.json")]

    # --- its files --------------------------------------------------------------------------------------------------

    def pull(self, *below: str) -> None:
        """Fetch what other processes wrote, all or below some paths in the study; here it is there."""

    def push(self, *below: str) -> None:
        """Let others have what this process wrote, all or below some paths in the study; here they have it."""

    def found(self, below: str, wanted: Wanted) -> list[str]:
        """Paths of files below a path in the study, of those too that `pull` does not fetch."""
        files = (file for file in (self.folder / below).rglob("*") if file.is_file())
        return [name for name in (file.relative_to(self.folder).as_posix() for file in files) if wanted(name)]

    def remove(self, names: Iterable[str]) -> None:
        """Delete files and whole folders for all, by their paths in the study, and the folders that are empty then."""
        for name in names:
            _delete(self.folder / name)
            with contextlib.suppress(OSError):  # it has other files
                for parent in Path(name).parents[:-1]:
                    (self.folder / parent).rmdir()

    @contextlib.contextmanager
    def with_files(self, names: Iterable[str]) -> Iterator[Path]:
        """A folder that has some files of the study, by their paths in it, to be read inside."""
        yield self.folder

    # --- who works with it ------------------------------------------------------------------------------------------

    def check_free(self) -> None:
        """Check that a study can be made here, and would be alone in its folder.

        Raises:
            UserError: there is one, or something else that is in the way, or another process makes one now.
        """
        self._check_new()
        path = self.folder
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file: give a study another folder with --out or --set name=...")
        if is_locked(path):
            raise UserError(
                f"another sweep is creating study {path.name!r} at this moment: wait until it has begun, or choose "
                "another name with --set name=..."
            )
        others = sorted(f.name for f in path.glob("*") if f.name not in BEGUN and not f.name.startswith(UNFINISHED))
        if others:
            raise UserError(
                f"{path} holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''} and no study: give the "
                "study a folder of its own with --out or --set name=..."
            )

    def _check_new(self) -> None:
        if self.exists():
            raise UserError(
                f"study {self.name!r} exists already in {self.storage}: go on with `{ddarts('resume', self.location)}`"
                ", add trials with `ddarts sweep FILE`, or choose another name with --set name=..."
            )

    @contextlib.contextmanager
    def begin(self) -> Iterator[Folder]:
        """Make a study inside; what is left of one that does not come to exist is deleted.

        Yields:
            The place to write it in, which `publish` makes a study.

        Raises:
            UserError: see `check_free`.
        """
        path, new = self.folder, not self.folder.exists()
        self.check_free()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the study's folder {path}: {error.strerror or error}") from error
        try:
            with lock(path):
                self._check_new()
                yield self
        except BaseException:
            if new and not self.exists():
                shutil.rmtree(path, ignore_errors=True)
            raise

    def publish(self, data: Mapping[str, Any]) -> None:
        """Write study.json: from now on there is a study.

        Raises:
            UserError: there is one.
        """
        self._check_new()
        write_json(self.folder / "study.json", data)

    def is_run(self) -> bool:
        """Whether a process runs the study, as far as one can see."""
        return is_locked(self.folder)

    @contextlib.contextmanager
    def hold(self) -> Iterator[Folder]:
        """Run the study inside. Trials of a sweep that was killed live on for some seconds: none does inside.

        Yields:
            The place as the process that runs it has it.

        Raises:
            UserError: another process runs it.
        """
        with lock(self.folder):
            await_workers(self.folder, f"trials of an earlier run of study {self.name!r}")
            yield self

    def for_trial(self, below: str, scratch: Path) -> Folder:
        """The place as the process of one trial has it.

        Args:
            below: path of the trial's files in the study.
            scratch: folder for a copy of them.
        """
        return self


class ObjectStore(Folder):
    """Objects below a URI, of which the folder is a copy (see mirror.py); a lease is in place of the lock.

    Args:
        uri: without a slash at its end.
        folder: this user's copy to look at, without one.
        checkpoints: whether those of trials are fetched too.
    """

    at_once = False

    def __init__(self, uri: str, folder: Path | None = None, checkpoints: bool = False) -> None:
        super().__init__(folder or copy_folder(uri, "view"))
        self.location = uri
        self._checkpoints = checkpoints

    @cached_property
    def mirror(self) -> Mirror:
        """The store is looked for when it is first asked."""
        return Mirror(self.location, self.folder, self._checkpoints)

    @property
    def run_folder(self) -> Path:
        """This user's copy, in which the study is run."""
        return copy_folder(self.location, "run")

    def exists(self) -> bool:
        """Whether there is a study.json; fetches nothing."""
        return bool(self.mirror.found("study.json"))

    is_taken = exists

    def studies(self) -> list[Folder]:
        """The studies below the URI."""
        names = self.mirror.found("", lambda name: name.count("/") == 1 and name.endswith("/study.json"))
        return [ObjectStore(f"{self.location}/{name.partition('/')[0]}") for name in names]

    def pull(self, *below: str) -> None:
        """Make the folder equal to the store."""
        self.mirror.pull(*below)

    def push(self, *below: str) -> None:
        """Make the store equal to the folder."""
        self.mirror.push(*below)

    def found(self, below: str, wanted: Wanted) -> list[str]:
        """The studies in the store."""
        return list(self.mirror.found(below, wanted))

    def remove(self, names: Iterable[str]) -> None:
        """Remove the study in the store and in the folder."""
        for name in names:
            for each in self.mirror.found(name, lambda _: True):
                self.mirror.delete(each)
            _delete(self.folder / name)

    @contextlib.contextmanager
    def with_files(self, names: Iterable[str]) -> Iterator[Path]:
        """Fetch them into a folder that is there for the while."""
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                file = Path(folder) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.mirror.read(name))
            yield Path(folder)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Folder]:
        """Begin with an empty copy: that of a study of the same name may be left, which was deleted in the store."""
        shutil.rmtree(self.run_folder, ignore_errors=True)
        yield ObjectStore(self.location, self.run_folder)

    def check_free(self) -> None:
        """Nothing but a study is in the way of one."""
        self._check_new()

    def publish(self, data: Mapping[str, Any]) -> None:
        """Make it an object that must be new: of two processes the store lets one."""
        write_json(self.folder / "study.json", data)
        try:
            self.mirror.write("study.json", (self.folder / "study.json").read_bytes(), new=True)
        except FileExistsError:
            self._check_new()
            raise

    def is_run(self) -> bool:
        """Whether the lease is held; on this machine the lock of the folder says more."""
        return lease.is_held(self.mirror, self.run_folder, is_locked)

    @contextlib.contextmanager
    def hold(self) -> Iterator[Folder]:
        """Hold the lease, under the lock of the folder; what is left of an earlier run can send nothing."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        with lock(self.run_folder):
            held = ObjectStore(self.location, self.run_folder)
            with lease.hold(held.mirror):
                held.pull()
                yield held

    def for_trial(self, below: str, scratch: Path) -> Folder:
        """A copy of its own, which sends while the study is run by whoever runs it now."""
        own = ObjectStore(self.location, scratch / "study", checkpoints=True)
        lease.bind(own.mirror, (lease.holder(own.mirror) or {}).get("token"))
        own.pull("study.json", below)
        return own


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def backend_of(location: str | Path | Folder) -> Folder:
    """The place that a path or URI names; a folder that is a copy of an object store's stands for the store.

    Raises:
        UserError: the URI has a password or options in it, names no place, or is that of local files.
    """
    if isinstance(location, Folder):
        return location
    if is_uri(location):
        return ObjectStore(check_storage(str(location)))
    folder = Path(location).expanduser().absolute()
    uri = copied_from(folder)
    return Folder(folder) if uri is None else ObjectStore(uri)


def below(storage: str | Path, name: str) -> Folder:
    """The place of a study by its name in a folder or below a URI."""
    return backend_of(f"{storage}/{name}" if is_uri(storage) else Path(storage) / name)


def meant(argument: str | Path, storage: str | Path) -> list[Folder]:
    """What a user may mean by a study's folder or URI, or by its name in `storage`."""
    return [backend_of(argument)] if is_uri(argument) else [backend_of(argument), below(storage, str(argument))]
