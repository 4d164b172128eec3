"""The files of a plug-in: where they are found, and the hash by which they are recognised. Torch-free."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from .errors import UserError

#: Bytes of all files of a plug-in: it is code, which is read whole and sent to every trial.
MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Source:
    """The files of a plug-in.

    Attributes:
        name: the name of the module, as `import` takes it.
        files: the content of each file by its path: `mine.py` for a single file, `mine/__init__.py` and so on for a
            package.
        earlier: the `sha256` of earlier versions, which took all files of a folder; empty if they took the same.
    """

    name: str
    files: Mapping[str, bytes] = field(repr=False)
    earlier: str = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the names and contents of all files, whatever folder they lie in."""
        return _sha256(self.files)

    @property
    def hashes(self) -> dict[str, str]:
        """The first digits of the SHA-256 of each file, by its path."""
        return {path: hashlib.sha256(content).hexdigest()[:12] for path, content in sorted(self.files.items())}


def _sha256(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        digest.update(f"{path} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_path(reference: str) -> bool:
    """Whether a user means a file or a folder. A bare name is an installed module if there is one, or else a folder."""
    if reference.endswith(".py") or "/" in reference:
        return True
    return Path(reference).is_dir() and _installed(reference) is None


def source_at(path: Path) -> Source:
    """The files of a plug-in that is a Python file, or the folder of a package.

    Raises:
        UserError: the path is neither, it cannot be read, or its name cannot be that of a module.
    """
    if path.is_dir():
        name = path.resolve().name
        files, earlier = _files_of(path.resolve())
        if f"{name}/__init__.py" not in files:
            raise UserError(f"plug-in {path}: the folder has no __init__.py: give a Python file, or a package's folder")
    else:
        try:
            name, files, earlier = path.stem, {path.name: path.read_bytes()}, ""
        except OSError as error:
            raise UserError(f"cannot read the plug-in {path}: {error.strerror or error}") from error
    if not name.isidentifier() or (path.is_file() and path.suffix != ".py"):
        raise UserError(
            f"plug-in {path}: its name cannot be that of a Python module: rename it, for example to my_plugin.py"
        )
    return Source(name, files, earlier)


#: Names of files and folders in a package that are none of its own: hidden ones, and copies that editors leave.
_NOT_ITS_OWN = re.compile(r"\..*|.*~|#.*#|.*\.(bak|swp)")


def _files_of(folder: Path) -> tuple[dict[str, bytes], str]:
    """All files of a package, except those that Python or an editor made and hidden ones; and `Source.earlier`."""
    paths = [p for p in sorted(folder.rglob("*")) if "__pycache__" not in p.relative_to(folder).parts and p.is_file()]
    own = [path for path in paths if not any(map(_NOT_ITS_OWN.fullmatch, path.relative_to(folder).parts))]
    if _bytes(own) > MOST_BYTES:
        raise UserError(
            f"plug-in {folder}: its files take more than {MOST_BYTES >> 20} MiB: keep data elsewhere, a plug-in is "
            "code that is sent to every trial"
        )
    earlier = ""
    with contextlib.suppress(OSError):  # of a file that is not needed
        if len(own) < len(paths) and _bytes(paths) <= MOST_BYTES:  # they took no more
            earlier = _sha256(_read(folder, paths))
    return _read(folder, own), earlier


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _read(folder: Path, paths: Iterable[Path]) -> dict[str, bytes]:
    return {f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}


def _installed(reference: str) -> ModuleSpec | None:
    """Where Python finds the top package of an installed module; None if there is no such."""
    spec = importlib.util.find_spec(reference.partition(".")[0]) if reference.replace(".", "a").isidentifier() else None
    return None if spec is None or spec.origin is None or not spec.has_location else spec


def installed(reference: str) -> Source:
    """The files of an installed module, or of the whole package that it is in.

    Raises:
        UserError: there is no such module.
    """
    spec = _installed(reference)
    if spec is None or spec.origin is None:
        there = f"; there is a file of this name: give {reference}.py" if Path(f"{reference}.py").is_file() else ""
        raise UserError(
            f"no plug-in {reference!r}: it is neither a Python file, a package's folder nor an installed module"
            f"{there or '; a file is named with its ending, as in my_plugin.py'}"
        )
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return Source(reference, {origin.name: origin.read_bytes()})
    return Source(reference, *_files_of(origin.parent))
