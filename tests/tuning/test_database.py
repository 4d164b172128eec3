"""A study's database is a copy of one that MLflow made on this machine."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.tracking.database import kept, make_database


def tables(file: Path) -> set[tuple[str, ...]]:
    """Each table's name and the words that make it, sorted: MLflow takes a column's allowed words from a set."""
    with sqlite3.connect(file) as database:
        found = database.execute("SELECT name, sql FROM sqlite_master").fetchall()
    return {(name, *sorted(re.findall(r"\w+", sql or ""))) for name, sql in found}


def test_a_study_has_the_tables_that_mlflow_made_before_and_places_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be kept MLflow makes them: they are the same."""

    def never(engine: object) -> None:
        raise AssertionError("the tables are made again")

    files = [tmp_path / name / "mlflow.db" for name in ("copied", "made")]
    kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlflow.store.db.utils._initialize_tables", never)
        tracking.start_study(f"sqlite:///{files[0]}", "mine", "study", {}, {})
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    tracking.start_study(f"sqlite:///{files[1]}", "mine", "study", {}, {})
    assert tables(files[0]) == tables(files[1]) != set()
    for file in files:
        client = tracking.make_client(f"sqlite:///{file}")
        assert [found.name for found in client.search_experiments(order_by=["experiment_id"])] == ["Default", "mine"]
        assert client.get_experiment_by_name("mine").artifact_location == (file.parent / "mlartifacts").as_uri()
        assert not list(file.parent.glob(".*")), "nothing of the copying is left"


def test_a_database_that_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_text("mine")
    make_database(f"sqlite:///{file}")
    assert file.read_text() == "mine"
