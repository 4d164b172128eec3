"""Configuration files, and the folder of a single search."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddarts_core.config import ExperimentConfig, load_experiment
from ddarts_core.errors import UserError
from ddarts_core.nested import read_yaml

#: Top-level keys that only a sweep has.
SWEEP_KEYS = ("space", "tune", "tracking")


def load(path: Path, overrides: Iterable[str]) -> ExperimentConfig:
    """Read an experiment, or a sweep when the file or an override has one of its keys.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    overrides = tuple(overrides)
    keys = {*read_yaml(path), *(text.partition("=")[0].split(".")[0].strip() for text in overrides)}
    if keys.isdisjoint(SWEEP_KEYS):
        return load_experiment(path, overrides)
    from tuning.config import load_sweep

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


class SearchFolder:
    """Names of the files that a search leaves, and whether it may write them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.genotype = path / "genotype.json"
        self.records = path / "records.parquet"
        self.timings = path / "timings.csv"
        self.config = path / "config.yaml"
        self.summary = path / "search.json"
        self.checkpoint = path / "checkpoint.pt"

    @property
    def finished(self) -> bool:
        """Whether a search ran to its end here: `search.json` is written last."""
        return self.summary.exists()

    def check(self, *, resume: bool, force: bool) -> None:
        """Refuse a folder that this search may not write.

        Raises:
            UserError: it holds a study, or a search that neither `resume` nor `force` is about.
        """
        check_folder(self.path, self.checkpoint, self.summary, "search", resume=resume, force=force)

    def prepare(self, *, force: bool) -> None:
        """Make the folder; with `force` remove the search that it holds.

        Raises:
            UserError: the folder cannot be made.
        """
        if force:
            for file in (self.summary, self.checkpoint, self.genotype, self.records, self.timings):
                file.unlink(missing_ok=True)
        make_folder(self.path)


def check_folder(path: Path, checkpoint: Path, last: Path, what: str, *, resume: bool, force: bool) -> None:
    """Refuse a folder that may not be written; `last` is the file that only a finished run has.

    Raises:
        UserError: the folder holds something that neither `resume` nor `force` is about.
    """
    if (path / "study.json").exists():
        raise UserError(f"{path} holds the study of a sweep: choose another folder with --out")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: choose a folder with --out")
    if resume and force:
        raise UserError("--resume goes on and --force starts again: choose one of them")
    if resume and not checkpoint.exists():
        raise UserError(f"nothing to resume in {path}: there is no {checkpoint.name}; leave --resume out")
    if last.exists() and not (force or resume):
        raise UserError(f"{path} holds a finished {what}: write elsewhere with --out, or replace it with --force")
    if checkpoint.exists() and not (force or resume):
        raise UserError(f"{path} holds an unfinished {what}: go on with --resume, or start again with --force")


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose another with --out") from error


def plain(config: ExperimentConfig) -> dict[str, Any]:
    """A configuration as JSON-like data."""
    return config.model_dump(mode="json")
