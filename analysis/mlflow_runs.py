"""Runs of a study out of an MLflow store: a sqlite file by read-only SQL, any other through MLflow's client.

Both give the same: of a point that was logged twice, (run, name, step), the later one. Over HTTP whole histories come
by MLflow's bulk endpoint, which has limits and no pages.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import hide_secrets, one_line, without_secrets
from ddarts_core.studies import sqlite_uri

PARENT = "mlflow.parentRunId"

_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"

#: Runs per call: MLflow takes 100, but their names must also fit into a request line of 4,094 characters.
BULK_RUNS = 90

#: Points that a call gives at most; it does not say whether it left some out.
BULK_POINTS = 25_000

#: Requests for files at the same time.
_THREADS = 8


Value = TypeVar("Value")


@dataclass
class Run:
    """One MLflow run: the value of each (metric, step), the latest; times in ms."""

    run_id: str
    status: str
    start: int | None
    end: int | None
    artifacts: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int], float] = field(default_factory=dict)


def read_runs(uri: str, study: str) -> list[Run]:
    """All active runs that carry the study's name as a tag.

    Raises:
        UserError: the store cannot be read.
    """
    if not uri.startswith(sqlite_uri.PREFIX):
        return _read_client(uri, study)
    with _open(uri) as database:
        return _guarded(uri, lambda: _read_sqlite(database, study))


def study_names(uri: str) -> list[str]:
    """Names of the studies of a store.

    Raises:
        UserError: the store cannot be read.
    """
    if not uri.startswith(sqlite_uri.PREFIX):
        client = _client(uri)
        return sorted({str(run.data.tags["study"]) for run in _guarded(uri, lambda: _search(client, "!= ''"))})
    query = f"select distinct t.value from runs r {_TAGGED}"
    with _open(uri) as database:
        return sorted(str(name) for (name,) in _guarded(uri, lambda: database.execute(query).fetchall()))


def read_artifacts(uri: str, runs: Sequence[Run], name: str) -> dict[str, str]:
    """Text of one artifact by run; runs that do not have it are left out."""
    found: dict[str, str] = {}
    remote = []
    for run in runs:
        parts = urlsplit(run.artifacts)
        path = Path(unquote(parts.path)) / name
        if parts.scheme not in ("", "file"):
            remote.append(run)
        elif path.is_file():
            found[run.run_id] = path.read_text(encoding="utf-8")
    if remote:
        _quiet()
        with ThreadPoolExecutor(_THREADS) as pool:
            texts = pool.map(lambda run: _download(uri, run.run_id, name), remote)
            found |= {run.run_id: text for run, text in zip(remote, texts, strict=True) if text is not None}
    return found


def _download(uri: str, run_id: str, name: str) -> str | None:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder, tracking_uri=uri)
        except (MlflowException, OSError):  # it has none, or its artifact store cannot be reached: the caller says so
            return None
        return Path(path).read_text(encoding="utf-8")


def _guarded(uri: str, call: Callable[[], Value]) -> Value:
    """The result of `call`; an error of the store as one sentence, without the secrets of its address."""
    try:
        return call()
    except sqlite3.Error as error:
        raise UserError(f"{str(sqlite_uri.file_of(uri))!r} is not a readable MLflow database: {error}") from error
    except Exception as error:
        # MLflow is imported only where it is used, so its exception has no name here unless it was raised.
        if not isinstance(error, (OSError, _mlflow_exception())):
            raise
        reason = textwrap.shorten(one_line(hide_secrets(str(error), uri)), 200, placeholder=" ...")
        raise UserError(f"the MLflow store at {without_secrets(uri)!r} cannot be read: {reason}") from error


def _mlflow_exception() -> type[Exception]:
    module = sys.modules.get("mlflow.exceptions")
    return module.MlflowException if module is not None else OSError


# --- sqlite ---------------------------------------------------------------------------------------------------------

_TAGGED = "join tags t on t.run_uuid = r.run_uuid and t.key = 'study' where r.lifecycle_stage = 'active'"


def _open(uri: str) -> Any:
    path = sqlite_uri.file_of(uri)
    assert path is not None, "asked for a file"
    if not path.is_file():
        raise UserError(f"no MLflow database at {str(path)!r}")
    return closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True))


def _read_sqlite(database: sqlite3.Connection, study: str) -> list[Run]:
    columns = "r.run_uuid, r.status, r.start_time, r.end_time, r.artifact_uri"
    rows = database.execute(f"select {columns} from runs r {_TAGGED} and t.value = ?", (study,))
    runs = {row[0]: Run(row[0], row[1], row[2], row[3], row[4] or "") for row in rows}
    wanted = "run_uuid in (select run_uuid from tags where key = 'study' and value = ?)"
    for table in ("tags", "params"):
        for run_id, key, value in database.execute(
            f"select run_uuid, key, value from {table} where {wanted}", (study,)
        ):
            if run_id in runs:
                getattr(runs[run_id], table)[key] = value
    points = {run_id: run.points for run_id, run in runs.items()}
    deleted: dict[tuple[str, int], float] = {}
    value = "case when is_nan then null else value end"
    for run_id, key, step, number in database.execute(
        f"select run_uuid, key, step, {value} from metrics where {wanted} order by timestamp", (study,)
    ):
        points.get(run_id, deleted)[key, step] = _NAN if number is None else number
    return list(runs.values())


_NAN = float("nan")


# --- client ---------------------------------------------------------------------------------------------------------


def _quiet() -> None:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _client(uri: str) -> Any:
    _quiet()
    from mlflow import MlflowClient

    return _guarded(uri, lambda: MlflowClient(tracking_uri=uri))


def _read_client(uri: str, study: str) -> list[Run]:
    client = _client(uri)
    quoted = json.dumps(study) if "'" in study else f"'{study}'"

    def read() -> list[Run]:
        found = _search(client, f"= {quoted}")
        runs = {run.info.run_id: _run_of(run) for run in found}
        names: dict[str, list[str]] = {}
        for run in found:
            for name in run.data.metrics:
                names.setdefault(name, []).append(run.info.run_id)
        history = _bulk_history if urlsplit(uri).scheme in ("http", "https") else _plain_history
        for name, run_ids in names.items():
            for run_id, step, value in history(client, name, run_ids):
                runs[run_id].points[name, step] = value
        return list(runs.values())

    return _guarded(uri, read)


def _run_of(run: Any) -> Run:
    info, data = run.info, run.data
    return Run(
        info.run_id, info.status, info.start_time, info.end_time, info.artifact_uri or "", dict(data.tags), data.params
    )


def _search(client: Any, condition: str) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(experiments, f"tags.study {condition}", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _plain_history(client: Any, name: str, run_ids: Iterable[str]) -> Iterator[tuple[str, int, float]]:
    """(run, step, value), by time."""
    for run_id in run_ids:
        points = client.get_metric_history(run_id, name)
        for point in sorted(points, key=lambda point: int(point.timestamp)):
            yield run_id, int(point.step), float(point.value)


def _bulk_history(client: Any, name: str, run_ids: Sequence[str]) -> Iterator[tuple[str, int, float]]:
    """The same by the bulk endpoint: few calls, each as large as it may be."""
    for start in range(0, len(run_ids), BULK_RUNS):
        yield from _bulk_call(client, name, run_ids[start : start + BULK_RUNS])


def _bulk_call(client: Any, name: str, run_ids: Sequence[str]) -> Iterator[tuple[str, int, float]]:
    """Make one call, or two of half the size if the answer is full and may have been cut off."""
    points = _request(client, {"run_id": list(run_ids), "metric_key": name, "max_results": BULK_POINTS})
    if points is None or (len(points) >= BULK_POINTS and len(run_ids) == 1):
        yield from _plain_history(client, name, run_ids)
    elif len(points) >= BULK_POINTS:
        middle = len(run_ids) // 2
        yield from _bulk_call(client, name, run_ids[:middle])
        yield from _bulk_call(client, name, run_ids[middle:])
    else:
        for point in points:  # sorted by run and time
            yield point["run_id"], int(point["step"]), float(point["value"])


def _request(client: Any, params: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Answer of the bulk endpoint; None of a server that does not have it."""
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    # The public client has no method for it; its store knows the address and how to log in.
    credentials = client._tracking_client.store.get_host_creds()
    reply = http_request(credentials, _BULK, "GET", params=params)  # type: ignore[no-untyped-call]  # MLflow's
    if reply.status_code == 404:
        return None
    points: list[dict[str, Any]] = verify_rest_response(reply, _BULK).json().get("metrics", [])
    return points
