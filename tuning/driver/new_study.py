"""Begin a study: its folder or first object, and its run in MLflow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import command_line, without_secrets
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.provenance import git_commit, versions
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import SCHEMA_VERSION, write_json

from ..cluster.versions import own_version
from ..settings.config import SweepConfig
from ..settings.space import base_settings
from ..store.locks import is_locked, lock
from ..store.mirror import Mirror, is_uri, run_folder
from ..store.study import Study, has_study, utc_now
from ..tracking import study_run as tracking
from ..tracking.database import UNFINISHED

BEGUN = {".lock", ".workers", "trials", "mlartifacts"} | {f"mlflow.db{end}" for end in ("", "-journal", "-wal", "-shm")}
"""What a sweep that was killed before study.json leaves."""


def check_folder(path: Path) -> None:
    """Check that a new study would be alone in a folder.

    Raises:
        UserError: it is a file, or holds what is not a study's, or another process is just making a study there.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give a study another folder with --out or --set name=...")
    if is_locked(path) and not (path / "study.json").exists():
        raise UserError(
            f"another sweep is creating study {path.name!r} at this moment: wait until it has begun, or choose another "
            "name with --set name=..."
        )
    others = sorted(f.name for f in path.glob("*") if f.name not in BEGUN and not f.name.startswith(UNFINISHED))
    if others and not (path / "study.json").exists():
        raise UserError(
            f"{path} holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''} and no study: give the study a "
            "folder of its own with --out or --set name=..."
        )


def exists_already(location: str) -> UserError:
    """What to say when a new study has the name of one that exists."""
    storage, _, name = location.rpartition("/")
    return UserError(
        f"study {name!r} exists already in {storage}: go on with `{ddarts('resume', location)}`, "
        "add trials with `ddarts sweep FILE`, or choose another name with --set name=..."
    )


def new_study(config: SweepConfig) -> Study:
    """The study's folder and its run in MLflow, or nothing at all.

    Raises:
        UserError: another process makes it at this moment or has made it, the folder holds something else, or the
            tracking store cannot be used.
    """
    path, new = config.study_dir, not config.study_dir.exists()
    if is_uri(config.study_location):  # the store sees to it that there is one
        return _begin_in(config)
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the study's folder {path}: {error.strerror or error}") from error
    try:
        with lock(path):
            if has_study(config.study_location):
                raise exists_already(config.study_location)
            return _begin_in(config)
    except BaseException:
        if new and not has_study(config.study_location):
            shutil.rmtree(path, ignore_errors=True)
        raise


def _begin_in(config: SweepConfig) -> Study:
    """In a folder that this process holds; what is stored of a tracking URI has no secrets in it."""
    path, location = config.study_dir, config.study_location
    full = tracking.tracking_uri(config.tracking.uri, path)
    shown = without_secrets(full)
    if shown != full:
        os.environ[tracking.OWN_VARIABLE] = full
    config = config.shown
    stored = config.model_dump(mode="json")
    known = {
        "command": command_line(),
        "seed": config.seed,
        "config": stored,
        "base": base_settings(config),
        "config_hash": config_hash(config),
        "git_commit": git_commit(),
        "versions": versions(),
        "plugins": plugins.records(),
        "tracking_uri": shown,
    }
    experiment_id, run_id = tracking.start_study(
        full,
        config.tracking.experiment or config.name,
        config.name,
        tracking.study_tags(config.name, known),
        tracking.flat_params({key: value for key, value in stored.items() if key != "tracking"}),
    )
    try:
        return create_study(
            location,
            {
                **known,
                "experiment_id": experiment_id,
                "parent_run_id": run_id,
                "objectives": [{"metric": metric, "mode": mode} for metric, mode in config.tune.objectives],
                "rounds": [{"num_samples": config.tune.num_samples, "points_to_evaluate": []}],
                "state": "RUNNING",
            },
        )
    except BaseException:
        tracking.delete_run(shown, run_id)  # it would be RUNNING for ever
        raise


def create_study(location: str | Path, data: Mapping[str, Any]) -> Study:
    """Make the folder of a new study, or its copy and the first object below its URI.

    Raises:
        UserError: there is a study already, or something else that is in the way.
    """
    path = run_folder(str(location))
    mirror = None
    if is_uri(str(location)):
        shutil.rmtree(path, ignore_errors=True)  # what is left of one of the same name that was deleted in the store
        mirror = Mirror(str(location), path)
    if (path / "study.json").exists():
        raise exists_already(str(location))
    try:
        (path / "trials").mkdir(parents=True, exist_ok=True)
        begun = {"schema": SCHEMA_VERSION, "name": path.name, "created": utc_now(), "code": own_version()}
        study = Study(path, {**begun, **data}, mirror)
        write_json(path / "study.json", study.data)
        if mirror is not None:
            mirror.write("study.json", (path / "study.json").read_bytes(), new=True)
    except FileExistsError:
        raise exists_already(str(location)) from None
    except OSError as error:
        raise UserError(f"cannot write the study's folder {path}: {error.strerror or error}") from error
    return study
