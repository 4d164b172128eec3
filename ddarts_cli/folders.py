"""The folders of a single search, a retrain and a transfer: their files, and whether a run may write them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path
from ddarts_core.ground.validation import Strict, field_paths
from ddarts_core.loops.confusion import FILE as CONFUSION
from ddarts_core.loops.mistakes import FILE as MISTAKES

#: The file that a run writes last, and what it was.
LAST = {"search.json": "search", "result.json": "retrain", "transfer.json": "transfer"}


#: Names of what a retrain compares a genotype with (`experiment.Experiment`).
OTHERS = r"start|random(?:-\d+)?"


class RunFolder:
    """The folder of one run.

    Attributes:
        what: the kind of the run: `search`, `retrain` or `transfer`.
        path: the path of the folder.
        genotype: the file of the genotype.
        last: the file that is written last, so that only a finished run has it.
        config: the file of the settings, which is written first.
        unfinished: a file that marks an unfinished run as worth keeping: `check` refuses to write over such a run.
    """

    what: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.genotype = path / "genotype.json"
        self.config = path / "config.yaml"
        self.unfinished = self.config
        self.last = path / next(name for name, what in LAST.items() if what == self.what)

    @property
    def finished(self) -> bool:
        """Whether the run ended here."""
        return self.last.exists()

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return self.config.exists()

    def check(self, config: Strict, *, resume: bool, force: bool, genotype: AnyGenotype | None = None) -> None:
        """Refuse the folder if this run may not write to it.

        Args:
            config: the settings of this run.
            resume: whether this run goes on with what the folder holds.
            force: whether this run replaces what the folder holds.
            genotype: the genotype that the run is about, if the run is given one.

        Raises:
            UserError: the folder holds a run of another kind, or a run of this kind although neither `resume` nor
                `force` is given. With `resume`: the folder holds no run, or one of other settings, of other plug-ins
                or of another genotype.
        """
        if (self.path / "study.json").exists():
            raise UserError(f"{self.path} holds the study of a sweep: choose another folder with --out")
        if other := self._other():
            raise UserError(f"{self.path} holds a {other}: choose another folder with --out")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose a folder with --out")
        if resume and force:
            raise UserError("--resume goes on and --force starts again: choose one of them")
        if not (resume or force):
            if self.finished:
                raise UserError(
                    f"{self.path} holds a finished {self.what}: write elsewhere with --out, or replace it with --force"
                )
            if self.unfinished.exists():
                raise UserError(
                    f"{self.path} holds an unfinished {self.what}: go on with --resume, or start again with --force"
                )
        if resume:
            self._check_begun(config, genotype)

    def clear(self) -> None:
        """Remove the run that the folder holds; other files stay.

        `config.yaml` is the last to go: a folder that is half cleared is that of an unfinished run.
        """
        raise NotImplementedError

    def make(self) -> None:
        """Make the folder, and note which plug-ins are loaded.

        Raises:
            UserError: the folder cannot be made.
        """
        make_folder(self.path)
        plugins.write_records(self.path)

    def _read_config(self) -> Strict:
        """The settings that the run was begun with."""
        from ddarts_core.settings.config import load_experiment

        return load_experiment(self.config)

    @property
    def _places(self) -> tuple[str, ...]:
        """Settings that may change when a run goes on."""
        from ddarts_core.settings.hashing import PLACES

        return PLACES

    def _other(self) -> str | None:
        """The kind of the run that the folder holds, if it is another than this one; else None."""
        return next((what for name, what in LAST.items() if what != self.what and (self.path / name).exists()), None)

    def _check_begun(self, config: Strict, genotype: AnyGenotype | None) -> None:
        if not self.begun:
            raise UserError(f"nothing to resume in {self.path}: no {self.what} was begun there; leave --resume out")
        plugins.require(plugins.recorded(self.path), f"the {self.what} in {self.path}")
        if genotype is not None and self.genotype.exists():
            begun = AnyGenotype.load(self.genotype).hash
            if begun != genotype.hash:
                raise UserError(
                    f"the {self.what} in {self.path} is of another genotype (hash {begun}, this one is "
                    f"{genotype.hash}): write elsewhere with --out, or start again with --force"
                )
        if not self.config.exists():
            return  # the checkpoint has a hash of its settings
        before, now = self._read_config().model_dump(mode="json"), config.model_dump(mode="json")
        differing = [
            f"{path} was {json.dumps(get_path(before, path))}, is {json.dumps(get_path(now, path))}"
            for path in field_paths(type(config))
            if path not in self._places and get_path(before, path) != get_path(now, path)
        ]
        if differing:
            raise UserError(
                f"the {self.what} in {self.path} was begun with other settings: {'; '.join(differing)}; go on with "
                "those it was begun with, write elsewhere with --out, or start again with --force"
            )


class SearchFolder(RunFolder):
    """The files that a search leaves."""

    what = "search"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.records = path / "records.parquet"
        self.timings = path / "timings.csv"
        self.summary = self.last
        self.checkpoint = self.unfinished = path / "checkpoint.pt"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with; a search of an earlier version has a checkpoint but no settings."""
        return self.config.exists() or self.checkpoint.exists()

    def clear(self) -> None:
        """Remove the search that the folder holds, but for its settings, which are replaced."""
        for file in (self.summary, self.checkpoint, self.genotype, self.records, self.timings):
            file.unlink(missing_ok=True)


