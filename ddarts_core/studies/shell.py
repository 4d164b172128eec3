"""Commands as a shell takes them, whatever is in their paths. Torch-free."""

from __future__ import annotations

import shlex

from ..ground.plugins import loaded


def ddarts(*words: object) -> str:
    """A command of the program, with the plug-ins that this one was given.

    Example:
        >>> ddarts("resume", "runs/my study")
        "ddarts resume 'runs/my study'"
    """
    given = [str(word) for word in words]
    for plugin in loaded():
        if plugin.reference is not None and not {plugin.reference, f"--plugin={plugin.reference}"} & {*given}:
            given += ["--plugin", plugin.reference]
    return shlex.join(["ddarts", *given])
