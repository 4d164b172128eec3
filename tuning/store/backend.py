"""Where studies are: in folders, or in an object store. Code that has a study's `Folder` need not know which.

In both cases a process reads and writes a study as files in a folder. If studies are in folders, this is the study's
own folder, and all processes see at once what one of them writes. If they are in an object store, each process has a
copy, fetches what other processes wrote, and sends what it wrote itself.
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

from ddarts_core.datasets import facts
from ddarts_core.ground.errors import UserError
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import write_json

from . import lease
from .locks import await_workers, is_locked, lock
from .mirror import Mirror, check_storage, copied_from, copy_folder, is_uri

Wanted = Callable[[str], bool]
"""A function that says whether a file is meant, by the file's path in the study."""

BEGUN = {".lock", ".workers", "trials", "mlartifacts", facts.FILE} | {
    f"mlflow.db{end}" for end in ("", "-journal", "-wal", "-shm")
}
"""The files and folders that a sweep leaves if it is killed before it has written study.json."""

UNFINISHED = ".mlflow-"
"""How the name of a folder begins in which a process copies a database; it stays if the process is killed."""


class Folder:
    """The folder of one study, or the folder above several studies, on this machine or shared by several machines.

    Args:
        folder: the absolute path of the folder.

    Attributes:
        location: the folder or URI by which a user names the study.
        folder: the folder in which this process has the study's files.
        at_once: whether all processes see at once what one writes, also into the middle of a file, as a database needs
            it.
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
        """The folder or URI that the study lies below."""
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
        """Whether there is a study here, or anything else that is in the way of a new study."""
        return self.folder.exists()

    def is_same(self, other: Folder) -> bool:
        """Whether another `Folder` is the same place, even by another path, such as a link."""
        if self.location == other.location:
            return True
        return self.folder.exists() and other.folder.exists() and os.path.samefile(self.folder, other.folder)

    def studies(self) -> list[Folder]:
        """The studies right below this folder, in no order.

        Raises:
            UserError: the store cannot be used.
        """
        return [Folder(file.parent) for file in self.folder.glob("*/study.json")]

    # --- its files --------------------------------------------------------------------------------------------------

    def pull(self, *below: str) -> None:
        """Fetch what other processes wrote, all of it or what is below some paths. In a folder it is there already."""

    def push(self, *below: str) -> None:
        """Send what this process wrote, all of it or what is below some paths. In a folder others have it already."""

    def found(self, below: str, wanted: Wanted) -> list[str]:
        """The paths of the wanted files below a path in the study, also of files that `pull` does not fetch."""
        files = (file for file in (self.folder / below).rglob("*") if file.is_file())
        return [name for name in (file.relative_to(self.folder).as_posix() for file in files) if wanted(name)]

    def remove(self, names: Iterable[str]) -> None:
        """Delete files and whole folders for all processes, by their paths in the study, and folders that get empty."""
        for name in names:
            _delete(self.folder / name)
            with contextlib.suppress(OSError):  # it has other files
                for parent in Path(name).parents[:-1]:
                    (self.folder / parent).rmdir()

    @contextlib.contextmanager
    def with_files(self, names: Iterable[str]) -> Iterator[Path]:
        """Yield a folder in which some files of the study, named by their paths in it, can be read."""
        yield self.folder

    # --- who works with it ------------------------------------------------------------------------------------------

    def check_free(self) -> None:
        """Check that a study can be made here, and would be alone in its folder.

        Raises:
            UserError: a study or something else is here already, or another process makes a study here now.
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
        """Make a study in the block of this context; if the block fails before there is a study, its files are deleted.

        Yields:
            The place to write the study in, which `publish` makes a study.

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
            UserError: there is a study already.
        """
        self._check_new()
        write_json(self.folder / "study.json", data)

    def is_run(self) -> bool:
        """Whether a process runs the study, as far as this process can see."""
        return is_locked(self.folder)

    @contextlib.contextmanager
    def hold(self) -> Iterator[Folder]:
        """Run the study in the block of this context, in which no other process runs it.

        The trials of a sweep that was killed live on for some seconds; the block begins when all of them have ended.

        Yields:
            The place of the study as the process that runs the study uses it.

        Raises:
            UserError: another process runs the study.
        """
        with lock(self.folder):
            await_workers(self.folder, f"trials of an earlier run of study {self.name!r}")
            yield self

    def for_trial(self, below: str, scratch: Path) -> Folder:
        """The place of the study as the process of one trial uses it.

        Args:
            below: the path of the trial's files in the study.
            scratch: a folder for a copy of these files, if one is needed.
        """
        return self


class ObjectStore(Folder):
    """Objects below a URI, of which the folder is a copy (see mirror.py). A lease takes the place of the folder's lock.

    Args:
        uri: the URI, without a slash at its end.
        folder: the folder of the copy; None stands for this user's copy to look at.
        checkpoints: whether the checkpoints of trials are fetched too.
    """

    at_once = False

    def __init__(self, uri: str, folder: Path | None = None, checkpoints: bool = False) -> None:
        super().__init__(folder or copy_folder(uri, "view"))
        self.location = uri
        self._checkpoints = checkpoints

    @cached_property
    def mirror(self) -> Mirror:
        """The copy and its store, which is opened when it is first needed."""
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
        """The paths of the wanted objects below a path in the study."""
        return list(self.mirror.found(below, wanted))

    def remove(self, names: Iterable[str]) -> None:
        """Delete files and whole folders of the study, in the store and in the folder."""
        for name in names:
            for each in self.mirror.found(name, lambda _: True):
                self.mirror.delete(each)
            _delete(self.folder / name)

    @contextlib.contextmanager
    def with_files(self, names: Iterable[str]) -> Iterator[Path]:
        """Fetch the files into a temporary folder, which is deleted in the end."""
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                file = Path(folder) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.mirror.read(name))
            yield Path(folder)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Folder]:
        """Begin with an empty copy, since a copy may be left of a study of this name that was deleted in the store."""
        shutil.rmtree(self.run_folder, ignore_errors=True)
        yield ObjectStore(self.location, self.run_folder)

    def check_free(self) -> None:
        """Check that there is no study; nothing else can be in the way of a study in a store."""
        self._check_new()

    def publish(self, data: Mapping[str, Any]) -> None:
        """Write study.json as an object that must be new: of two processes, the store lets only one do so.

        The facts of the images are sent before.
        """
        self._check_new()
        self.push(facts.FILE)
        write_json(self.folder / "study.json", data)
        try:
            self.mirror.write("study.json", (self.folder / "study.json").read_bytes(), new=True)
        except FileExistsError:
            self._check_new()
            raise

    def is_run(self) -> bool:
        """Whether the lease is held. If its holder works on this machine, the lock of the folder decides."""
        return lease.is_held(self.mirror, self.run_folder, is_locked)

    @contextlib.contextmanager
    def hold(self) -> Iterator[Folder]:
        """Hold the lease, under the lock of the folder; processes left of an earlier run can send nothing then."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        with lock(self.run_folder):
            held = ObjectStore(self.location, self.run_folder)
            with lease.hold(held.mirror):
                held.pull()
                yield held

    def for_trial(self, below: str, scratch: Path) -> Folder:
        """A copy of the trial's own, which can send as long as the study is run by the process that runs it now."""
        own = ObjectStore(self.location, scratch / "study", checkpoints=True)
        lease.bind(own.mirror, (lease.holder(own.mirror) or {}).get("token"))
        own.pull("study.json", facts.FILE, below)
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
