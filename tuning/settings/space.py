"""The search space of a sweep: one distribution per dotted path of the experiment configuration.

A parameter may depend on other parameters or settings (`when`): it is drawn only if each of them that `when` names has
one of the listed values. Everything is checked against the configuration model before a sweep starts. This module
imports no Ray, Optuna or torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ddarts_core.genotypes.derive import algorithm_1
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path, set_path
from ddarts_core.ground.validation import field_paths
from ddarts_core.methods import paths_of_parts
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.settings.departures import departures as own_departures
from ddarts_core.settings.departures import sentence
from ddarts_core.settings.terms import where_kept

from .distributions import AnyDistribution, CategoricalDistribution, IntDistribution, Suggester

FIXED_PATHS = ("name", "storage")
"""Settings that say where a study is stored, and that are the same for all its trials."""


# --- from a base configuration and drawn parameters to a trial's configuration --------------------------------------


def base_settings(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that the user gave, without the sweep's own groups and what method, recipe and start imply.

    So if they are resolved with another `method`, `retrain.recipe` or `search.start`, the result has what the new one
    implies, and what the user gave.
    """
    settings = config.model_dump(mode="json")
    given = {name: value for name, value in config.given.items() if name in ExperimentConfig.model_fields}
    base = _as_in(given, settings)
    if "root" in config.data.model_fields_set:  # also where only its folder was made absolute
        base = set_path(base, "data.root", settings["data"]["root"])
    return base


