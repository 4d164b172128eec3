"""Trials that fail for the same reason: what fails them all is not worth trying again and again."""

from __future__ import annotations

import re

_PLACES = re.compile(r"(?:[\w.+-]+:/)?(?:/[^\s'\":;,()]+)+")
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)

STOPPED = re.compile(r"\d+ trials? failed for the same reason .*", re.DOTALL)
"""What an error says by which `Alike` stops a sweep; Ray hands its text on."""


def kind(reason: str) -> str:
    """A reason without what differs between trials: paths, addresses and numbers.

    Example:
        >>> kind("cannot read image /data/a/7.jpg: 12 bytes") == kind("cannot read image /data/b/31.jpg: 9 bytes")
        True
    """
    return _NUMBERS.sub("0", _PLACES.sub("PATH", reason)).lower()


class Alike:
    """Counts the failures of each kind since a trial last came to another end."""

    def __init__(self) -> None:
        self._epochs: dict[str, list[int]] = {}

    def clear(self) -> None:
        """A trial ended otherwise: begin anew."""
        self._epochs.clear()

    def note(self, reason: str, epochs: int, *, most: int | None, furthest: int) -> str | None:
        """A trial failed; one sentence if the sweep should stop.

        Args:
            reason: of its end.
            epochs: that it had done.
            most: failures of one kind that are too many; None never stops.
            furthest: epochs that one of the trials that still run has done: while one has come further than those
                that failed, their reason is not everybody's.
        """
        alike = self._epochs.setdefault(kind(reason), [])
        alike.append(epochs)
        if most is None or len(alike) < most or furthest > max(alike):
            return None
        number = len(alike)
        return f"{number} trial{'' if number == 1 else 's'} failed for the same reason (the last: {reason})"
