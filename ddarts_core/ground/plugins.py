"""Plug-ins: the user's own Python modules that add entries to the tables. Torch-free.

A plug-in is a module with a function `register`, which is called once with a `registry.Registry`. A plug-in is loaded
only if the user of this process says so, on the command line or in Python: a configuration, a study's folder or a
genotype names entries and never code.

A loaded plug-in is recognised by its name and by the SHA-256 of its files. A study records both, so that it goes on
with the same code or not at all. The files themselves can be sent to another process, which loads them from a folder of
its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .files import write_atomic
from .own_folder import own_folder
from .plugin_files import Source, installed, is_path, source_at

if TYPE_CHECKING:
    from ..extension.registry import Registry

#: In the folder of a search, a training or an export: the plug-ins that it was made with, if there were any.
FILE = "plugins.json"

#: Names of the folders that plug-ins are run from begin so.
FOLDERS = "ddarts-plugin-"

#: Of the entry points that name plug-ins: what is installed is loaded by every command.
GROUP = "ddarts.plugins"


@dataclass(frozen=True)
class Plugin:
    """A plug-in that this process has loaded.

    Attributes:
        source: the plug-in's files as they were when it was loaded.
        registry: what the plug-in registered.
        reference: the file, folder or name that the user gave; None if the plug-in came from another process.
        folder: the folder from which the files are run; None if this is where they were installed.
    """

    source: Source
    registry: Registry = field(repr=False)
    reference: str | None
    folder: Path | None


_loaded: dict[str, Plugin] = {}


def loaded() -> tuple[Plugin, ...]:
    """The plug-ins of this process, in the order in which they were loaded."""
    return tuple(_loaded.values())


def load(reference: str) -> Plugin:
    """Import a plug-in and let it register; a plug-in that is loaded already stays as it is.

    Args:
        reference: a Python file, the folder of a package, or the name of an installed module.

    Raises:
        UserError: there is no such module, it cannot be imported, it has no function `register`, or what it registers
            is refused. Then nothing of it stays in the tables.
    """
    if is_path(reference):
        source = source_at(Path(reference).expanduser())
        if (known := _known(source)) is not None:
            return known
        _check_alone(source, Path(reference).expanduser())
        try:
            return _begin(source, reference, own_folder(FOLDERS))
        except UserError as error:
            raise UserError(f"{error}{_beside(Path(reference).expanduser(), error.__cause__)}") from error
    source = installed(reference)
    return _known(source) or _begin(source, reference, None)


def load_installed() -> None:
    """Load the plug-ins that installed packages name as entry points of the group `ddarts.plugins`, by their modules.

    Raises:
        UserError: see `load`; the message says which package to mend or uninstall.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            source = installed(point.value)
            if _known(source) is None:
                _begin(source, None, None)
        except UserError as error:
            package = point.dist.name if point.dist is not None else point.value
            raise UserError(f"{error}; the installed package {package!r} brings it: mend or uninstall that") from error


def load_sent(sources: Iterable[Source]) -> None:
    """Load plug-ins whose files came from another process of the same user.

    Args:
        sources: the files of the plug-ins, in the order in which they are to be loaded.

    Raises:
        UserError: see `load`; or another plug-in of the same name is loaded.
    """
    for source in sources:
        if _known(source) is None:
            _begin(source, None, own_folder(FOLDERS))


def unload(plugin: Plugin) -> None:
    """Take everything out of the tables that a plug-in registered, and forget its module."""
    plugin.registry.remove_all()
    del _loaded[plugin.source.name]
    _forget(plugin.source, plugin.folder)


# --- what a study was made with -------------------------------------------------------------------------------------


def records() -> list[dict[str, Any]]:
    """Name, content hash and hashes of the files of each plug-in of this process, as a study stores them."""
    sources = [plugin.source for plugin in loaded()]
    return [{"name": source.name, "sha256": source.sha256, "files": source.hashes} for source in sources]


def require(recorded: Iterable[Mapping[str, Any]], what: str) -> None:
    """Refuse to go on with something that was made with plug-ins unless the same plug-ins are loaded.

    Args:
        recorded: the plug-ins that it was made with.
        what: what was made with them, for messages.

    Raises:
        UserError: one of the plug-ins is not loaded, or has other contents.
    """
    for record in recorded:
        name, wanted = record["name"], record["sha256"]
        if name not in _loaded:
            raise UserError(
                f"{what} was made with the plug-in {name!r} (sha256 {wanted[:12]}), which is not loaded: give it "
                "again, with --plugin FILE, FOLDER or MODULE (in Python: ddarts.plugins.load)"
            )
        source = _loaded[name].source
        if wanted not in (source.sha256, source.earlier):
            raise UserError(
                f"{what} was made with another content of the plug-in {name!r}: its sha256 was {wanted[:12]}, now it "
                f"is {source.sha256[:12]}{_differing(record.get('files', {}), source)}; give the files of then, or "
                "begin anew under another name"
            )


def _differing(before: Mapping[str, str], source: Source) -> str:
    """The files that differ from those of these hashes, in words; empty where no hashes were recorded."""
    now = source.hashes
    names = sorted(path for path in {*before, *now} if before.get(path) != now.get(path)) if before else []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" (changed, new or gone: {', '.join(names[:3])}{more})" if names else ""


@contextlib.contextmanager
def needed(recorded: Iterable[Mapping[str, Any]], what: str) -> Iterator[None]:
    """Within the block, a mistake is blamed on a plug-in that is not loaded, if there is one.

    Raises:
        UserError: the mistake, or that of `require`.
    """
    try:
        yield
    except UserError:
        require((record for record in recorded if record["name"] not in _loaded), what)
        raise


