"""What a law is: a function of an entry's name that raises `Broken`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

#: Each law of a kind of entry, in a few words, and what checks it for an entry's name.
Laws: TypeAlias = tuple[tuple[str, Callable[[str], None]], ...]


class Broken(Exception):
    """An entry does not keep a law. The message says in one sentence what was found instead."""


def hold(holds: object, sentence: str) -> None:
    """Check one condition of a law.

    Raises:
        Broken: it does not hold.
    """
    if not holds:
        raise Broken(sentence)
