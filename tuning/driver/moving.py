"""A study whose folder was moved or copied goes on where the folder is now, and writes nothing at the earlier place.

Only two files of a study name the study's place. study.json says where the study was run last (`place`), so that a copy
can be recognised as a copy. MLflow's database names the place of the artifacts, if the database lies in the study's
folder.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import without_secrets
from ddarts_core.studies import sqlite_uri

from ..store.backend import backend_of
from ..store.mirror import StoreError
from ..store.study import Study, find_study
from ..tracking.study_run import artifact_location


def settle_in(study: Study) -> None:
    """Make a study ready to run at the place where its folder is now.

    Raises:
        UserError: the study is a copy, and MLflow keeps the runs of the copy and of the original at the same place.
    """
    place_artifacts(study)
    original = None if _has_database(study) else study.data.get("place")
    if original is not None and _is_copy(study, original):
        raise UserError(
            f"study {study.location} is a copy of {original} and would write into that one's runs in MLflow at "
            f"{without_secrets(study.data['tracking_uri'])}: go on with {original}, or remove it first"
        )


def place_artifacts(study: Study) -> None:
    """Make the study's own database, if it has one, name the place where the artifacts are now."""
    if _has_database(study):
        location = artifact_location(study.data["tracking_uri"])
        move_artifacts(study.path / "mlflow.db", study.data["experiment_id"], str(location))


def _has_database(study: Study) -> bool:
    return bool(study.data["tracking_uri"] == sqlite_uri.uri_of(study.path / "mlflow.db"))


def _is_copy(study: Study, original: str) -> bool:
    before = backend_of(original)
    with contextlib.suppress(StoreError):  # a bucket that is gone has no study
        if not before.is_same(study.backend) and before.exists():
            return bool(find_study(original).data["parent_run_id"] == study.data["parent_run_id"])
    return False


# --- MLflow ---------------------------------------------------------------------------------------------------------

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The tables and columns in which MLflow's database names the place of an artifact."""


def move_artifacts(database: Path, experiment_id: str, location: str) -> None:
    """Make a database name the place where the artifacts are now.

    Args:
        database: the file of MLflow's database. Nothing is done if the file does not exist, is damaged, or does not
            have the experiment: such a database is made again before anything is written to it (see rebuild.py).
        experiment_id: the identifier of the experiment, whose place of artifacts holds those of all its runs.
        location: the place where the artifacts are now, as a URI.
    """
    if not database.is_file():
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(database, timeout=30)) as connection,
        connection,
    ):
        query = "SELECT artifact_location FROM experiments WHERE experiment_id = ?"
        found = [before for (before,) in connection.execute(query, (experiment_id,))]
        if found in ([], [location]):
            return
        [before] = found
        for table, column in LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = :after || substr({column}, length(:before) + 1) "
                f"WHERE {column} = :before OR substr({column}, 1, length(:before) + 1) = :before || '/'",
                {"before": before, "after": location},
            )
