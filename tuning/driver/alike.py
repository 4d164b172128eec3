"""Trials that fail for the same reason: if one reason fails all trials, it is of no use to try again and again."""

from __future__ import annotations

import re

_PLACES = re.compile(r"(?:[\w.+-]+:/)?(?:/[^\s'\":;,()]+)+")
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)

STOPPED = re.compile(r"\d+ trials? failed for the same reason .*", re.DOTALL)
"""The text of the error by which `Alike` stops a sweep; Ray hands on only the text of an error."""


def kind(reason: str) -> str:
    """A reason without what differs from trial to trial: paths, addresses and numbers.

    Example:
        >>> kind("cannot read image /data/a/7.jpg: 12 bytes") == kind("cannot read image /data/b/31.jpg: 9 bytes")
        True
    """
    return _NUMBERS.sub("0", _PLACES.sub("PATH", reason)).lower()


class Alike:
    """Counts the failures of each kind since the last trial that ended without a failure."""

    def __init__(self) -> None:
        self._epochs: dict[str, list[int]] = {}

    def clear(self) -> None:
        """A trial ended without a failure: begin to count anew."""
        self._epochs.clear()

    def note(self, reason: str, epochs: int, *, most: int | None, furthest: int) -> str | None:
        """Count a trial that failed; return one sentence if the sweep should stop, else None.

        Args:
            reason: the reason of the failure.
            epochs: how many epochs the trial had done.
            most: how many failures of one kind stop the sweep; None never stops it.
            furthest: the most epochs that a trial which still runs has done. While one trial has come further than
                all that failed, the reason of their failure is not that of every trial.
        """
        alike = self._epochs.setdefault(kind(reason), [])
        alike.append(epochs)
        if most is None or len(alike) < most or furthest > max(alike):
            return None
        number = len(alike)
        return f"{number} trial{'' if number == 1 else 's'} failed for the same reason (the last: {reason})"
