"""Configuration files, and the folders of a single search and of a retrain."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path, parse_override, read_yaml, set_path
from ddarts_core.ground.validation import field_paths
from ddarts_core.loops.confusion import FILE as CONFUSION
from ddarts_core.loops.mistakes import FILE as MISTAKES
from ddarts_core.settings.config import ExperimentConfig, load_experiment
from ddarts_core.settings.hashing import PLACES

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
    """The folder that an experiment file names (`storage/name`), whatever else of it is wrong.

    Raises:
        UserError: the file cannot be read, or an override is none.
    """
    data = dict(read_yaml(path))
    for text in overrides:
        data = set_path(data, *parse_override(text))
    return Path(str(data.get("storage", "runs"))) / str(data.get("name", "search"))


def find_search(argument: str) -> Path | None:
    """The folder of a finished search, if an argument that may also mean a study names one.

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

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with: `config.yaml` is written first."""
        return self.config.exists() or self.checkpoint.exists()

    def check(self, config: ExperimentConfig, *, resume: bool, force: bool) -> None:
        """Refuse a folder that this search may not write.

        Raises:
            UserError: it holds a study, a retrain, or a search that neither `resume` nor `force` is about, or that was
                begun with other settings, or with plug-ins that are not loaded.
        """
        if (self.path / "result.json").exists():
            raise UserError(f"{self.path} holds a retrain: choose another folder with --out")
        check_folder(self.path, self.checkpoint, self.summary, "search", resume=resume, force=force)
        if resume:
            plugins.require(plugins.recorded(self.path), f"the search in {self.path}")
            check_begun(self.config, config, self.begun, "search")

    def prepare(self, *, force: bool) -> None:
        """Make the folder, and note which plug-ins are loaded; with `force` remove the search that it holds.

        Raises:
            UserError: the folder cannot be made.
        """
        if force:
            for file in (self.summary, self.checkpoint, self.genotype, self.records, self.timings):
                file.unlink(missing_ok=True)
        make_folder(self.path)
        plugins.write_records(self.path)


class RetrainFolder:
    """Names of the files that a retrain leaves, and whether it may write them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.genotype = path / "genotype.json"
        self.config = path / "config.yaml"
        self.result = path / "result.json"
        self.confusion = path / CONFUSION
        self.mistakes = path / MISTAKES

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with: `config.yaml` is written first."""
        return self.config.exists()

    def check(self, config: ExperimentConfig, *, resume: bool, force: bool) -> None:
        """Refuse a folder that this retrain may not write.

        Raises:
            UserError: it holds a study, a search, or a retrain that neither `resume` nor `force` is about, or that was
                begun with other settings, or with plug-ins that are not loaded.
        """
        if SearchFolder(self.path).summary.exists() or SearchFolder(self.path).checkpoint.exists():
            raise UserError(f"{self.path} holds a search: choose another folder with --out")
        check_folder(self.path, self.config, self.result, "retrain", resume=resume, force=force)
        if resume:
            plugins.require(plugins.recorded(self.path), f"the retrain in {self.path}")
            check_begun(self.config, config, self.begun, "retrain")

    def seed_folders(self, contender: str = "genotype") -> dict[int, Path]:
        """The folders of a contender's trainings by their seeds."""
        found = {path: re.fullmatch(rf"{contender}-seed-(\d+)", path.name) for path in self.path.glob("*-seed-*")}
        return {int(match[1]): path for path, match in sorted(found.items()) if match}

    def read_result(self) -> dict[str, Any] | None:
        """What a finished retrain left; None of an unfinished one.

        Raises:
            UserError: the file is damaged.
        """
        if not self.result.exists():
            return None
        try:
            data: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
            if any(len(test["accuracies"]) != len(data["seeds"]) for test in data["test"].values()):
                raise ValueError("not one accuracy for each seed")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{self.result} is damaged: {wrong}") from error
        return data

    def clear(self) -> None:
        """Remove the retrain that the folder holds, and what was exported of it; other files stay.

        `config.yaml` is the last to go: a folder that is half cleared is that of an unfinished retrain.
        """
        self.result.unlink(missing_ok=True)
        self.confusion.unlink(missing_ok=True)
        self.mistakes.unlink(missing_ok=True)
        for contender in ("genotype", "random"):
            for folder in self.seed_folders(contender).values():
                shutil.rmtree(folder)
        (self.path / "random.json").unlink(missing_ok=True)
        if (self.path / "export").is_dir():
            from ddarts_analysis.export import remove

            remove(self.path / "export")
        (self.path / plugins.FILE).unlink(missing_ok=True)
        self.config.unlink(missing_ok=True)


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
    if last.exists() and not (force or resume):
        raise UserError(f"{path} holds a finished {what}: write elsewhere with --out, or replace it with --force")
    if checkpoint.exists() and not (force or resume):
        raise UserError(f"{path} holds an unfinished {what}: go on with --resume, or start again with --force")


def check_begun(file: Path, config: ExperimentConfig, begun: bool, what: str) -> None:
    """Refuse to go on where nothing was begun, or with other settings than those in `file`, which it was begun with.

    Raises:
        UserError: names each setting that differs, but for places, with both values.
    """
    if not begun:
        raise UserError(f"nothing to resume in {file.parent}: no {what} was begun there; leave --resume out")
    if not file.exists():
        return  # the checkpoint has a hash of its settings
    before, now = plain(load_experiment(file)), plain(config)
    differing = [
        f"{path} was {json.dumps(get_path(before, path))}, is {json.dumps(get_path(now, path))}"
        for path in field_paths(ExperimentConfig)
        if path not in PLACES and get_path(before, path) != get_path(now, path)
    ]
    if differing:
        raise UserError(
            f"the {what} in {file.parent} was begun with other settings: {'; '.join(differing)}; go on with those it "
            "was begun with, write elsewhere with --out, or start again with --force"
        )


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
