"""Commands as a shell takes them, whatever is in their paths. Torch-free."""

from __future__ import annotations

import shlex


def ddarts(*words: object) -> str:
    """A command of the program.

    Example:
        >>> ddarts("resume", "runs/my study")
        "ddarts resume 'runs/my study'"
    """
    return shlex.join(["ddarts", *map(str, words)])
