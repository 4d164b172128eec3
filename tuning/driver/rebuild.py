"""The copies of what is in a study's folder are made again: Optuna's journal, and the runs in MLflow.

The folder is the truth. So nothing is lost when MLflow's store has lost the study, or when its database is damaged:
the study gets a new run there, and every trial is sent again.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from ddarts_core.ground.redact import without_secrets
from ddarts_core.studies import sqlite_uri
from ddarts_core.studies.study_files import ENDED

from ..searchers.journal import JOURNAL, Journal
from ..settings.reread import as_today
from ..store.study import Study, hold
from ..tracking import study_run as tracking
from ..tracking.overview import show_study
from .callback import track_rest
from .moving import settle_in

_log = logging.getLogger(__name__)


def ensure_tracked(study: Study) -> Study:
    """Make a new run of a held study if MLflow's store has lost the run, and forget the runs of the study's trials.

    First the study settles in where its folder is now, see moving.py. A database in the study's folder that is damaged
    or not whole is set aside. If the store does not answer, nothing is done for now. A warning says what was done.

    Returns:
        The study, which may now have another run.

    Raises:
        UserError: the store cannot be used, somebody deleted the run there on purpose, or the study is a copy that
            would write into the runs of the original.
    """
    settle_in(study)
    uri = str(study.data["tracking_uri"])
    own = study.path / "mlflow.db"
    is_own = uri == sqlite_uri.uri_of(own)
    if is_own and own.is_file() and is_damaged(own):
        aside = _set_aside(own)
        lost = f"{own} is damaged: it is kept as {aside.name}, and made again from the study's folder"
    elif is_own and not own.exists():
        lost = f"{own} is gone: it is made again from the study's folder"
    elif tracking.is_there(study):
        return study
    else:
        lost = f"MLflow at {without_secrets(uri)} has the study no more: it gets all of it again"
    _log.warning("%s", lost)
    return track_anew(study)


def track_anew(study: Study) -> Study:
    """Make a new run of a held study in MLflow, and forget the earlier runs of the study and of its trials.

    Raises:
        UserError: the store cannot be used.
    """
    stored = study.data["config"]
    experiment_id, run_id = tracking.start_study(
        tracking.with_secrets(str(study.data["tracking_uri"])),
        stored["tracking"]["experiment"] or study.name,
        study.name,
        tracking.study_tags(study.name, study.data),
        tracking.flat_params({key: value for key, value in stored.items() if key != "tracking"}),
    )
    for trial in study.trials():
        study.change_trial(trial["number"], run_id=None, tracked=False)
    return study.update(experiment_id=experiment_id, parent_run_id=run_id)


def rebuild_journal(found: Study) -> int:
    """Make Optuna's journal of a study anew from the study's folder. Returns how many trials the journal has.

    Raises:
        UserError: a process runs the study.
    """
    with hold(found, journal=False) as study:
        (study.path / JOURNAL).unlink(missing_ok=True)
        Journal(study)
        study.push(JOURNAL)
        ended = [trial for trial in study.trials() if trial["state"] in ENDED]
        return sum(as_today(study.data, trial) is not None for trial in ended)


def rebuild_runs(found: Study, draw: tracking.Draw | None) -> tuple[int, int]:
    """Give MLflow what it lacks of a study, and send nothing that it has already.

    Returns:
        How many trials that ended MLflow has now, and how many it did not take.

    Raises:
        UserError: a process runs the study, the store cannot be used, or the study is a copy that would write into the
            runs of the original.
    """
    with hold(found, journal=False) as study:
        study = ensure_tracked(study)
        for trial in study.trials():
            study.change_trial(trial["number"], tracked=False)
        missing = track_rest(study, draw)
        show_study(study, "FINISHED" if study.data["state"] == "FINISHED" else "KILLED")
        return sum(trial["state"] in ENDED for trial in study.trials()) - missing, missing


def is_damaged(database: Path) -> bool:
    """Whether a file is not a whole database of MLflow. A file that cannot be opened now does not count as damaged."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            [[found], *_] = connection.execute("PRAGMA quick_check(1)")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            whole = {"alembic_version", "experiments", "runs", "metrics", "params", "tags"} <= tables
            return bool(found != "ok" or not whole or not list(connection.execute("SELECT * FROM alembic_version")))
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:
        return True


def _set_aside(database: Path) -> Path:
    """Rename a database and the files that belong to it."""
    number = next(k for k in range(1, 10**6) if not database.with_name(f"mlflow-damaged-{k}.db").exists())
    aside = database.with_name(f"mlflow-damaged-{number}.db")
    for ending in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + ending).rename(aside.with_name(aside.name + ending))
    return aside
