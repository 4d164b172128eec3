"""A method: a preset of settings, and the parts that it brings. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .parts import Part


@dataclass(frozen=True)
class Method:
    """A method: what its settings and parts make of the one loop of a search.

    Attributes:
        summary: what the method does, in one line.
        source: the publication, with the section or equation.
        settings: the settings that differ from the defaults. They choose parts by name, and a file may override any.
        parts: the parts that the method brings; every other method may choose them too.
        formula: what is particular to the method, as a formula in plain text.
        uncertain: what the public sources leave open, and what is done here.
    """

    summary: str
    source: str
    settings: Mapping[str, Any]
    parts: tuple[type[Part], ...] = ()
    formula: str = ""
    uncertain: tuple[str, ...] = ()
