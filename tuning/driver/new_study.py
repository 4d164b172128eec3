"""Begin a study: make its folder, or its first object in a store, and its run in MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddarts_core.datasets import facts
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import command_line, without_secrets
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.provenance import git_commit, versions
from ddarts_core.studies.study_files import SCHEMA_VERSION

from ..cluster.versions import own_version
from ..settings.config import SweepConfig
from ..settings.space import base_settings
from ..store.backend import Folder, backend_of
from ..store.study import Study, utc_now
from ..tracking import study_run as tracking


def new_study(config: SweepConfig, content: Mapping[str, Any] | None = None) -> Study:
    """Make the study's folder and its run in MLflow; if one of them cannot be made, nothing is left of the other.

    Args:
        config: the configuration of the sweep.
        content: the facts of the images for `data.json`, which is there before there is a study.

    Raises:
        UserError: another process makes the study at this moment or has made it, the folder holds something else, or
            the tracking store cannot be used.
    """
    with config.place.begin() as place:
        if content is not None:
            facts.write_facts(place.folder, content)
        return _begin_in(place, config)


def _begin_in(place: Folder, config: SweepConfig) -> Study:
    """Begin a study at a place where no other process begins one. The secrets of a tracking URI are not stored."""
    full = tracking.tracking_uri(config.tracking.uri, place.folder)
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
            place,
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


def create_study(location: str | Path | Folder, data: Mapping[str, Any]) -> Study:
    """Make the folder of a new study or, for a URI, the local copy of the study and the first object below the URI.

    Raises:
        UserError: a study, or something else, is already at this place.
    """
    place = backend_of(location)
    begun = {"schema": SCHEMA_VERSION, "name": place.name, "created": utc_now(), "code": own_version()}
    study = Study(place, {**begun, **data})
    try:
        (place.folder / "trials").mkdir(parents=True, exist_ok=True)
        place.publish(study.data)
    except OSError as error:
        raise UserError(f"cannot write the study's folder {place.folder}: {error.strerror or error}") from error
    return study
