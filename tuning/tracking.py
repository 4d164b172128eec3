"""MLflow: one run per study, one child run per trial; whatever MLflow cannot take now is given to it later.

Everything a trial's run holds follows from the trial's folder (trial.json, records.jsonl, genotype.json), so
`TrialRun.sync` can be called by the trial's `Sender` after every epoch, by the driver when the trial ends, and by a
resumed sweep: it asks once which epochs the run has, and sends the others. A point's time follows from the records too,
so that one that two processes send at the same moment is one row in MLflow's database. But for `start_study`, nothing
here raises because of MLflow.

Trials must find a database that is ready: `start_study` makes it before they start.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ddarts_core.errors import UserError
from ddarts_core.genotype import Genotype
from ddarts_core.records import EpochRecord, read_jsonl

from . import view
from .locks import alone
from .redact import hide_secrets, without_secrets
from .study import Study, read_json

URI_VARIABLE = "MLFLOW_TRACKING_URI"
STATUS = {"COMPLETED": "FINISHED", "PRUNED": "FINISHED", "FAILED": "FAILED", "RUNNING": "RUNNING"}
"""MLflow's status of a run by the state of the trial."""

Draw = Callable[[Genotype, Path], object]
"""Draws a genotype into a file."""

PATIENCE_S = 30.0
"""Between two attempts to reach a store that refused."""

_PARAM_LIMIT = 6000
_BATCH_LIMIT = 1000
_log = logging.getLogger(__name__)
Value = TypeVar("Value")


def quiet_mlflow() -> None:
    """Fail fast, no telemetry, no chatter; to be called before anything else of MLflow."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow  # noqa: F401  # it sets the levels of its loggers when it is imported

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def tracking_uri(configured: str | None, study: Path) -> str:
    """The URI to use: the configured one, a database file made absolute, or a database in the study's folder."""
    if configured is None:
        return f"sqlite:///{study / 'mlflow.db'}"
    prefix = "sqlite:///"
    return (
        prefix + str(Path(configured.removeprefix(prefix)).absolute()) if configured.startswith(prefix) else configured
    )


def with_secrets(stored: str) -> str:
    """The full form of a URI that was stored without its secrets: the environment's, if it names the same place."""
    full = os.environ.get(URI_VARIABLE, "")
    return full if without_secrets(full) == stored else stored


