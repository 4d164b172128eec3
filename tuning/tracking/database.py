"""A new database of MLflow at once: MLflow itself goes through all versions of its tables for each, in seconds.

It does so once on a machine, for each of its versions. What it made is kept without contents and copied. It may be
deleted at any time.
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
    """Put a database without contents at the place of a URI, if that is a file which does not exist.

    Where that cannot be done, MLflow makes it, or says why it cannot.
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
    """The database that is copied, made if there is none of this version of MLflow.

    Raises:
        OSError, UserError: it cannot be kept.
    """
    import mlflow

    path = cache.folder().parent / f"mlflow-{mlflow.__version__}.db"
    if not path.exists():
        write_with(path, _make)
    return path


def _make(name: str) -> None:
    """Let MLflow make it, without the experiment `Default`, which has a place of artifacts and is added to a copy."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(sqlite_uri.uri_of(Path(name)), name)  # type: ignore[no-untyped-call]  # mlflow
    store.engine.dispose()
    with contextlib.closing(sqlite3.connect(name)) as database, database:
        database.execute("DELETE FROM experiments")
