"""The folder of a study: what a sweep writes and everybody reads.

This module imports no Ray, MLflow or torch, so that a study is read quickly.

Wherever a study is, it is read and written in the same way, in a folder (see backend.py).

study.json                 what was asked, with which versions, and the study's state
trials/TRIAL_ID/trial.json one trial: its parameters, state and results; beside it records.jsonl and genotype.json
                           and, while it runs, its checkpoints
baselines/KEY/             with DARTOpti: the start architecture, trained once for each seed and settings
optuna.log, mlflow.db, mlartifacts/   copies of the above for Optuna's and MLflow's tools
.ray/                      Ray's own files, while the sweep runs: ddarts never reads them
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.studies import sqlite_uri
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import read_json, read_study_file, read_trial_file, write_json

from . import checkpoints, plugins
from .backend import Folder, backend_of, meant
from .mirror import StoreError

PACKAGES = ("torch", "torchvision", "numpy", "ray", "optuna", "mlflow")


@dataclass(frozen=True)
class Study:
    """A study that a sweep has begun.

    Attributes:
        backend: the place of the study.
        data: the contents of study.json.
    """

    backend: Folder = field(compare=False)
    data: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The folder in which this process has the study's files."""
        return self.backend.folder

    @property
    def location(self) -> str:
        """The study's folder or URI, by which a user names the study."""
        return self.backend.location

    def pull(self, *below: str) -> None:
        """Fetch what other processes wrote: all of it, or what is below some paths in the study."""
        self.backend.pull(*below)

    def push(self, *below: str) -> None:
        """Send what this process wrote to others: all of it, or what is below some paths in the study."""
        self.backend.push(*below)

    def clear_checkpoints(self, number: int) -> None:
        """Delete the checkpoints of a trial, once nobody goes on from them any more."""
        self.backend.remove(self.backend.found(f"trials/{trial_name(number)}", checkpoints.is_checkpoint))

    @property
    def name(self) -> str:
        """The study's name, which is also the name of its folder."""
        return str(self.data["name"])

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """Metric and mode of each objective."""
        return [(entry["metric"], entry["mode"]) for entry in self.data["objectives"]]

    @property
    def limits(self) -> dict[str, float | None]:
        """The limits that a trial's derived network should keep; None means no limit."""
        return dict(self.data["config"]["tune"].get("limits", {}))

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """For the first sweep, and for each later sweep that added trials: how many trials, and which first points.

        The first points of a later sweep are only those that were new.
        """
        first = {"num_samples": self.data["config"]["tune"]["num_samples"], "points_to_evaluate": []}
        return list(self.data.get("rounds", [first]))

    def update(self, **fields: Any) -> Study:
        """Write study.json with some fields replaced."""
        data = {**self.data, **fields}
        write_json(self.path / "study.json", data)
        self.push("study.json")
        return Study(self.backend, data)

    def change_trial(self, number: int, **fields: Any) -> dict[str, Any]:
        """Write the trial.json of a trial with some fields replaced, and return the new record."""
        folder = trial_dir(self.path, number)
        record = {**read_json(folder / "trial.json"), **fields}
        write_json(folder / "trial.json", record)
        self.push(f"trials/{folder.name}")
        return record

    @property
    def num_trials(self) -> int:
        """How many trials were begun. No file of a trial is opened to count them."""
        return sum(1 for _ in self.path.glob("trials/*/trial.json"))

    def trials(self) -> list[dict[str, Any]]:
        """All trials, by number.

        Raises:
            UserError: a file of a trial is damaged.
        """
        metrics = [metric for metric, _ in self.objectives]
        files = self.path.glob("trials/*/trial.json")
        return sorted((read_trial_file(file.parent, metrics) for file in files), key=lambda trial: int(trial["number"]))

    def ranked(self) -> list[dict[str, Any]]:
        """The completed trials, and then the others by number.

        Of the completed trials the best by the first objective comes first, and those beyond a limit come last.
        """
        trials = self.trials()
        done = [trial for trial in trials if trial["state"] == "COMPLETED"]
        others = [trial for trial in trials if trial["state"] != "COMPLETED"]
        return sorted(done, key=_rank(self.objectives)) + others

    @property
    def state(self) -> str:
        """RUNNING, FINISHED or INTERRUPTED; a study that says RUNNING but whose sweep is gone is INTERRUPTED too."""
        state = str(self.data["state"])
        return "INTERRUPTED" if state == "RUNNING" and not self.backend.is_run() else state


class Held:
    """A study that this process holds, in a form that may be part of the objects that Ray is given.

    Ray pickles these objects, and with Ray Client unpickles them in another process. The study itself is not pickled:
    the other process looks it up.
    """

    def __init__(self, study: Study) -> None:
        self.location = study.location
        self._study: Study | None = study

    @property
    def study(self) -> Study:
        """The study."""
        if self._study is None:
            study = find_study(self.location)
            plugins.receive(study)  # what is looked up here is resolved here
            self._study = study
        return self._study

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "_study": None}


def num_begun(trials: Iterable[Mapping[str, Any]]) -> int:
    """How many trials of a study were begun, which give each other their numbers; those that were lost count too."""
    return 1 + max((int(trial["number"]) for trial in trials), default=-1)


def trial_name(number: int) -> str:
    """The identifier of a trial: its number in the study, which no restart changes."""
    return f"{number:05d}"


