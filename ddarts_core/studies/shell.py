"""Writes commands so that a shell reads them right, whatever characters are in their paths. Torch-free."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from ..ground.plugins import loaded


def ddarts(*words: object, plugins: Iterable[str] | None = None) -> str:
    """Return a command of `ddarts` as text, with these plug-ins. None stands for those that this program was given.

    Example:
        >>> ddarts("resume", "runs/my study")
        "ddarts resume 'runs/my study'"
    """
    given = [str(word) for word in words]
    if plugins is None:
        plugins = [plugin.reference for plugin in loaded() if plugin.reference is not None]
    for plugin in plugins:
        if not {plugin, f"--plugin={plugin}"} & {*given}:
            given += ["--plugin", plugin]
    return shlex.join(["ddarts", *given])
