"""Records where a result comes from: the commit of the source and the versions of the packages. Torch-free."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..ground.plugins import loaded

#: Packages whose versions decide about numbers.
PACKAGES = ("ddarts", "torch", "torchvision", "numpy", "scikit-learn", "ray", "optuna", "mlflow", "pyarrow")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the installed packages, and the hashes of the plug-ins that are loaded.

    Packages that are not installed are left out. No package is imported.
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {f"plug-in {plugin.source.name}": f"sha256 {plugin.source.sha256}" for plugin in loaded()}


def git_commit() -> str | None:
    """Return the commit of this source tree; None outside of a clone. `-dirty` is added for uncommitted changes."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    dirty = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if dirty else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
