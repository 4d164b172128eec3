"""Models of settings: they are strict about what they take, and tell every mistake in one sentence. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from .errors import UserError
from .nested import shorten

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"

#: What the patterns ask for, in words.
PATTERNS = MappingProxyType(
    {
        NAME: "should be up to 100 letters, digits and . _ -, a letter or a digit first",
        DEVICE: "should be auto, cpu, cuda or cuda:N",
    }
)


class Strict(BaseModel):
    """Base of all configuration models: they are frozen, refuse unknown keys, and convert no string silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    def __hash__(self) -> int:
        """A hash of all settings. Pydantic's own hash cannot take mappings."""
        return hash(self.model_dump_json())

    @field_validator("*", mode="before")
    @classmethod
    def _no_silent_conversion(cls, value: Any, info: Any) -> Any:
        """Refuse text and truth values for a number, except text that YAML 1.1 wrongly reads as such (1e-3)."""
        annotation = cls.model_fields[info.field_name].annotation
        if annotation in (int, float):
            if isinstance(value, bool):
                raise ValueError(f"should be a number, not {value}")
            if isinstance(value, str):
                try:
                    return _yaml_float(value)
                except ValueError:
                    raise ValueError(f"should be a number, not the text {value!r}") from None
        return value


def _yaml_float(text: str) -> float:
    """Accept only the exponent notation that YAML 1.1 reads as a string, such as 1e-3."""
    mantissa, mark, exponent = text.lower().partition("e")
    if not mark or not exponent.lstrip("+-").isdigit():
        raise ValueError(text)
    float(mantissa)
    return float(text)


def validate(model: type[Strict], data: Mapping[str, Any], where: str) -> Any:
    """Do `model.model_validate`, and say the first mistake in one sentence.

    Raises:
        UserError: what is wrong, at which dotted path, and what is allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(_sentence(error, model, data, where)) from error


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted path of a single setting in a configuration model."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            paths += field_paths(annotation, f"{prefix}{name}.")
        else:
            paths.append(f"{prefix}{name}")
    return paths


#: What pydantic says of a value of another kind, in the words of a file.
_KINDS = {
    "model_type": "should be a group of settings (key: value)",
    "dict_type": "should be a mapping (key: value)",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
}


def _sentence(error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], where: str) -> str:
    """The first mistake in one sentence.

    If a setting may be of several kinds, the sentence says for each kind what is wrong.
    """
    errors = [(_location(entry, data), entry) for entry in error.errors()]
    start = errors[0][0]
    path, first = max(((p, e) for p, e in errors if p[: len(start)] == start), key=lambda found: len(found[0]))
    if first["type"] == "extra_forbidden":
        return f"{where}: {_unknown_setting(path, model)}"
    messages = dict.fromkeys(_words(entry) for other, entry in errors if other == path)
    message, *others = messages
    message = " or ".join([message, *(text.removeprefix("should be ") for text in others)])
    value, text = first.get("input"), repr(first.get("input"))
    shown = "" if isinstance(value, Mapping) or text in message else f" (got {shorten(text)})"
    return f"{where}: {'.'.join(path) + ': ' if path else ''}{message}{shown}"


def _location(entry: Any, data: Any) -> tuple[str, ...]:
    """The path in the settings; pydantic also names the kinds that it tried."""
    path = []
    for part in entry["loc"]:
        if isinstance(data, Mapping):
            found = part in data
        else:
            found = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if found:
            data = data[part]
        if found or (entry["type"] == "missing" and part == entry["loc"][-1]):
            path.append(str(part))
    return tuple(path)


def _words(entry: Any) -> str:
    pattern = entry.get("ctx", {}).get("pattern")
    text: str = _KINDS.get(entry["type"]) or PATTERNS.get(pattern) or entry["msg"]
    text = text.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _unknown_setting(path: tuple[str, ...], model: type[BaseModel]) -> str:
    import difflib

    *groups, name = path
    known = field_paths(model)
    if name in known:
        group, _, inner = name.rpartition(".")
        return f"{name!r} is one key: write it as a key of its group, {group}: {{{inner}: ...}}"
    annotation: Any = model
    for group in groups:  # a key of a mapping has the annotation of the mapping
        annotation = next(
            (m.model_fields[group].annotation for m in _models(annotation) if group in m.model_fields), annotation
        )
    siblings = sorted({field for found in _models(annotation) for field in found.model_fields})
    prefix = "".join(f"{group}." for group in groups)
    near = [prefix + sibling for sibling in difflib.get_close_matches(name, siblings, n=1)]
    near += [path for path in difflib.get_close_matches(prefix + name, known, n=1) if not prefix.startswith(f"{path}.")]
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(siblings)}"
    return f"unknown setting {prefix + name!r}; {hint}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value may be, or be made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for option in get_args(annotation) for model in _models(option)]
