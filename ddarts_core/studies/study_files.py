"""The files study.json and trial.json: their fields, their readers and one writer.

A sweep writes these files, and all other programs read them through this module.

Torch-free.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..ground.errors import UserError
from ..ground.files import write_atomic
from ..ground.nested import get_path

#: Version of the two files.
SCHEMA_VERSION = 1

TRIAL_STATES = ("RUNNING", "COMPLETED", "PRUNED", "FAILED")
#: Objective of trials that are scored on another task.
TRANSFER_OBJECTIVE = "transfer/held_out/box_ap"

#: States that stay.
ENDED = ("COMPLETED", "PRUNED", "FAILED")

#: What every study.json has, by its dotted path, and its type.
STUDY_FIELDS = {
    "name": str,
    "created": str,
    "state": str,
    "objectives": list,
    "config": dict,
    "config.tune": dict,
    "config.tune.num_samples": int,
    "config.tune.objective": str,
    "base": dict,
}
#: What every trial.json has, by its dotted path, and its type.
TRIAL_FIELDS = {
    "trial_id": str,
    "number": int,
    "state": str,
    "params": dict,
    "config": dict,
    "objectives": dict | None,
    "cost": dict | None,
    "reason": str | None,
    "seconds": int | float,
}
#: Fields of trial.json in which every value is a number, also within groups.
NUMBERS = ("objectives", "cost", "derived", "baseline", "transfer")


def read_study_file(folder: Path) -> dict[str, Any]:
    """Read the content of `study.json` in the folder of a study.

    Raises:
        UserError: the file is missing, damaged or of another version.
    """
    return _read(folder / "study.json", STUDY_FIELDS)


def read_trial_file(folder: Path, objectives: Iterable[str] = ()) -> dict[str, Any]:
    """Read the content of `trial.json` in the folder of a trial.

    Args:
        folder: the folder of the trial.
        objectives: the metrics for which a completed trial must have a value.

    Raises:
        UserError: the file is missing, damaged or of another version.
    """
    path = folder / "trial.json"
    trial = _read(path, TRIAL_FIELDS)
    if trial["state"] not in TRIAL_STATES:
        raise _damaged(path, f"state {trial['state']!r} is none of {', '.join(TRIAL_STATES)}")
    for name in NUMBERS:
        if (other := _no_number(trial.get(name))) is not None:
            raise _damaged(path, f"{name!r} holds {other!r}, which is no number")
    lacking = [metric for metric in objectives if metric not in (trial["objectives"] or {})]
    if trial["state"] == "COMPLETED" and lacking:
        raise _damaged(path, f"the trial is completed and its objectives lack {lacking[0]!r}")
    return trial


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole, never a part of it."""
    write_atomic(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold a JSON object")
    return data


def _read(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    data = read_json(path)
    if data.get("schema") != SCHEMA_VERSION:
        raise UserError(f"{path} has schema {data.get('schema')!r}: this version reads {SCHEMA_VERSION}")
    for name, kind in fields.items():
        try:
            value = get_path(data, name)
        except KeyError as error:
            raise _damaged(path, f"it lacks {name!r}") from error
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", str(kind))
            raise _damaged(path, f"{name!r} is {value!r}, and should be of type {wanted}")
    return data


def _no_number(value: object) -> object | None:
    """Return a value within nested mappings that is neither a number nor null; None if there is no such value."""
    if isinstance(value, Mapping):
        return next((found for inner in value.values() if (found := _no_number(inner)) is not None), None)
    return None if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}")
