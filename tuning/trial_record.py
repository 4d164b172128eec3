"""trial.json of a trial that begins, as its process writes it, or the driver if no process could be set up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddarts_core.config import ExperimentConfig, config_hash
from ddarts_core.errors import UserError

from .space import trial_config
from .study import SCHEMA_VERSION, trial_name, utc_now


def resolved(base: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[ExperimentConfig, str | None]:
    """A trial's configuration and None; the study's own and the reason if the drawn parameters contradict each other.

    Args:
        base: the study's settings.
        params: drawn, by dotted path.
    """
    try:
        return trial_config(base, params), None
    except UserError as error:
        return trial_config(base, {}), str(error)


def new_record(number: int, params: Mapping[str, Any], ray_trial_id: str, config: ExperimentConfig) -> dict[str, Any]:
    """What is known of a trial before its first epoch."""
    return {
        "schema": SCHEMA_VERSION,
        "trial_id": trial_name(number),
        "ray_trial_id": ray_trial_id,
        "number": number,
        "params": dict(params),
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "seed": config.seed,
        "begun": utc_now(),
        "run_id": None,
        "state": "RUNNING",
        "reason": None,
        "objectives": None,
        "genotype_hash": None,
        "cost": None,
        "derived": None,
        "seconds": 0.0,
    }
