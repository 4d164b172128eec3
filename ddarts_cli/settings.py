"""What can be set in a file, read off the configuration models: path, default, allowed values, meaning."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        path: the dotted path of the setting.
        default: the default, written as in JSON.
        allowed: the allowed values, in words.
        meaning: what the setting means, in one line.
        choices: the allowed values, if they are a few names; else empty.
    """

    path: str
    default: Any
    allowed: str
    meaning: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Settings with the same path but for its last part; `meaning` is the first paragraph of their model."""

    path: str
    meaning: str
    settings: tuple[Setting, ...]


#: Values of a setting of these kinds.
_WORDS: Mapping[Any, tuple[str, ...]] = {bool: ("true", "false"), type(None): ("null",)}


def groups(model: type[BaseModel], names: Mapping[str, Any], prefix: str = "") -> Iterator[Group]:
    """The groups of settings of a configuration model; the groups within a model come after its own.

    Args:
        model: the model of the configuration.
        names: by dotted path, the allowed values of each setting whose values are the entries of a table.
        prefix: the dotted path of the model, with a dot at its end; empty for the whole configuration.
    """
    inner: dict[str, type[BaseModel]] = {}
    own = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        nested = _model(field.annotation)
        if nested is not None:
            inner[f"{path}."] = nested
        if nested is not field.annotation:
            default = _plain(field.get_default(call_default_factory=True))
            choices = _choices(path, field, names)
            own.append(Setting(path, default, _allowed(path, field, names), field.description or "", choices))
    if own:
        yield Group(prefix.rstrip("."), (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " "), tuple(own))
    for path, nested in inner.items():
        yield from groups(nested, names, path)


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model of a setting that is a group, or may be one; None for any other setting."""
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _options(annotation: Any) -> list[Any]:
    union = typing.get_origin(annotation) in (Union, types.UnionType)
    return list(typing.get_args(annotation)) if union else [annotation]


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _allowed(path: str, field: FieldInfo, names: Mapping[str, Any]) -> str:
    if path in names:
        return ", ".join(names[path])
    return " or ".join(_one(option, field) for option in _options(field.annotation))


def _choices(path: str, field: FieldInfo, names: Mapping[str, Any]) -> tuple[str, ...]:
    if path in names:
        return tuple(names[path])
    found: list[str] = []
    for option in _options(field.annotation):
        literal = typing.get_origin(option) is Literal
        found += map(str, typing.get_args(option)) if literal else _WORDS.get(option, ())
    return tuple(found)


def _one(option: Any, field: FieldInfo) -> str:
    if typing.get_origin(option) is Literal:
        return ", ".join(map(str, typing.get_args(option)))
    if option in _WORDS:
        return ", ".join(_WORDS[option])
    if option in (int, float):
        return _range(option, field)
    if option is str:
        return "text"
    if isinstance(option, type) and issubclass(option, BaseModel):
        return "a group, see below"
    return "a mapping" if typing.get_origin(option) is dict else "a list"


def _range(kind: type, field: FieldInfo) -> str:
    """The bounds of a setting in words.

    Example:
        >>> from ddarts_core.settings.search_settings import SearchConfig
        >>> _range(float, SearchConfig.model_fields["lr"])
        'a number above 0, at most 10'
    """
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = {name: getattr(found, name) for found in field.metadata for name in words if hasattr(found, name)}
    parts = [f"{words[name]} {bounds[name]:,}" for name in words if name in bounds]
    return f"{'a whole number' if kind is int else 'a number'} {', '.join(parts)}".rstrip()