def _as_in(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Given settings with the values that they have among checked ones; null and auto stay what was given."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), Mapping):
            found[key] = _as_in(value, settings[key])
        elif key in settings:
            found[key] = value if value in (None, "auto") else settings[key]
    return found


def trial_config(base: Mapping[str, Any], params: Mapping[str, Any], where: str = "trial") -> ExperimentConfig:
    """The configuration of a trial: the base settings, in which the drawn parameters replace theirs.

    Raises:
        UserError: the configuration model refuses the combination, or no network of `retrain.num_cells` cells can be
            derived from the searched ones.
    """
    data = dict(base)
    for path, value in params.items():
        data = set_path(data, path, value)
    config = resolve(data, model=ExperimentConfig, where=where)
    depth, search = config.retrain.num_cells, config.search
    if depth is not None and search.sharing != "normal_reduce":
        try:
            algorithm_1(search.num_cells, depth)
        except UserError as error:
            raise UserError(f"{where}: retrain.num_cells {depth}: {error}") from error
    return config


# --- the space ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """Distributions by dotted path, each after those it depends on; a space is called with an Optuna trial to draw.

    Attributes:
        distributions: the path and the distribution of each parameter, in the order of drawing.
        base: the settings that the parameters replace, for conditions on settings that are not drawn.

    Example:
        >>> lr = FloatDistribution(type="float", low=0.001, high=0.1, log=True)
        >>> build_space({"alpha.lr": lr}, {"alpha": {"lr_min": 0.0}}).paths
        ('alpha.lr',)
    """

    distributions: tuple[tuple[str, AnyDistribution], ...]
    base: Mapping[str, Any]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all parameters, also of those that are inactive in some trials."""
        return tuple(path for path, _ in self.distributions)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting of a trial for which no parameter is drawn."""
        settings: dict[str, Any] = resolve(self.base, model=ExperimentConfig).model_dump(mode="json")
        return settings

    def __call__(self, trial: Suggester) -> dict[str, Any]:
        """Draw the active parameters, by dotted path."""
        params: dict[str, Any] = {}
        for path, distribution in self.distributions:
            if self.active(distribution, params):
                params[path] = distribution.suggest(trial, path)
        return params

    def active(self, distribution: AnyDistribution, params: Mapping[str, Any]) -> bool:
        """Whether every condition of a distribution holds. A condition on a parameter that was not drawn does not."""
        for path, values in distribution.when.items():
            if path not in params and path in self.paths:
                return False
            if (params[path] if path in params else _given(self.settings, path)) not in values:
                return False
        return True

    @cached_property
    def _meant(self) -> dict[str, list[tuple[Any, Any]]]:
        """The choices of each categorical parameter, and the values that they stand for: in YAML `5e-2` is a text."""
        found: dict[str, list[tuple[Any, Any]]] = {}
        for path, distribution in self.distributions:
            for choice in distribution.choices if isinstance(distribution, CategoricalDistribution) else ():
                config = trial_config(self.base, _example(self, path, choice)).model_dump(mode="json")
                found.setdefault(path, []).append((choice, _given(config, path)))
        return found

    def read(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values of the active parameters in a trial with these settings, and which of them the space lacks."""
        params: dict[str, Any] = {}
        for path, distribution in self.distributions:
            if self.active(distribution, params):
                value = _given(settings, path)
                params[path] = next((choice for choice, meant in self._meant.get(path, ()) if meant == value), value)
        by_path = dict(self.distributions)
        return params, [path for path, value in params.items() if not by_path[path].contains(value)]

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of values, in which inactive parameters are left out; the first parameter varies slowest.

        Raises:
            UserError: a parameter may be any number of an interval.
        """
        points: list[dict[str, Any]] = [{}]
        for path, distribution in self.distributions:
            values = _grid_values(path, distribution)
            points = [
                {**point, **drawn}
                for point in points
                for drawn in ([{path: value} for value in values] if self.active(distribution, point) else [{}])
            ]
        return points


GRID_LIMIT = 1_000_000
"""How many values of one parameter a grid may have: as many as a sweep may have trials."""


def _grid_values(path: str, distribution: AnyDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        if distribution.count > GRID_LIMIT:
            raise UserError(f"space.{path}: searcher grid would visit {distribution.count:,} values: give it a step")
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    raise UserError(f"space.{path}: searcher grid needs a finite list of values: use type categorical, or int")


def _given(settings: Mapping[str, Any], path: str) -> Any:
    """The value of a setting; None if only parts that are not in use have this setting."""
    try:
        return get_path(settings, where_kept(settings, path))
    except KeyError:
        return None


def build_space(distributions: Mapping[str, AnyDistribution], base: Mapping[str, Any]) -> Space:
    """Check a space against the configuration model and put it into the order of drawing.

    Raises:
        UserError: an unknown or fixed path, a circle of conditions, a condition that can never hold, or a bound or
            choice that the configuration refuses.
    """
    known = [path for path in (*field_paths(ExperimentConfig), *paths_of_parts()) if path not in FIXED_PATHS]
    for path, distribution in distributions.items():
        _check_path(path, f"space.{path}", known)
        for parent, values in distribution.when.items():
            _check_path(parent, f"space.{path}.when", known)
            other = distributions.get(parent)
            impossible = [value for value in values if other is not None and not other.contains(value)]
            if not values or impossible:
                got = repr(impossible[0]) if impossible else "no value"
                raise UserError(f"space.{path}.when: {parent} never takes {got}; see space.{parent}")
    space = Space(tuple(_ordered(distributions)), dict(base))
    for path, distribution in space.distributions:
        for value in distribution.corners():
            try:
                trial_config(space.base, _example(space, path, value), where="the configuration")
            except UserError as error:
                raise UserError(f"space.{path}: {value!r} is refused by {error}") from error
    return space


def _check_path(path: str, where: str, known: list[str]) -> None:
    if path in known:
        return
    if path in FIXED_PATHS:
        raise UserError(f"{where}: {path!r} is the same for all trials of a study")
    near = difflib.get_close_matches(path, known, n=1)
    siblings = [other for other in known if other.split(".")[0] == path.split(".")[0]]
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(siblings or known)}"
    raise UserError(f"{where}: unknown setting {path!r}; {hint}")


def departures(space: Space) -> list[str]:
    """Sentences on the methods of a space that run with other settings than their own in all their trials."""
    methods = dict(space.distributions).get("method")
    examples = [{}] if methods is None else [_example(space, "method", name) for name in methods.corners()]
    alike: dict[tuple[str, ...], list[str]] = {}
    for params in examples:
        config = trial_config(space.base, params)
        if found := tuple(text for text in own_departures(config) if text.split()[0] not in space.paths):
            alike.setdefault(found, []).append(config.method)
    return [sentence(names, found) for found, names in alike.items()]


def _ordered(distributions: Mapping[str, AnyDistribution]) -> list[tuple[str, AnyDistribution]]:
    ordered: dict[str, AnyDistribution] = {}
    waiting = dict(distributions)
    while waiting:
        ready = [path for path, d in waiting.items() if not any(parent in waiting for parent in d.when)]
        if not ready:
            raise UserError(f"space: the conditions of {', '.join(waiting)} depend on each other in a circle")
        for path in ready:
            ordered[path] = waiting.pop(path)
    return list(ordered.items())


def _example(space: Space, path: str, value: Any) -> dict[str, Any]:
    """Parameters of a trial in which `path` is active and has the value; the others stay near the base settings."""
    forced: dict[str, Any] = {path: value}
    by_path = dict(space.distributions)
    open_paths = [path]
    while open_paths:
        for parent, values in by_path[open_paths.pop()].when.items():
            if parent not in forced:
                forced[parent] = values[0]
                if parent in by_path:
                    open_paths.append(parent)
    params = {parent: chosen for parent, chosen in forced.items() if parent not in by_path}
    for other, distribution in space.distributions:
        if other in forced:
            params[other] = forced[other]
        elif space.active(distribution, params):
            default = _given(space.settings, other)
            params[other] = default if distribution.contains(default) else distribution.corners()[0]
    return params


def check_points(space: Space, points: Iterable[Mapping[str, Any]]) -> None:
    """Check the parameters of the trials that the user wants to see first.

    Raises:
        UserError: a point names a path that is not in the space, or a value outside its distribution.
    """
    by_path = dict(space.distributions)
    for number, point in enumerate(points):
        for path, value in point.items():
            where = f"tune.points_to_evaluate[{number}]"
            if path not in by_path:
                raise UserError(f"{where}: {path!r} is not in the space; choose from {', '.join(space.paths)}")
            if not by_path[path].contains(value):
                raise UserError(f"{where}: {path} {value!r} lies outside space.{path}")
