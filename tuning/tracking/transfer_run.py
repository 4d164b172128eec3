"""The MLflow run of a training on another task, written when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import hide_secrets, one_line, without_secrets
from ddarts_core.loops.records import EpochRecord

from .study_run import experiment_of, flat_params, log_params, make_client, with_secrets

#: Experiment that the runs belong to.
EXPERIMENT = "transfer"


def log_transfer(
    uri: str,
    name: str,
    config: Mapping[str, Any],
    genotype: Genotype,
    records: Iterable[EpochRecord],
    files: Iterable[Path],
) -> str:
    """Log a finished training: settings as parameters, every epoch's numbers as metrics, and files as artifacts.

    Returns the run's identifier.

    Raises:
        UserError: the store cannot be used.
    """
    client = make_client(uri)
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        experiment = experiment_of(client, EXPERIMENT, uri)
        run = str(client.create_run(experiment, run_name=name, tags={"genotype_hash": genotype.hash}).info.run_id)
        log_params(client, run, flat_params(config))
        time = 0
        for record in records:
            time += round(1000 * sum(record.seconds.values()))
            metrics = [Metric(key, value, time, record.epoch) for key, value in record.metrics.items()]
            client.log_batch(run, metrics=metrics)
        for file in files:
            client.log_artifact(run, str(file))
        client.log_dict(run, genotype.to_dict(), "genotype.json")
        client.set_terminated(run)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = one_line(hide_secrets(str(error), uri))[:200]
        raise UserError(f"cannot log to MLflow at {without_secrets(with_secrets(uri))!r}: {reason}") from error
    return run
