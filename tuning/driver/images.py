"""The images of a study that exists: whether they are there, whether they are the same, and where they are now."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from ddarts_core.data.sets import DATASETS, OwnImages, data_facts, load_train, settings_of
from ddarts_core.datasets import facts
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import set_path
from ddarts_core.settings.config import resolve

from ..settings.config import SweepConfig
from ..store.study import Study, trial_dir
from ..trial.fine_tuning import check_score

_log = logging.getLogger(__name__)


def check_images(study: Study, config: SweepConfig, address: str | None = None) -> None:
    """Check that the images of a study are there, and that a user's own are those that it was begun with.

    Images are compared if the study's trials have the same settings still. If the images are on the machines of a
    cluster only, the trials check them there. A study without `data.json` gets what a trial with the same settings
    knows of its images; if none does, the images of now, and a warning says so.

    Args:
        study: the study.
        config: the settings of the trials.
        address: the address of the Ray cluster that trials run on; None stands for this machine.

    Raises:
        UserError: the images are missing, have changed, or are broken.
    """
    if "data.root" in config.space:
        return
    root, settings = Path(config.data.root).expanduser(), settings_of(config.data)
    own = isinstance(DATASETS.get(config.data.name), OwnImages)
    begun = facts.read_facts(study.path) or _known_to_trials(study, settings)
    known = begun is not None and begun.get("settings") == settings
    if own and not known and _moved(study, config):
        raise UserError(
            f"study {study.name!r} exists with another data.root ({study.data['config']['data']['root']} there, {root} "
            f"now), and nothing tells whether the images are the same: start another study with --new or --set name=..."
        )
    if address is not None and not (own and root.exists()):
        return
    if own and not root.exists():
        raise UserError(
            f"the images of study {study.name!r} are not in {str(root)!r}: put them back, or go on with `ddarts sweep "
            "FILE --set data.root=FOLDER` where they are now"
        )
    info, images = load_train(config.data)
    if address is None:
        check_score(config.tune.objective, config.transfer, config.retrain, info)
    today = data_facts(config.data, info, images)
    if begun is None and own:
        _know(study, today | {"settings": settings})
        _log.warning(
            "study %r had no %s: it has one of the images of now, and nobody knows whether these are those that it "
            "was begun with",
            *(study.name, facts.FILE),
        )
    if known:
        facts.check_unchanged(study.path, today, f"study {study.name!r}")


def _moved(study: Study, config: SweepConfig) -> bool:
    """Whether the images of a study are in another place now, where its trials have all the same ones."""
    stored = study.data["config"]
    was, now = (os.path.abspath(os.path.expanduser(root)) for root in (stored["data"]["root"], config.data.root))
    return was != now and "data.root" not in {*stored["space"], *config.space}


def settle_images(study: Study, config: SweepConfig) -> Study:
    """Let a held study and its trials that have not completed have the place where their images are now.

    Args:
        study: the study.
        config: a configuration whose images are those of the study, see `check_images`.
    """
    if not _moved(study, config):
        return study
    root = config.data.root
    for trial in study.trials():
        if trial["state"] in ("RUNNING", "FAILED") and "data.root" not in trial["params"]:
            study.change_trial(trial["number"], config=set_path(trial["config"], "data.root", root))
    return study.update(**{key: set_path(study.data[key], "data.root", root) for key in ("base", "config")})


def _known_to_trials(study: Study, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Let a study have the facts that the first trial with these settings of the data keeps; None if none keeps any."""
    for trial in study.trials():
        known = facts.read_facts(trial_dir(study.path, trial["number"]))
        if known and "data.root" not in trial["params"] and settings_of(resolve(trial["config"]).data) == settings:
            return _know(study, known | {"settings": settings})
    return None


def _know(study: Study, content: dict[str, Any]) -> dict[str, Any]:
    facts.write_facts(study.path, content)
    study.push(facts.FILE)
    return content
