"""Configuration files of a search or a sweep, and the folders that they name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddarts_cli.folders import SearchFolder
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import parse_override, read_yaml, set_path
from ddarts_core.settings.config import ExperimentConfig, load_experiment

#: Top-level keys that only a sweep has.
SWEEP_KEYS = ("space", "tune", "tracking", "transfer")


def load(path: Path, overrides: Iterable[str]) -> ExperimentConfig:
    """Read the configuration of an experiment, or that of a sweep if the file or an override has one of `SWEEP_KEYS`.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    overrides = tuple(overrides)
    keys = {*read_yaml(path), *(text.partition("=")[0].split(".")[0].strip() for text in overrides)}
    if keys.isdisjoint(SWEEP_KEYS):
        return load_experiment(path, overrides)
    from ddarts_tuning.settings.config import load_sweep

    return load_sweep(path, overrides)


def load_search(path: Path, overrides: Iterable[str]) -> ExperimentConfig:
    """Read the experiment file of one search.

    Raises:
        UserError: the file is that of a sweep, cannot be read, or a setting is wrong.
    """
    sweep = [key for key in SWEEP_KEYS if key in read_yaml(path)]
    if sweep:
        raise UserError(f"{path} has the key {sweep[0]!r} of a sweep: run it with ddarts sweep {path}")
    return load_experiment(path, overrides)


def named_folder(path: Path, overrides: Iterable[str]) -> Path:
    """The folder that an experiment file names (`storage/name`), even if other settings in the file are wrong.

    Raises:
        UserError: the file cannot be read, or one of the overrides is not written as an override.
    """
    data = dict(read_yaml(path))
    for text in overrides:
        data = set_path(data, *parse_override(text))
    return Path(str(data.get("storage", "runs"))) / str(data.get("name", "search"))


def find_search(argument: str) -> Path | None:
    """The folder of a finished search, if the argument names one; None if it does not, since it may mean a study.

    Raises:
        UserError: the search there has not come to its end.
    """
    folder = SearchFolder(Path(argument).expanduser())
    if (folder.path / "study.json").exists():
        return None
    if not folder.finished and folder.checkpoint.is_file():
        raise UserError(
            f"the search in {folder.path} has not come to its end: go on with the command that began it and --resume; "
            "ddarts status says how far it is"
        )
    return folder.path if folder.finished else None


def find_recorded(argument: str) -> Path | None:
    """The file of a packed study or the folder of a finished search, if the argument names one of them."""
    path = Path(argument).expanduser()
    return path if path.suffix == ".parquet" else find_search(argument)


def beside(study: Path) -> Path:
    """The folder in which files about a study are written: its own, or that of the file into which it was packed."""
    return study.parent if study.is_file() else study


def plain(config: ExperimentConfig) -> dict[str, Any]:
    """A configuration as JSON-like data."""
    return config.model_dump(mode="json")
