"""Distributions of a sweep's search space: which values a parameter may have, and how they are drawn.

This module imports no Ray or Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    model_validator,
)

from ddarts_core.ground.validation import Strict

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr


class Suggester(Protocol):
    """The methods of an Optuna trial that a space calls to draw values."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A float from `[low, high]`."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """An integer from `[low, high]`."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


class _Conditional(Strict):
    when: dict[str, list[Scalar]] = Field(
        default_factory=dict,
        description="The setting is drawn only in trials where each of these paths has one of its values.",
    )

    def corners(self) -> list[Any]:
        """Values that the setting must allow; if it allows these, it allows all that the distribution draws."""
        raise NotImplementedError

    def contains(self, value: Any) -> bool:
        """Whether the distribution can yield the value."""
        raise NotImplementedError

    def suggest(self, trial: Suggester, path: str) -> Any:
        """Let the trial draw a value."""
        raise NotImplementedError


class FloatDistribution(_Conditional):
    """A number from `[low, high]`, on a log scale or in steps if wished.

    Raises:
        ValueError: low exceeds high, log needs a positive low, or log and step are both given.
    """

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> FloatDistribution:
        _check_bounds(self.low, self.high, self.log, self.step is not None)
        return self

    def corners(self) -> list[Any]:
        """The values that must be allowed: both bounds and, if both are whole numbers, one value between them.

        The value between is not whole. Without it, the bounds 1 and 2 would pass for a setting that takes whole numbers
        only. It is left out if the distribution, by its step or its bounds, has no such value.
        """
        bounds = [self.low, self.high]
        between = self.low + (0.5 * min(1.0, self.high - self.low) if self.step is None else self.step)
        whole = all(bound.is_integer() for bound in bounds)
        return [*bounds, between] if whole and self.low < between < self.high else bounds

    def contains(self, value: Any) -> bool:
        """Whether a number lies within the bounds and on a step."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def suggest(self, trial: Suggester, path: str) -> float:
        """Draw a float."""
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)


class IntDistribution(_Conditional):
    """An integer from `[low, high]`, on a log scale or in steps if wished.

    Raises:
        ValueError: low exceeds high, log needs a positive low, or log and a step other than 1 are both given.
    """

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> IntDistribution:
        _check_bounds(self.low, self.high, self.log, self.step != 1)
        return self

    def corners(self) -> list[Any]:
        """The values that must be allowed: all of them if there are at most 16, or else the first and the last."""
        last = self.low + (self.count - 1) * self.step
        return list(range(self.low, last + 1, self.step)) if self.count <= 16 else [self.low, last]

    @property
    def count(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def contains(self, value: Any) -> bool:
        """Whether an integer lies within the bounds and on a step."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def suggest(self, trial: Suggester, path: str) -> int:
        """Draw an integer."""
        return trial.suggest_int(path, self.low, self.high, step=self.step, log=self.log)


class CategoricalDistribution(_Conditional):
    """One of a list of numbers, texts or truth values.

    Raises:
        ValueError: a choice is named twice.
    """

    type: Literal["categorical"]
    choices: list[Scalar] = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> CategoricalDistribution:
        if len({(type(choice), choice) for choice in self.choices}) != len(self.choices):
            raise ValueError(f"choices {self.choices} must differ from each other")
        return self

    def corners(self) -> list[Any]:
        """Every choice."""
        return list(self.choices)

    def contains(self, value: Any) -> bool:
        """Whether the value is a choice."""
        return value in self.choices

    def suggest(self, trial: Suggester, path: str) -> Any:
        """Draw a choice."""
        return trial.suggest_categorical(path, self.choices)


AnyDistribution = FloatDistribution | IntDistribution | CategoricalDistribution


def _type(value: Any) -> Any:
    return value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)


Distribution = Annotated[
    Annotated[FloatDistribution, Tag("float")]
    | Annotated[IntDistribution, Tag("int")]
    | Annotated[CategoricalDistribution, Tag("categorical")],
    Discriminator(
        _type,
        custom_error_type="distribution",
        custom_error_message="needs a type: choose one of categorical, float, int",
    ),
]
"""A distribution as YAML writes it; its `type` says which of the three it is."""


def read_distributions(stored: Mapping[str, Any]) -> dict[str, AnyDistribution]:
    """The distributions of a space as a study stores them, by path."""
    return TypeAdapter(dict[str, Distribution]).validate_python(dict(stored))


def _check_bounds(low: float, high: float, log: bool, stepped: bool) -> None:
    if low > high:
        raise ValueError(f"low {low:g} must not exceed high {high:g}")
    if log and low <= 0:
        raise ValueError(f"log: true needs a positive low, not {low:g}")
    if log and stepped:
        raise ValueError("log: true and step cannot be used together: leave one of them out")