class RetrainFolder(RunFolder):
    """The files that a retrain leaves: its own, and a folder for each training."""

    what = "retrain"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.result = self.last
        self.confusion = path / CONFUSION
        self.mistakes = path / MISTAKES

    def seed_folders(self, contender: str = "genotype") -> dict[int, Path]:
        """The folders of a contender's trainings, by the seed of each training."""
        return {int(path.name.rpartition("-")[2]): path for path in self._trainings(contender)}

    def _trainings(self, contender: str) -> list[Path]:
        """The folders of all trainings of the contenders whose names match a pattern."""
        pattern = re.compile(rf"(?:{contender})-seed-\d+")
        return sorted(path for path in self.path.glob("*-seed-*") if pattern.fullmatch(path.name))

    def read_result(self) -> dict[str, Any] | None:
        """The content of `result.json` that a finished retrain left; None if the retrain is unfinished.

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
        """Remove the retrain that the folder holds, and what was exported of it; other files stay."""
        self.result.unlink(missing_ok=True)
        self.confusion.unlink(missing_ok=True)
        self.mistakes.unlink(missing_ok=True)
        for folder in self._trainings(f"genotype|{OTHERS}"):
            shutil.rmtree(folder)
        for file in self.path.glob("*.json"):
            if re.fullmatch(OTHERS, file.stem):
                file.unlink()
        if (self.path / "export").is_dir():
            from ddarts_analysis.export import remove

            remove(self.path / "export")
        (self.path / plugins.FILE).unlink(missing_ok=True)
        self.config.unlink(missing_ok=True)

    def _other(self) -> str | None:
        unfinished = "search" if (self.path / "checkpoint.pt").exists() else None
        return super()._other() or unfinished


class TransferFolder(RunFolder):
    """The files that a training on another task leaves."""

    what = "transfer"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.checkpoint = path / "checkpoint.pt"
        self.records = path / "records.parquet"
        self.timings = path / "timings.csv"
        self.weights = path / "weights.pt"
        self.picture = path / "predictions.png"
        self.result = self.last

    def clear(self) -> None:
        """Remove the training that the folder holds."""
        files = (self.result, self.checkpoint, self.records, self.timings, self.weights, self.picture, self.genotype)
        for file in (*files, self.path / plugins.FILE, self.config):
            file.unlink(missing_ok=True)

    def _read_config(self) -> Strict:
        from ddarts_core.ground.nested import read_yaml
        from ddarts_core.transfer.settings import resolve

        return resolve(read_yaml(self.config), where=str(self.config))

    @property
    def _places(self) -> tuple[str, ...]:
        from ddarts_core.transfer.settings import PLACES

        return PLACES


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose another with --out") from error