@contextlib.contextmanager
def needed_by(path: Path) -> Iterator[None]:
    """`needed`, for a file in the folder of a search, a training, an export or a study's trial.

    Raises:
        UserError: the mistake, or that of `require`.
    """
    try:
        yield
    except UserError:
        made_with = recorded(path.parent) or _recorded(path.parent.parent.parent / "study.json")
        require((record for record in made_with if record["name"] not in _loaded), str(path))
        raise


def write_records(folder: Path, found: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Write which plug-ins something was made with into its folder; no file if there were none.

    Args:
        folder: the folder, which exists already.
        found: the plug-ins; None stands for those of this process.
    """
    found = records() if found is None else found
    if found:
        write_atomic(folder / FILE, json.dumps({"plugins": list(found)}, indent=1) + "\n")
    else:
        (folder / FILE).unlink(missing_ok=True)


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The plug-ins that something in a folder was made with, as `write_records` left them.

    Raises:
        UserError: the file is damaged.
    """
    return _recorded(folder / FILE)


def _recorded(file: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("plugins", ())
        names = [{"name": str(one["name"]), "sha256": str(one["sha256"])} for one in found]
        return [{**name, "files": dict(one.get("files", {}))} for name, one in zip(names, found, strict=True)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged: it does not name the plug-ins") from error


# --- importing and registering --------------------------------------------------------------------------------------


def _known(source: Source) -> Plugin | None:
    """The plug-in of these files, if it is loaded.

    Raises:
        UserError: a plug-in of the same name is loaded that has other files.
    """
    plugin = _loaded.get(source.name)
    if plugin is not None and plugin.source.sha256 != source.sha256:
        differing = _differing(plugin.source.hashes, source)
        raise UserError(
            f"a plug-in {source.name!r} with another content{differing} is loaded already: rename one of them"
        )
    return plugin


def _check_alone(source: Source, path: Path) -> None:
    """Check that a file's name does not hide a module that something else imports.

    Raises:
        UserError: the name would hide such a module.
    """
    spec = importlib.util.find_spec(source.name)
    if spec is None or (spec.origin is not None and path.resolve() in (Path(spec.origin), Path(spec.origin).parent)):
        return
    kind = "folder" if path.is_dir() else "file"
    raise UserError(f"plug-in {path}: Python has a module {source.name!r} already: rename the {kind}")


def _begin(source: Source, reference: str | None, folder: Path | None) -> Plugin:
    """Import a plug-in and let it register; if a folder is given, the files are first written there."""
    from ..extension.registry import Registry

    if folder is not None:
        _write(source, folder)
    registry = Registry(source.name)
    try:
        _register(source.name, registry)
    except BaseException:
        registry.remove_all()
        _forget(source, folder)
        raise
    plugin = _loaded[source.name] = Plugin(source, registry, reference, folder)
    return plugin


def _write(source: Source, folder: Path) -> None:
    """Write the files into a folder that Python searches first for modules, and that holds only this plug-in."""
    for name, content in source.files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"plug-in {source.name!r}: {name!r} is no path of a file within it")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sys.path.insert(0, str(folder))  # processes that read images are given it too
    importlib.invalidate_caches()


def _register(name: str, registry: Registry) -> None:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of a command's answer
            module = importlib.import_module(name)
            register = _function_of(module)
            register(registry)
    except UserError as error:
        raise UserError(f"plug-in {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(_failed(name, _place(error, name), error)) from error


def blamed(error: BaseException) -> str | None:
    """A sentence on an error that went through the code of a loaded plug-in; None if it did not."""
    for plugin in loaded():
        if place := _place(error, plugin.source.name):
            return (
                f"{_failed(plugin.source.name, place, error)}; mend it there and begin anew: what was begun with the "
                "plug-in goes on only with the files of then"
            )
    return None


def _failed(name: str, place: str, error: BaseException) -> str:
    return f"plug-in {name!r} failed{place}: {type(error).__name__}: {error}"


def _beside(path: Path, error: BaseException | None) -> str:
    """What to do if a plug-in of one file failed because it imports a file beside it; empty in other cases."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None or not path.is_file():
        return ""
    sibling = error.name.partition(".")[0]
    if not any((path.parent / name).exists() for name in (f"{sibling}.py", sibling)):
        return ""
    return (
        f"; {sibling} lies beside it, and a plug-in of one file is run without what lies beside it: put both into a "
        f"folder with an __init__.py, import it there with `from . import {sibling}`, and give the folder"
    )


def _place(error: BaseException, name: str) -> str:
    """The last line of the plug-in that an error went through."""
    top = name.partition(".")[0]
    lines = [
        (Path(frame.f_code.co_filename).name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == top
    ]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((Path(error.filename).name, error.lineno or 1))
    return f" in {lines[-1][0]}, line {lines[-1][1]}" if lines else ""


def _function_of(module: ModuleType) -> Callable[[Registry], object]:
    register = getattr(module, "register", None)
    if not callable(register):
        raise UserError("it has no function `register`: give it one that takes the tables, `def register(tables):`")
    return register  # type: ignore[no-any-return]  # of a module


def _forget(source: Source, folder: Path | None) -> None:
    """Forget the modules that were imported from a folder of ddarts' own."""
    if folder is None:
        return
    sys.path.remove(str(folder))
    top = source.name.partition(".")[0]
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
