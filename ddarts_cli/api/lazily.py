"""Names of a module that are imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def import_from(where: Mapping[str, str], module: str, name: str) -> Any:
    """Import what `module.name` stands for.

    Args:
        where: by name, the module to import it from. If it has another name there, `:` and that name follow.
        module: the name of the module whose attribute is asked for.
        name: the name of the attribute.

    Raises:
        AttributeError: `name` is not among the names of `where`; the message lists these.
    """
    if name not in where:
        raise AttributeError(f"module {module!r} has no attribute {name!r}: it has {', '.join(sorted(where))}")
    source, _, called = where[name].partition(":")
    return getattr(importlib.import_module(source), called or name)
