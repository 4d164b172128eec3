"""Names of a module that are imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def import_from(where: Mapping[str, str], module: str, name: str) -> Any:
    """What `module.name` stands for.

    Args:
        where: name -> the module that has it, with `:` and its name there if it is another.
        module: whose attribute is asked for.
        name: the attribute.

    Raises:
        AttributeError: it is not among the names of `where`; they are listed.
    """
    if name not in where:
        raise AttributeError(f"module {module!r} has no attribute {name!r}: it has {', '.join(sorted(where))}")
    source, _, called = where[name].partition(":")
    return getattr(importlib.import_module(source), called or name)
