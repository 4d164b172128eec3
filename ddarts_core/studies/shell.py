"""Writes commands so that a shell reads them right, whatever characters are in their paths. Torch-free."""

from __future__ import annotations

import shlex

from ..ground.plugins import loaded


def ddarts(*words: object) -> str:
    """Return a command of `ddarts` as text, with the plug-ins that this program was given.

    Example:
        >>> ddarts("resume", "runs/my study")
        "ddarts resume 'runs/my study'"
    """
    given = [str(word) for word in words]
    for plugin in loaded():
        if plugin.reference is not None and not {plugin.reference, f"--plugin={plugin.reference}"} & {*given}:
            given += ["--plugin", plugin.reference]
    return shlex.join(["ddarts", *given])
