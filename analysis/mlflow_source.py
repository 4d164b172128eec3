"""A study out of MLflow alone, for those who have the tracking store and not the study's folder.

From the runs of a sweep the same tables are built as from its folder, but for what MLflow does not hold: alphas,
numbers that are not finite, and the exact running time (the run's is taken). A sqlite store is read by SQL, any other
through MLflow's client.
"""

from __future__ import annotations

import ast
import math
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ddarts_core.config import get_path
from ddarts_core.errors import UserError
from ddarts_core.genotype import Genotype
from ddarts_core.records import EpochRecord

from .collect import Collected, arrow_tables, write_dataset
from .study import Study, Trial

_PARENT, _SQLITE = "mlflow.parentRunId", "sqlite:///"

#: Settings whose value is text even when it looks like a number.
_TEXT = frozenset({"name", "storage", "method", "data.name", "data.root", "retrain.recipe"})

Point = tuple[str, int, float]


@dataclass
class Run:
    """One MLflow run: metrics as (name, step, value) in the order in which they were logged; times in ms."""

    run_id: str
    status: str
    start: int | None
    end: int | None
    artifacts: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)


def collect_from_mlflow(tracking_uri: str, study: str, out: str | Path) -> Collected:
    """Write the Parquet dataset of a study that only MLflow holds to the folder `out`.

    Raises:
        UserError: the store cannot be read, or it has no study of that name; lists those it has.
    """
    read = read_study_from_mlflow(tracking_uri, study)
    return write_dataset(Path(out), read.name, arrow_tables(read))


def read_study_from_mlflow(tracking_uri: str, study: str) -> Study:
    """The newest study of that name.

    Raises:
        UserError: the store cannot be read, or it has no study of that name; lists those it has.
    """
    runs = _read(tracking_uri, study)
    parents = [run for run in runs if _PARENT not in run.tags and run.tags.get("study") == study]
    if not parents:
        names = _names(runs)
        raise UserError(f"MLflow holds no study {study!r}: it has {', '.join(names) or 'none'}")
    parent = max(parents, key=lambda run: run.start or 0)
    children = {
        run.tags["trial_id"]: run
        for run in sorted(runs, key=lambda run: run.start or 0)
        if run.tags.get(_PARENT) == parent.run_id and "trial_id" in run.tags
    }
    trials = sorted((_trial(run, parent) for run in children.values()), key=lambda trial: int(trial.info["number"]))
    return Study(Path(), {"schema": 1, "name": study, "parent_run_id": parent.run_id}, tuple(trials))


def studies_in_mlflow(tracking_uri: str) -> list[str]:
    """Names of the studies of a store.

    Raises:
        UserError: the store cannot be read.
    """
    return _names(_read(tracking_uri, ""))


def _read(tracking_uri: str, study: str) -> list[Run]:
    reader = _read_sqlite if tracking_uri.startswith(_SQLITE) else _read_client
    return reader(tracking_uri, study)


def _names(runs: Iterable[Run]) -> list[str]:
    return sorted({run.tags["study"] for run in runs if "study" in run.tags})


# --- from a run to a trial ------------------------------------------------------------------------------------------


def _trial(run: Run, parent: Run) -> Trial:
    config = _config(run.params, run.run_id)
    steps, finals = _split(run.points)
    warmup = int(config["search"].get("warmup_epochs") or 0)
    second = parent.params.get("tune.second_objective", "None")
    derived = {name.removeprefix("derived/"): value for name, value in finals.items() if name.startswith("derived/")}
    first = "derived/held_out/accuracy" if parent.params.get("tune.objective") == "derived" else "held_out/accuracy"
    values = {first: finals.get("final/" + first, finals.get(first))}
    if second != "None":
        values[second] = finals.get(second)
    objectives = {name: value for name, value in values.items() if value is not None}
    state = run.tags.get("state") or ("FAILED" if run.status in ("FAILED", "KILLED") else "RUNNING")
    info = {
        "trial_id": run.tags["trial_id"],
        "number": int(run.tags["trial_id"]),
        "state": state,
        "reason": run.tags.get("reason"),
        "seed": config["seed"],
        "config": config,
        "config_hash": run.tags.get("config_hash"),
        "params": _proposed(config, parent.params),
        "objectives": objectives if state == "COMPLETED" else None,
        "derived": derived or None,
        "cost": {name: int(finals[name]) for name in ("parameters", "macs") if name in finals} or None,
        "genotype_hash": run.tags.get("genotype_hash"),
        "run_id": run.run_id,
        "seconds": None if run.start is None or run.end is None else (run.end - run.start) / 1000,
    }
    return Trial(info, _records(steps, warmup), _genotype(run) if "genotype_hash" in run.tags else None)


def _config(params: Mapping[str, str], run_id: str) -> dict[str, Any]:
    """The nested configuration of flat texts; not validated, so that other versions' runs can be read."""
    nested: dict[str, Any] = {}
    for path, text in params.items():
        *groups, name = path.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = text if path in _TEXT else _parsed(text)
    if "seed" not in nested or not isinstance(nested.get("search"), dict):
        raise UserError(f"MLflow run {run_id} has no configuration of a search among its parameters")
    return nested


def _proposed(config: Mapping[str, Any], sweep: Mapping[str, str]) -> dict[str, Any]:
    """The values that the sweep proposed: those of its space whose conditions (`when`) hold."""
    prefix, mark = "space.", ".when."
    paths = {name[len(prefix) :].rsplit(".", 1)[0] for name in sweep if name.startswith(prefix) and mark not in name}
    conditions = [name[len(prefix) :].split(mark, 1) for name in sweep if name.startswith(prefix) and mark in name]
    for path, parent in conditions:
        if _value(config, parent) not in _parsed(sweep[f"{prefix}{path}{mark}{parent}"]):
            paths.discard(path)
    return {path: _value(config, path) for path in sorted(paths)}


