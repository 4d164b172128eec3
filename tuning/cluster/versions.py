"""Which ddarts runs a trial: on every machine it must be the ddarts of the sweep.

A version's number does not tell two checkouts apart. So this module compares the files that a trial runs.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ddarts_core
from ddarts_core.ground.errors import UserError

SUFFIXES = (".py", ".json", ".txt", ".yaml")
"""Suffixes of the files of ddarts that a trial reads."""


class OtherVersion(UserError):
    """A machine of the cluster has another ddarts than the sweep."""


@cache
def own_version() -> str:
    """The version of this process's ddarts, and 12 hex digits of the SHA-256 of all files that a trial runs.

    Example:
        >>> own_version().split("+")[0] == ddarts_core.__version__
        True
    """
    return f"{ddarts_core.__version__}+{digest(Path(ddarts_core.__file__).parent, Path(__file__).parents[1])[:12]}"


def digest(*packages: Path) -> str:
    """SHA-256 of the names and contents of the files in some packages, whatever their folders are called."""
    found = hashlib.sha256()
    for package in packages:
        files = (file for file in package.rglob("*") if file.suffix in SUFFIXES)
        for name, file in sorted((file.relative_to(package).as_posix(), file) for file in files):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found.update(f"{name} {content}\n".encode())
    return found.hexdigest()


def check_version(study: Mapping[str, Any]) -> str:
    """Check that this process of a trial has the same ddarts as the sweep; return its version.

    Args:
        study: the contents of study.json.

    Raises:
        OtherVersion: this process has another ddarts.
    """
    wanted, own = study["code"], own_version()
    if own != wanted:
        raise OtherVersion(
            f"a trial's process on {platform.node()} has ddarts {own}, and the sweep has {wanted}: install the same "
            "version on all machines, and change no file of it while a sweep runs"
        )
    return own


SAID = r"a trial's process on \S+ has ddarts .*"
"""A pattern of the text of such an error: an error that was raised in another process arrives as text only."""