def make_client(uri: str) -> Any:
    """An MLflow client."""
    quiet_mlflow()
    from mlflow import MlflowClient

    if not uri.startswith("http"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # ten would hold a trial up for minutes; `sync` comes back by itself
    return MlflowClient(tracking_uri=with_secrets(uri))


# --- what a run holds -----------------------------------------------------------------------------------------------


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A configuration as dotted path -> text."""
    out: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out |= flat_params(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = str(value)[:_PARAM_LIMIT]
    return out


def epoch_metrics(record: EpochRecord) -> dict[str, float]:
    """The numbers of an epoch by MLflow's name, NaN included; those of a retraining begin with `retrain/`."""
    prefix = "retrain/" if record.phase == "retrain" else ""
    values = {f"{prefix}{name}": value for name, value in record.metrics.items()}
    values |= {f"contribution/cell_{cell}": value for cell, value in enumerate(record.contributions)}
    values |= {f"ablation/cell_{cell}": value for cell, value in enumerate(record.ablation)}
    values |= {f"shapley/cell_{cell}": value for cell, value in enumerate(record.shapley)}
    values |= {f"shapley_error/cell_{cell}": value for cell, value in enumerate(record.shapley_errors)}
    values |= {f"{prefix}seconds/{part}": value for part, value in record.seconds.items()}
    return {name: float(value) for name, value in values.items()}


def final_metrics(trial: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a trial that ended: objectives, derived network, parameters, multiply-adds, its own time."""
    values: dict[str, Any] = {f"derived/{name}": value for name, value in (trial["derived"] or {}).items()}
    values |= {name: value for name, value in (trial["objectives"] or {}).items() if name not in values}
    values |= trial["cost"] or {}
    values = {("final/" + name if name == "held_out/accuracy" else name): value for name, value in values.items()}
    values["final/seconds"] = trial["seconds"]
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


# --- a study's run --------------------------------------------------------------------------------------------------


def artifact_location(uri: str) -> str | None:
    """Where artifacts go: of a database file into the folder `mlartifacts` beside it, of a server where it says."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()


def start_study(
    uri: str, experiment: str, study_name: str, tags: Mapping[str, str], params: Mapping[str, str]
) -> tuple[str, str]:
    """Make the database, the experiment and the parent run; their identifiers.

    Raises:
        UserError: the tracking server or database cannot be used.
    """
    from sqlalchemy.exc import SQLAlchemyError

    client = make_client(uri)
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            experiment_id = client.create_experiment(experiment, artifact_location=artifact_location(uri))
        else:
            experiment_id = found.experiment_id
        run = client.create_run(experiment_id, run_name=study_name, tags=dict(tags))
        log_params(client, run.info.run_id, params)
        client.set_experiment_tag(experiment_id, view.TAG, view.view(params))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = hide_secrets(str(error))[:200]
        raise UserError(f"tracking.uri {without_secrets(uri)!r} cannot be used: {reason}") from error
    if uri.startswith("sqlite:///"):
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
            database.execute("PRAGMA journal_mode=WAL")
    return str(experiment_id), str(run.info.run_id)


def share_view(study: Study) -> bool:
    """Write the view of this study's columns to its experiment; whether MLflow took it.

    A study of an older version has none, and one that shares its experiment has that of the study begun last.
    """

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        params = client.get_run(study.data["parent_run_id"]).data.params
        client.set_experiment_tag(study.data["experiment_id"], view.TAG, view.view(params))

    return _attempt(call, "view of the study")


def end_study(study: Study, status: str) -> bool:
    """Set the status of the parent run; whether MLflow took it."""
    return end_run(study, study.data["parent_run_id"], status)


def attach(study: Study, files: Iterable[Path], folder: str | None = None) -> bool:
    """Log files as artifacts of the parent run, in a folder of it; whether MLflow took them."""

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        for file in files:
            client.log_artifact(study.data["parent_run_id"], str(file), folder)

    return _attempt(call, "report of the study")


def end_run(study: Study, run_id: str, status: str) -> bool:
    """Set the status of a run; whether MLflow took it."""

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        if status == "RUNNING":
            client.update_run(run_id, status)
        elif client.get_run(run_id).info.status != status:  # else it would get another end time
            client.set_terminated(run_id, status)

    return _attempt(call, "status of a run")


def log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    """Log parameters in the batches that MLflow takes."""
    from mlflow.entities import Param

    items = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def delete_run(study: Study, run_id: str) -> bool:
    """Delete a run that no trial needs; whether MLflow took it."""
    return _attempt(lambda: make_client(study.data["tracking_uri"]).delete_run(run_id), "superseded run")


def child_runs(study: Study, status: str) -> list[tuple[str, str]]:
    """The runs of trials that have a status, as far as MLflow answers: their identifiers, and those of the trials."""
    found: list[tuple[str, str]] = []

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        query = f"tags.`mlflow.parentRunId` = '{study.data['parent_run_id']}' and attributes.status = '{status}'"
        token = None
        while token != "":
            page = client.search_runs([study.data["experiment_id"]], query, page_token=token)
            found.extend((run.info.run_id, run.data.tags["trial_id"]) for run in page)
            token = page.token or ""

    _attempt(call, "search for runs")
    return found


def _attempt(call: Callable[[], object], what: str) -> bool:
    try:
        call()
    except Exception as error:  # a broken tracker, whatever is wrong with it, must not end a sweep
        _log.warning("MLflow did not take the %s: %s", what, hide_secrets(str(error))[:200])
        return False
    return True


# --- a trial's run --------------------------------------------------------------------------------------------------


class TrialRun:
    """The MLflow run of one trial, kept in step with the trial's folder.

    Args:
        study: the study; names the store, the experiment and the parent run.
        folder: the trial's folder.
        extra_tags: tags beside those of the trial's own record.
    """

    def __init__(self, study: Study, folder: Path, extra_tags: Mapping[str, str] | None = None) -> None:
        self._study = study
        self._folder = folder
        self._extra_tags = dict(extra_tags or {})
        self._client: Any = None
        self._logged: set[tuple[str, int]] | None = None
        self._begun = 0.0
        self.run_id: str | None = None

    def sync(self, records: Iterable[EpochRecord] | None = None) -> bool:
        """Send what MLflow does not have of the trial's first records, None being all; whether it has them now.

        Two processes, as those of a trial that is stopped and of the driver that ends it, take turns.
        """

        def call() -> None:
            with alone(self._folder):
                self._sync(read_jsonl(self._folder / "records.jsonl") if records is None else records)

        done = _attempt(call, f"records of trial {self._folder.name}")
        if not done:
            # A batch may have been stored although its answer was lost: ask again what the run has.
            self._logged = None
            self._client = None
        return done

    def finish(self, draw: Draw | None, artifacts: bool) -> bool:
        """Bring the run to its end: all records, final numbers, artifacts, status; whether MLflow has all now."""
        return self.sync() and _attempt(
            lambda: self._finish(draw if artifacts else None, artifacts), f"end of trial {self._folder.name}"
        )

    def _sync(self, records: Iterable[EpochRecord]) -> None:
        run_id = self._open()
        if self._logged is None:
            self._logged = self._steps(run_id)
        for keys, metrics in self._batches(records, self._logged):
            self._client.log_batch(run_id, metrics=metrics)
            self._logged |= keys

    def _batches(
        self, records: Iterable[EpochRecord], logged: set[tuple[str, int]]
    ) -> Iterator[tuple[set[tuple[str, int]], list[Any]]]:
        """What is not logged, in as few batches of whole epochs as MLflow takes."""
        from mlflow.entities import Metric

        stamp = self._begun
        keys: set[tuple[str, int]] = set()
        batch: list[Metric] = []
        for record in records:
            stamp += 1000 * sum(record.seconds.values())
            key = (_phase(record), record.epoch)
            if key in logged:
                continue
            metrics = [Metric(name, value, int(stamp), record.epoch) for name, value in epoch_metrics(record).items()]
            if len(batch) + len(metrics) > _BATCH_LIMIT:
                yield keys, batch
                keys, batch = set(), []
            keys.add(key)
            batch += metrics
        if keys:
            yield keys, batch

    def _open(self) -> str:
        """Find or make the run; a run that an earlier process left is used again."""
        if self._client is None:
            self._client = make_client(self._study.data["tracking_uri"])
        if self.run_id is not None:
            return self.run_id
        trial = read_json(self._folder / "trial.json")
        begun = datetime.datetime.fromisoformat(trial["begun"])
        self._begun = 1000 * begun.timestamp()
        experiment, parent = self._study.data["experiment_id"], self._study.data["parent_run_id"]
        found = self._client.search_runs(
            [experiment],
            f"tags.`mlflow.parentRunId` = '{parent}' and tags.trial_id = '{trial['trial_id']}'",
            max_results=1,
        )
        params = flat_params(trial["config"])
        if found:
            run_id = str(found[0].info.run_id)
            self._client.set_tag(run_id, "ray_trial_id", trial["ray_trial_id"])
            if trial["state"] == "RUNNING" and found[0].info.status != "RUNNING":
                self._client.update_run(run_id, "RUNNING")
            # The process that made it may have been killed on the way.
            params = {name: value for name, value in params.items() if name not in found[0].data.params}
        else:
            run = self._client.create_run(
                experiment, run_name=f"trial-{trial['trial_id']}", tags=self._tags(trial, str(parent))
            )
            run_id = str(run.info.run_id)
        log_params(self._client, run_id, params)
        self.run_id = run_id
        return run_id

    def _tags(self, trial: Mapping[str, Any], parent: str) -> dict[str, str]:
        versions = {f"version.{name}": version for name, version in self._study.data["versions"].items()}
        return {
            "mlflow.parentRunId": parent,
            "trial_id": trial["trial_id"],
            "ray_trial_id": trial["ray_trial_id"],
            "study": self._study.name,
            "seed": str(trial["seed"]),
            "method": trial["config"]["method"],
            "config_hash": trial["config_hash"],
            "params": json.dumps(trial["params"]),
            "git_commit": str(self._study.data["git_commit"]),
            **versions,
            **self._extra_tags,
        }

    def _steps(self, run_id: str) -> set[tuple[str, int]]:
        """Phase and epoch of what the run has."""
        steps: set[tuple[str, int]] = set()
        for phase, name in (("search", "train/loss"), ("retrain", "retrain/train/loss")):
            steps |= {(phase, metric.step) for metric in self._client.get_metric_history(run_id, name)}
        return steps

    def _finish(self, draw: Draw | None, artifacts: bool) -> None:
        from mlflow.entities import Metric, RunTag

        run_id = self._open()
        trial = read_json(self._folder / "trial.json")
        have = set(self._client.get_run(run_id).data.metrics)
        stamp = int(time.time() * 1000)
        metrics = [Metric(name, value, stamp, 0) for name, value in final_metrics(trial).items() if name not in have]
        tags = {"state": trial["state"], "reason": trial["reason"], "genotype_hash": trial["genotype_hash"]}
        tags["lineage"] = json.dumps(trial["lineage"])[:_PARAM_LIMIT] if trial.get("lineage") else None
        self._client.log_batch(
            run_id, metrics=metrics, tags=[RunTag(name, str(value)) for name, value in tags.items() if value]
        )
        if artifacts:
            self._log_artifacts(run_id, draw)
        self._client.set_terminated(run_id, STATUS[trial["state"]])

    def _log_artifacts(self, run_id: str, draw: Draw | None) -> None:
        """The records, which have the alphas that MLflow's metrics cannot hold, and the genotype with its drawing."""
        genotype, picture = self._folder / "genotype.json", self._folder / "genotype.png"
        if draw is not None and genotype.exists():
            draw(Genotype.load(genotype), picture)
        for file in (self._folder / "records.jsonl", genotype, picture):
            if file.exists():
                self._client.log_artifact(run_id, str(file))


def _phase(record: EpochRecord) -> str:
    return "retrain" if record.phase == "retrain" else "search"


class Sender:
    """Sends a trial's records from a thread of its own, so that no epoch waits for MLflow.

    What is to be sent is one item, the trial's records so far: a newer one replaces an older one that still waits, and
    `TrialRun.sync` sends whatever the run lacks. So an outage is bridged with no memory beside that of the records, and
    what a killed process did not send is sent by the one that goes on.

    Args:
        run: of the trial; used by nobody else until `close`.
    """

    def __init__(self, run: TrialRun) -> None:
        self._run = run
        self._change = threading.Condition()
        self._waiting: tuple[EpochRecord, ...] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The run's identifier, once MLflow has it."""
        return self._run.run_id

    def send(self, records: Iterable[EpochRecord]) -> None:
        """Send these, soon."""
        with self._change:
            self._waiting = tuple(records)
            self._change.notify()

    def close(self) -> None:
        """Send what waits, in one attempt, and end."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closing or self._waiting is not None)
                records, self._waiting, closing = self._waiting, None, self._closing
            sent = records is None or self._run.sync(records)
            if closing:
                return
            if not sent:
                with self._change:
                    self._waiting = self._waiting or records
                    self._change.wait_for(lambda: self._closing, timeout=PATIENCE_S)
