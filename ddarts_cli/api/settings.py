"""Settings from a file or from Python's own dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddarts_core.ground.nested import read_yaml
from ddarts_core.settings.config import ExperimentConfig, resolve

#: A YAML file, settings as a file has them, or a configuration that is whole already.
Settings = str | Path | Mapping[str, Any] | ExperimentConfig


def load_config(settings: Settings, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """The whole configuration of a search or a sweep: every default filled in, every value checked.

    Args:
        settings: a YAML file, or a dictionary with the same keys. `ddarts settings` explains them all.
        overrides: settings that replace others, as `--set` takes them: `dotted.path=value`.

    Returns:
        The configuration. It is that of a sweep (`SweepConfig`) if the settings or the overrides have one of the groups
        `space`, `tune`, `tracking` and `transfer`, else that of a search.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or wrong.

    Example:
        >>> config = load_config({"method": "pcdarts", "search": {"epochs": 12}}, ["alpha.lr=0.01"])
        >>> config.search.epochs, config.alpha.lr, config.search.edge
        (12, 0.01, 'partial-channels')
    """
    overrides = tuple(overrides)
    if isinstance(settings, ExperimentConfig):
        if not overrides:
            return settings
        settings = settings.model_dump(mode="json")
    where = "configuration" if isinstance(settings, Mapping) else str(settings)
    data = settings if isinstance(settings, Mapping) else read_yaml(settings)
    keys = {*data, *(text.partition("=")[0].split(".")[0].strip() for text in overrides)}
    if keys.isdisjoint(("space", "tune", "tracking", "transfer")):
        return resolve(data, overrides, where=where)
    from ddarts_tuning.settings.config import resolve_sweep

    return resolve_sweep(data, overrides, where)