def trial_dir(study: Path, number: int) -> Path:
    """The folder of a trial."""
    return study / "trials" / trial_name(number)


def find_study(argument: str | Path, storage: str | Path = "runs") -> Study:
    """Find a study by its folder or URI, or by its name below `storage`, which is a folder or URI too.

    Raises:
        UserError: there is no such study (the message lists those that there are), or the store cannot be used.
    """
    places = meant(argument, storage)
    for place in places:
        if (study := _opened(place)) is not None:
            return study
    place = places[0 if len(Path(argument).parts) > 1 else -1]  # of a path, the folder that it names
    names = ", ".join(study.name for study in list_studies(place.storage)) or "none"
    raise UserError(f"no study {place.name!r}: not a study's folder, and not in {place.storage!r} (studies: {names})")


def _opened(place: Folder) -> Study | None:
    """The study that is at a place, if there is one."""
    place.pull()
    return _load(place) if (place.folder / "study.json").is_file() else None


def _load(place: Folder) -> Study:
    data = read_study_file(place.folder)
    return Study(place, data | _own_database(place.folder, data))


def _own_database(path: Path, data: Mapping[str, Any]) -> dict[str, str]:
    """A database of MLflow in the study's folder moves with the folder; a database that the user named stays."""
    named = data["config"].get("tracking", {}).get("uri", "")
    return {"tracking_uri": sqlite_uri.uri_of(path / "mlflow.db")} if named is None else {}


def _listed(place: Folder) -> Study | None:
    """A study for a list. A study that cannot be read has the state DAMAGED, and its `damage` says what is wrong."""
    try:
        return _opened(place)
    except StoreError:
        raise
    except UserError as error:
        data = {"name": place.name, "created": "", "state": "DAMAGED", "objectives": [], "damage": str(error)}
        return Study(place, data)


def trial_study(location: str, number: int, scratch: Path) -> Study:
    """A study for the process of one trial.

    Args:
        location: the study's folder or URI.
        number: the number of the trial.
        scratch: folder for a copy of the trial's own files, if the study is in an object store.

    Raises:
        UserError: there is no such study, or the store cannot be used.
    """
    return _load(backend_of(location).for_trial(f"trials/{trial_name(number)}", scratch))


def list_studies(storage: str | Path = "runs") -> list[Study]:
    """All studies in a storage folder or below a URI: first those that are DAMAGED, then the others, oldest first.

    Raises:
        UserError: the store cannot be used.
    """
    found = (_listed(place) for place in backend_of(storage).studies())
    studies = [study for study in found if study is not None]
    return sorted(studies, key=lambda study: (study.data["created"], study.name))


def check_journal(path: Path) -> None:
    """Check that Optuna can read its journal. Half a last line does not count: it is cut off when Optuna opens it.

    Raises:
        UserError: a line is damaged.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            whole = "op_code" in json.loads(line)
        except (ValueError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise UserError(
                f"{path} is damaged in line {number}: `{ddarts('rebuild', path.parent, '--optuna')}` makes it again"
            )


def utc_now() -> str:
    """The time now as ISO 8601 with microseconds, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def best_of(trials: Sequence[Mapping[str, Any]], objectives: Sequence[tuple[str, str]]) -> Mapping[str, Any] | None:
    """The completed trial that is best by the first objective; trials within the limits come first. None if none is."""
    done = (trial for trial in trials if trial["state"] == "COMPLETED")
    return min(done, key=_rank(objectives), default=None)


def _rank(objectives: Sequence[tuple[str, str]]) -> Callable[[Mapping[str, Any]], tuple[bool, float, int]]:
    """The key that completed trials are sorted by, the best first."""
    metric, mode = objectives[0]
    sign = -1 if mode == "max" else 1
    return lambda trial: (bool(trial.get("beyond")), sign * trial["objectives"][metric], trial["number"])


WEIGHTS = "weights.pt"
"""The file with the weights of a trial's derived network after its own short training. Only the file of the best trial
is kept (`keep_best_weights`)."""


def keep_best_weights(study: Study) -> None:
    """Delete the weights of completed trials that are not the best by the first objective."""
    there = [read_trial_file(file.parent) for file in study.path.glob(f"trials/*/{WEIGHTS}")]
    best = best_of(there, study.objectives)
    for trial in there:
        if trial["state"] == "COMPLETED" and trial is not best:
            folder = trial_dir(study.path, trial["number"])
            (folder / WEIGHTS).unlink(missing_ok=True)
            study.push(f"trials/{folder.name}")


def end_of(trial: Mapping[str, Any]) -> datetime.datetime:
    """When a trial ended, by its record.

    An older record does not say it: then it is the trial's begin plus the time that its epochs took.
    """
    if trial.get("ended"):
        return datetime.datetime.fromisoformat(trial["ended"])
    return datetime.datetime.fromisoformat(trial["begun"]) + datetime.timedelta(seconds=trial["seconds"])


@contextlib.contextmanager
def hold(study: Study, journal: bool = True) -> Iterator[Study]:
    """Hold a study while its sweep runs, against other processes and, in an object store, other machines.

    Args:
        study: the study to hold.
        journal: whether to check that Optuna's journal is not damaged.

    Yields:
        The study as it is now, in the folder in which it is to be run.

    Raises:
        UserError: another process runs the study, or its journal is damaged.
    """
    with study.backend.hold() as place:
        if journal:
            check_journal(place.folder / "optuna.log")
        yield _load(place)