def _value(config: Mapping[str, Any], path: str) -> Any:
    try:
        return get_path(config, path)
    except (KeyError, TypeError):
        return None


def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _split(points: Iterable[Point]) -> tuple[list[Point], dict[str, float]]:
    """Points of epochs, and the numbers that were logged once, when the trial ended."""
    steps: list[Point] = []
    finals: dict[str, float] = {}
    for name, step, value in points:
        if name.startswith(("derived/", "final/")) or name in ("parameters", "macs"):
            finals[name] = value
        else:
            steps.append((name, step, value))
    return steps, finals


def _records(points: Iterable[Point], warmup: int) -> tuple[EpochRecord, ...]:
    epochs: dict[tuple[bool, int], dict[str, float]] = {}
    for name, step, value in points:
        retrain = name.startswith("retrain/")
        epochs.setdefault((retrain, step), {})[name.removeprefix("retrain/")] = value
    return tuple(_record(retrain, epoch, epochs[retrain, epoch], warmup) for retrain, epoch in sorted(epochs))


def _record(retrain: bool, epoch: int, values: Mapping[str, float], warmup: int) -> EpochRecord:
    groups: dict[str, dict[int, float]] = {"contribution/cell_": {}, "ablation/cell_": {}}
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name, value in values.items():
        prefix = next((p for p in groups if name.startswith(p)), None)
        if prefix is not None:
            groups[prefix][int(name.removeprefix(prefix))] = value
        elif name.startswith("seconds/"):
            seconds[name.removeprefix("seconds/")] = value
        else:
            metrics[name] = value
    phase = "retrain" if retrain else "warmup" if epoch < warmup else "search"
    contributions, ablation = (_dense(found) for found in groups.values())
    return EpochRecord(epoch, phase, metrics, contributions, ablation, seconds=seconds)


def _dense(found: Mapping[int, float]) -> tuple[float, ...]:
    """Values by index as a tuple; NaN, which MLflow was not told, in the gaps."""
    return tuple(found.get(index, math.nan) for index in range(max(found, default=-1) + 1))


def _genotype(run: Run) -> Genotype | None:
    """The artifact genotype.json; None when the run has none."""
    parts = urlsplit(run.artifacts)
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path)) / "genotype.json"
        return Genotype.load(path) if path.is_file() else None
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Genotype.from_text(mlflow.artifacts.load_text(f"{run.artifacts.rstrip('/')}/genotype.json"))
    except (MlflowException, OSError):
        return None


# --- readers --------------------------------------------------------------------------------------------------------


def _read_sqlite(uri: str, study: str) -> list[Run]:
    """All active runs that carry the study's tag, and the names of the others, by read-only SQL."""
    path = Path(uri.removeprefix(_SQLITE)).absolute()
    if not path.is_file():
        raise UserError(f"no MLflow database at {str(path)!r}")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            query = database.execute(
                "select r.run_uuid, r.status, r.start_time, r.end_time, r.artifact_uri, t.value from runs r "
                "join tags t on t.run_uuid = r.run_uuid and t.key = 'study' where r.lifecycle_stage = 'active'"
            )
            runs = {
                run_id: Run(run_id, status, start, end, artifacts or "", {"study": name})
                for run_id, status, start, end, artifacts, name in query
            }
            wanted = "(select run_uuid from tags where key = 'study' and value = ?)"
            for run_id, key, value in database.execute(
                f"select run_uuid, key, value from tags where run_uuid in {wanted}", (study,)
            ):
                if run_id in runs:
                    runs[run_id].tags[key] = value
            for run_id, key, value in database.execute(
                f"select run_uuid, key, value from params where run_uuid in {wanted}", (study,)
            ):
                if run_id in runs:
                    runs[run_id].params[key] = value
            for run_id, key, step, value in database.execute(
                "select run_uuid, key, step, value from metrics "
                f"where not is_nan and run_uuid in {wanted} order by timestamp",
                (study,),
            ):
                if run_id in runs:
                    runs[run_id].points.append((key, step, value))
    except sqlite3.Error as error:
        raise UserError(f"{str(path)!r} is not a readable MLflow database: {error}") from error
    return list(runs.values())


def _read_client(uri: str, study: str) -> list[Run]:
    """All active runs of the study through MLflow's client; of other studies only the names."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=uri)
        experiments = [e.experiment_id for e in client.search_experiments()]
        return [_run(client, run, study) for run in _search(client, experiments)]
    except (MlflowException, OSError) as error:
        host = urlsplit(uri).hostname or uri
        raise UserError(f"the MLflow store at {host!r} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _search(client: Any, experiments: Sequence[str]) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(experiments, "tags.study != ''", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _run(client: Any, run: Any, study: str) -> Run:
    info, tags = run.info, dict(run.data.tags)
    read = Run(info.run_id, info.status, info.start_time, info.end_time, info.artifact_uri or "", tags)
    if tags.get("study") == study:
        read.params = dict(run.data.params)
        history = (point for name in run.data.metrics for point in client.get_metric_history(info.run_id, name))
        ordered = sorted(history, key=lambda point: int(point.timestamp))
        read.points = [(p.key, int(p.step), float(p.value)) for p in ordered if not math.isnan(p.value)]
    return read
