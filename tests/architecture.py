"""Which room of a package imports which, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def rooms_above(package: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The rooms that each room of a package imports when it is loaded, and those that it knows otherwise.

    Otherwise is: inside of a function, which imports when it is called, or for a type checker only. A room is a folder
    of the package; what lies in a folder of a room belongs to the room.
    """
    loaded: dict[str, set[str]] = {}
    later: dict[str, set[str]] = {}
    for path in package.glob("*/**/*.py"):
        inside = path.relative_to(package).parent.parts
        loaded.setdefault(inside[0], set())
        for node, deferred in _imports(ast.parse(path.read_text(encoding="utf-8")), False):
            if node.level == len(inside) + 1:
                found = {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
                (later if deferred else loaded).setdefault(inside[0], set()).update(found)
    return loaded, later


def _imports(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.ImportFrom, bool]]:
    """Each `from ... import` below a node, and whether it is for later."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield child, deferred
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
        )
        yield from _imports(child, deferred or later)
