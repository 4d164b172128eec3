"""Settings as YAML has them, mappings within mappings: read, merged, and addressed by dotted paths. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError

#: Mappings whose keys are dotted paths themselves: distributions, and the conditions of one.
DOTTED = ("space", "when")


class _Loader(yaml.SafeLoader):
    """YAML in which a key may be given only once, and in which a text that looks like a date stays a text."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                where = " and ".join(f"line {number}" for number in sorted({lines[name], line}))
                raise UserError(f"the key {name!r} is given twice ({where}): keep one of the two")
            lines[name] = line
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parse(text: str, where: str) -> Any:
    """The value that a text stands for.

    Raises:
        UserError: the text is not YAML, or gives a key twice.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {_mistake(error)}") from error
    except (ValueError, LookupError, AttributeError) as error:  # PyYAML's way to refuse 0x_ and !!int many
        raise UserError(f"{where}: a value is not the number that it looks like: put text into quotes") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: no setting has more than a few levels") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing or empty, is not YAML, gives a key twice, or does not hold a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    data = _parse(text, str(path))
    if data is None or data == {}:
        raise UserError(f"{path} is empty: it must hold settings (key: value), at least a name")
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path} must hold a mapping of settings (key: value)")
    return data


def _mistake(error: yaml.YAMLError) -> str:
    """What is wrong and where.

    The line itself, which YAML's own message quotes in part, is left out: it may hold a password.
    """
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"


def parse_override(text: str) -> tuple[str, Any]:
    """Split `dotted.path=value`; the value is read as YAML.

    Raises:
        UserError: there is no '=' or no path, or the value is not YAML.
    """
    path, mark, value = text.partition("=")
    if not mark or not path.strip():
        raise UserError(f"--set {text!r}: expected dotted.path=value, for example --set search.epochs=5")
    return path.strip(), _parse(value, f"--set {shorten(text)!r}")


def shorten(text: str) -> str:
    """A text for a message: its beginning if it is long."""
    return text if len(text) <= 100 else f"{text[:100]}..."


def override(path: str, value: object) -> str:
    """The override that `parse_override` reads back: the value is taken as it is, whatever it looks like."""
    return f"{path}={json.dumps(value)}"


def set_path(data: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested dictionaries with the value at a dotted path replaced.

    Example:
        >>> set_path({"space": {"search.lr": {"low": 1}}}, "space.search.lr.low", 2)
        {'space': {'search.lr': {'low': 2}}}
    """
    out = inner = dict(data)
    group, rest = "", path
    while True:
        head = _key(inner, rest) if group in DOTTED else rest.partition(".")[0]
        rest = rest[len(head) + 1 :]
        if not rest:
            inner[head] = value
            return out
        below = inner.get(head) or {}
        if not isinstance(below, Mapping):
            raise UserError(f"{path}: {head!r} is a value, not a group of settings")
        inner[head] = dict(below)
        inner, group = inner[head], head


def _key(data: Mapping[str, Any], path: str) -> str:
    """The key with dots that a path begins with, if the mapping has such a key, else the path itself."""
    return next((key for key in data if path == key or path.startswith(f"{key}.")), path)


def get_path(data: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested dictionaries; KeyError if there is none."""
    value: Any = data
    for part in path.split("."):
        value = value[part]
    return value


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its dotted path; an empty mapping counts as a value.

    Example:
        >>> dict(leaves({"seed": 1, "search": {"lr": 0.1, "options": {}}}))
        {'seed': 1, 'search.lr': 0.1, 'search.options': {}}
    """
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries merged; `over` wins."""
    out = dict(base)
    for key, value in over.items():
        inner = out.get(key)
        out[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return out
