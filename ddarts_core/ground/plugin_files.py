"""The files of a plug-in: where they are found, and the hash by which they are recognised. Torch-free."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """

    name: str
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of the names and contents of all files, whatever folder they lie in."""
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            digest.update(f"{path} {hashlib.sha256(content).hexdigest()}\n".encode())
        return digest.hexdigest()


def is_path(reference: str) -> bool:
    """Whether a user means a file or a folder, and not an installed module."""
    return reference.endswith((".py", "/")) or "/" in reference


def source_at(path: Path) -> Source:
    """The files of a plug-in that is a Python file, or the folder of a package.

    Raises:
        UserError: the path is neither, it cannot be read, or its name cannot be that of a module.
    """
    if path.is_dir():
        name, files = path.resolve().name, _files_of(path.resolve())
        if f"{name}/__init__.py" not in files:
            raise UserError(f"plug-in {path}: the folder has no __init__.py: give a Python file, or a package's folder")
    else:
        try:
            name, files = path.stem, {path.name: path.read_bytes()}
        except OSError as error:
            raise UserError(f"cannot read the plug-in {path}: {error.strerror or error}") from error
    if not name.isidentifier() or (path.is_file() and path.suffix != ".py"):
        raise UserError(
            f"plug-in {path}: its name cannot be that of a Python module: rename it, for example to my_plugin.py"
        )
    return Source(name, files)


def _files_of(folder: Path) -> dict[str, bytes]:
    """All files of a package, except those that Python made from others."""
    files: dict[str, bytes] = {}
    total = 0
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts or not path.is_file():
            continue
        total += path.stat().st_size
        if total > MOST_BYTES:
            raise UserError(
                f"plug-in {folder}: its files take more than {MOST_BYTES >> 20} MiB: keep data elsewhere, a plug-in is "
                "code that is sent to every trial"
            )
        files[f"{folder.name}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return files


def installed(reference: str) -> Source:
    """The files of an installed module, or of the whole package that it is in.

    Raises:
        UserError: there is no such module.
    """
    top = reference.partition(".")[0]
    spec = importlib.util.find_spec(top) if reference.replace(".", "a").isidentifier() else None
    if spec is None or spec.origin is None or not spec.has_location:
        there = f"; there is a file of this name: give {reference}.py" if Path(f"{reference}.py").is_file() else ""
        raise UserError(
            f"no plug-in {reference!r}: it is neither a Python file nor an installed module"
            f"{there or '; a file is named with its ending, as in my_plugin.py'}"
        )
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return Source(reference, {origin.name: origin.read_bytes()})
    return Source(reference, _files_of(origin.parent))
