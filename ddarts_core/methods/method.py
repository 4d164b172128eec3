"""A method: a preset of settings, and the parts that it brings. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .parts import Part


@dataclass(frozen=True)
class Method:
    """What makes the loop this method.

    Attributes:
        summary: in one line.
        source: publication, with the section or equation.
        settings: that differ from the defaults; they choose parts by name, and a file may override any of them.
        parts: that the method brings; every other method may choose them too.
        formula: in plain text, what is particular to the method.
        uncertain: what public facts leave open, and what is done here.
    """

    summary: str
    source: str
    settings: Mapping[str, Any]
    parts: tuple[type[Part], ...] = ()
    formula: str = ""
    uncertain: tuple[str, ...] = ()
