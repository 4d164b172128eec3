"""The exceptions for a user's mistake, a training that diverges and a reader that dies, and the one warning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Kind = TypeVar("Kind", bound=BaseException)


class UserError(ValueError):
    """A mistake that the user can mend: one sentence that says what, where, and which values are allowed.

    The command line prints it without a traceback and exits with status 2.
    """


class Advice(UserWarning):
    """A warning to the user: one sentence, which the command line prints without the code that it comes from."""


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> UserError:
    """The error for a name that is in no table; lists the names that are."""
    return UserError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(choices))}")


def with_article(noun: str) -> str:
    """A noun after `a` or `an`.

    Example:
        >>> with_article("operation")
        'an operation'
    """
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


class Diverged(RuntimeError):
    """A loss or gradient is not finite any more; the message says where, and what to try."""


class ReaderDied(RuntimeError):
    """A process that reads images was killed from outside; the same work may succeed another time."""


def cause(error: BaseException | None, kind: type[Kind]) -> Kind | None:
    """The error of a given kind among an error and its causes; None if there is none."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
