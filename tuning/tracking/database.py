"""Make a new database of MLflow at once. MLflow itself would take seconds, since it goes through all table versions.

MLflow makes such a database once on a machine, for each version of MLflow. This database is kept without contents, and
copied for every study. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from ddarts_core.datasets import cache
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_with
from ddarts_core.studies import sqlite_uri

from ..store.backend import UNFINISHED


def make_database(uri: str) -> None:
    """Put a database without contents at the place of a URI, if the URI names a file that does not exist.

    If this fails, MLflow makes the database later, or says why it cannot.
    """
    file = sqlite_uri.file_of(uri)
    if file is None or file.exists():
        return
    with (
        contextlib.suppress(OSError, UserError),
        tempfile.TemporaryDirectory(dir=_folder(file), prefix=UNFINISHED) as folder,
    ):
        copy = Path(folder) / "mlflow.db"
        shutil.copyfile(kept(), copy)
        os.link(copy, file)  # of two processes at a time one is the first


def _folder(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.parent


def kept() -> Path:
    """The database that is copied. It is made if there is none of this version of MLflow.

    Raises:
        OSError, UserError: the database cannot be kept.
    """
    import mlflow

    path = cache.folder().parent / f"mlflow-{mlflow.__version__}.db"
    if not path.exists():
        write_with(path, _make)
    return path


def _make(name: str) -> None:
    """Let MLflow make the database that is kept, without the experiment `Default`.

    This experiment names a place of artifacts. MLflow adds it to each copy.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(sqlite_uri.uri_of(Path(name)), name)  # type: ignore[no-untyped-call]  # mlflow
    store.engine.dispose()
    with contextlib.closing(sqlite3.connect(name)) as database, database:
        database.execute("DELETE FROM experiments")
