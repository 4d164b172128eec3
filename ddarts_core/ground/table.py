"""A table of named entries that can be added to, also from outside this package. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from .errors import UserError, unknown_name, with_article

Entry = TypeVar("Entry")


class Table(Mapping[str, Entry]):
    """Entries by name. A name can be given only once, and the error for an unknown name lists the choices.

    Args:
        kind: what an entry is, for messages.
        entries: the entries that the table begins with.

    Example:
        >>> table = Table[int]("number")
        >>> table.add("one", 1)
        >>> table["one"], list(table)
        (1, ['one'])
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry] = MappingProxyType({})) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = dict(entries)

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry.

        Raises:
            UserError: the name is taken.
        """
        if name in self._entries:
            raise UserError(f"there is {with_article(self.kind)} {name!r} already: choose another name")
        self._entries[name] = entry

    def remove(self, name: str, /) -> None:
        """Take an entry out again, for instance one of a plug-in that could not be loaded as a whole."""
        del self._entries[name]

    def known(self, name: str) -> Entry:
        """The entry of a name that a user gave.

        Raises:
            UserError: the name is unknown; the choices are listed.
        """
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
