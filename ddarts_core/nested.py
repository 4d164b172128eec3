"""Settings as YAML has them, mappings within mappings: read, merged, and addressed by dotted paths. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or holds something else than a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {_mistake(error)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path} must hold a mapping of settings (key: value)")
    return data


def _mistake(error: yaml.YAMLError) -> str:
    """What is wrong and where; the line itself, which YAML's own message quotes in part, may hold a password."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"


def parse_override(text: str) -> tuple[str, Any]:
    """Split `dotted.path=value`; the value is read as YAML.

    Raises:
        UserError: there is no '=' or no path.
    """
    path, mark, value = text.partition("=")
    if not mark or not path.strip():
        raise UserError(f"--set {text!r}: expected dotted.path=value, for example --set search.epochs=5")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {text!r}: the value is not valid YAML") from error


def set_path(data: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested dictionaries with the value at a dotted path replaced."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**data, head: value}
    inner = data.get(head) or {}
    if not isinstance(inner, Mapping):
        raise UserError(f"{path}: {head!r} is a value, not a group of settings")
    return {**data, head: set_path(inner, rest, value)}


def get_path(data: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested dictionaries; KeyError if there is none."""
    value: Any = data
    for part in path.split("."):
        value = value[part]
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries merged; `over` wins."""
    out = dict(base)
    for key, value in over.items():
        inner = out.get(key)
        out[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return out
