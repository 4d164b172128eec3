"""A study whose folder was moved or copied goes on where it is now, and writes nothing where it was.

Ray's state names the study's place again and again, in strings of pickles and of JSON with pickles in it: the
searcher's journal, the callback's study, each trial's settings, the checkpoints. All of these are replaced before Ray
reads them. MLflow's database, where it is the study's own, names the place of the artifacts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import pickletools
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddarts_core import sqlite_uri
from ddarts_core.errors import UserError
from ddarts_core.files import write_atomic
from ddarts_core.redact import without_secrets

from .mirror import StoreError, filesystem, is_uri
from .snapshots import kept
from .study import Study, find_study, has_study
from .tracking import artifact_location


def settle_in(study: Study) -> None:
    """Before a study is run.

    Raises:
        UserError: it is a copy, and MLflow has the runs of both at the same place.
    """
    place_artifacts(study)
    original = None if _has_database(study) else _origin(study)
    if original is not None and _is_copy(study, original):
        raise UserError(
            f"study {study.location} is a copy of {original} and would write into that one's runs in MLflow at "
            f"{without_secrets(study.data['tracking_uri'])}: go on with {original}, or remove it first"
        )


def place_artifacts(study: Study) -> None:
    """Let the study's own database, if it has one, name artifacts where they are now."""
    if _has_database(study):
        location = artifact_location(study.data["tracking_uri"])
        move_artifacts(study.path / "mlflow.db", study.data["experiment_id"], str(location))


def _has_database(study: Study) -> bool:
    return bool(study.data["tracking_uri"] == sqlite_uri.uri_of(study.path / "mlflow.db"))


def _origin(study: Study) -> str | None:
    """Where Ray ran the study last, as far as it has noted it."""
    for entry in reversed(study.rounds):
        folder = study.path / entry["folder"]
        for state in (*reversed(kept(folder)), folder):
            if (state / "tuner.pkl").is_file():
                return location_in(state)
    return None


def _is_copy(study: Study, original: str) -> bool:
    if original == study.location or (not is_uri(original) and _is_same(Path(original), study.path)):
        return False
    with contextlib.suppress(StoreError):  # a bucket that is gone has no study
        run = study.data["parent_run_id"]
        return has_study(original) and find_study(original).data["parent_run_id"] == run
    return False


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and os.path.samefile(one, other)


# --- Ray ------------------------------------------------------------------------------------------------------------


def location_in(state: Path) -> str:
    """The study's location in a state of Ray: that of the callback (see callback.py). Nothing is unpickled."""
    strings = _strings((state / "tuner.pkl").read_bytes())
    return next(value for name, value in itertools.pairwise(strings) if name == "_location")


def _strings(data: bytes) -> Iterator[str]:
    """The strings of a pickle in their order, also those that it names by a number because they came before."""
    memory: list[str | None] = []
    last: str | None = None
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "MEMOIZE":
            memory.append(last)
            continue
        last = None
        if "UNICODE" in operation.name:
            last = str(argument)
        elif operation.name in ("BINGET", "LONG_BINGET"):
            last = memory[int(str(argument))]
        if last is not None:
            yield last


def move_state(folder: Path, location: str) -> None:
    """Make a state of Ray that of a study at a location.

    Args:
        folder: of the state.
        location: the study's folder or URI.
    """
    before = location_in(folder)
    if before == location:
        return
    places = {before: location}
    if is_uri(location):
        places[filesystem(before)[1]] = filesystem(location)[1]
    # The one that says where the state belongs comes last: until then it is moved once more after a kill.
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.pkl")], key=lambda file: file.name == "tuner.pkl"):
        data = file.read_bytes()
        write_atomic(file, moved_pickle(data, places) if data.startswith(pickle.PROTO) else moved_json(data, places))


def moved_pickle(data: bytes, places: Mapping[str, str]) -> bytes:
    """A pickle with the strings replaced that are one of some places, or lie below one."""
    parts, operations = [], list(pickletools.genops(data))
    ends = [*(position for _, _, position in operations[1:]), len(data)]
    for (operation, argument, begin), end in zip(operations, ends, strict=True):
        if operation.name == "FRAME":
            continue  # its length would be wrong, and a pickle needs none
        if "UNICODE" in operation.name and (text := _moved(str(argument), places)) != argument:
            encoded = text.encode("utf-8", "surrogatepass")
            parts.append(pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded)
        else:
            parts.append(data[begin:end])
    return b"".join(parts)


def moved_json(data: bytes, places: Mapping[str, str]) -> bytes:
    """Ray's JSON, in which each trial is JSON in a string, likewise."""
    state = json.loads(data)
    trials = [
        [json.dumps(_moved_value(json.loads(text), places)) for text in trial] for trial in state.get("trial_data", [])
    ]
    return json.dumps({**_moved_value(state, places), "trial_data": trials}).encode()


def _moved_value(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        if value.get("_type") == "CLOUDPICKLE_FALLBACK":
            return {**value, "value": moved_pickle(bytes.fromhex(value["value"]), places).hex()}
        return {key: _moved_value(entry, places) for key, entry in value.items()}
    if isinstance(value, list):
        return [_moved_value(entry, places) for entry in value]
    return _moved(value, places) if isinstance(value, str) else value


def _moved(text: str, places: Mapping[str, str]) -> str:
    for before, after in places.items():
        if text == before or text.startswith(f"{before}/"):
            return after + text.removeprefix(before)
    return text


# --- MLflow ---------------------------------------------------------------------------------------------------------

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database names the place of an artifact: tables and columns."""


def move_artifacts(database: Path, experiment_id: str, location: str) -> None:
    """Let a database name artifacts where they are now.

    Args:
        database: of MLflow; nothing is done if there is none.
        experiment_id: whose place of artifacts is that of all.
        location: where it is, as URI.
    """
    if not database.is_file():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        query = "SELECT artifact_location FROM experiments WHERE experiment_id = ?"
        [[before]] = connection.execute(query, (experiment_id,))
        if before == location:
            return
        for table, column in LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = :after || substr({column}, length(:before) + 1) "
                f"WHERE {column} = :before OR substr({column}, 1, length(:before) + 1) = :before || '/'",
                {"before": before, "after": location},
            )
