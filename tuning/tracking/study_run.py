"""MLflow's client, and the run of a study, whose child runs are those of the trials (trial_run.py).

But for `start_study`, nothing here raises because of MLflow: whatever MLflow cannot take now is given to it later.
`start_study` makes the database before the trials start, since they must find it ready.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import shlex
import sqlite3
import textwrap
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import leaves
from ddarts_core.ground.redact import hide_secrets, one_line, without_secrets
from ddarts_core.studies import sqlite_uri

from ..settings.config import URI_VARIABLE
from ..store.study import Study
from . import view
from .database import make_database
from .patience import PATIENCE, Client, OutOfPatience

OWN_VARIABLE = "DDARTS_TRACKING_URI"
"""Environment variable: the URI of the store in full, for the trials; the URI that is stored has no secrets."""

STATUS = {"COMPLETED": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED", "RUNNING": "RUNNING"}
"""MLflow's status of a run by the state of the trial."""

Draw = Callable[[AnyGenotype, Path], object]
"""A function that draws a genotype into a file."""

TEXT_LIMIT = 6000
"""How many characters of a parameter or a tag MLflow takes."""

_log = logging.getLogger(__name__)


def quiet_mlflow() -> None:
    """Make MLflow fail fast, and send and say nothing needless; to be called before anything else of MLflow."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it prints them with the password
    import mlflow  # noqa: F401  # it sets the levels of its loggers when it is imported

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def expect_mlflow() -> None:
    """Have a thread import MLflow, which takes seconds, while this one waits for something else."""

    def call() -> None:
        with contextlib.suppress(Exception):  # whoever needs MLflow imports it again, and says what is wrong
            quiet_mlflow()

    threading.Thread(target=call, name="import of MLflow", daemon=True).start()


def tracking_uri(configured: str | None, study: Path) -> str:
    """The tracking URI to use: the configured one, or that of a database in the study's folder.

    If the configured one names a file or folder, its path is made absolute.
    """
    if configured is None:
        return sqlite_uri.uri_of(study / "mlflow.db")
    file = sqlite_uri.file_of(configured)
    if file is None:
        local = ":" not in configured and not configured.startswith("databricks")
        return Path(configured).absolute().as_uri() if local else configured
    _, mark, options = configured.partition("?")
    return sqlite_uri.uri_of(file) + mark + options


def with_secrets(stored: str) -> str:
    """A URI that was stored without its secrets, in its full form.

    The full form is taken from the environment, if the URI there names the same place.
    """
    known = (os.environ.get(name, "") for name in (OWN_VARIABLE, URI_VARIABLE))
    return next((full for full in known if without_secrets(full) == stored), stored)


def from_environment(uri: str | None) -> str:
    """The environment variable that a URI comes from, in brackets; empty if the URI comes from no variable."""
    return f" (of {URI_VARIABLE})" if uri and uri == os.environ.get(URI_VARIABLE) else ""


def make_client(uri: str) -> Any:
    """An MLflow client, which is asked only while there is time left (patience.py)."""
    quiet_mlflow()
    from mlflow import MlflowClient

    if not uri.startswith("http"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # ten would hold a trial up for minutes; `sync` comes back by itself
        utils._make_parent_dirs_if_sqlite = _make_folder  # MLflow's own takes %3F in a URI for the folder's name
    return Client(MlflowClient(tracking_uri=with_secrets(uri)))


def _make_folder(db_uri: str) -> None:
    if (file := sqlite_uri.file_of(db_uri)) is not None:
        with contextlib.suppress(OSError):  # SQLAlchemy says it better
            file.parent.mkdir(parents=True, exist_ok=True)


def flat_params(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as dotted path -> text."""
    return {path: str(value)[:TEXT_LIMIT] for path, value in leaves(config)}


# --- a study's run --------------------------------------------------------------------------------------------------


def artifact_location(uri: str) -> str | None:
    """Where artifacts go: into the folder `mlartifacts` beside a database file; None for a server, which decides it."""
    file = sqlite_uri.file_of(uri)
    return None if file is None else (file.parent / "mlartifacts").as_uri()


def experiment_of(client: Any, name: str, uri: str) -> str:
    """The identifier of the experiment of this name, which is made if the store of the URI has none."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location(uri)))


def study_tags(name: str, data: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a study's run, by the name of the study and what study.json says of it."""
    return {
        "study": name,
        "git_commit": str(data["git_commit"]),
        "seed": str(data["config"]["seed"]),
        "method": data["config"]["method"],
        "config_hash": data["config_hash"],
        **origin(data),
        **{f"version.{package}": version for package, version in data["versions"].items()},
    }


def origin(data: Mapping[str, Any]) -> dict[str, str]:
    """Who started a study, and with what, as tags that MLflow shows in columns; by the contents of study.json."""
    with contextlib.suppress(KeyError, OSError):  # a number of no user, as in some containers
        return {**_source(data), "mlflow.user": getpass.getuser()}
    return _source(data)


def _source(data: Mapping[str, Any]) -> dict[str, str]:
    return {"mlflow.source.name": str(data.get("command", "ddarts"))[:TEXT_LIMIT], "mlflow.source.type": "LOCAL"}


def start_study(
    uri: str, experiment: str, study_name: str, tags: Mapping[str, str], params: Mapping[str, str]
) -> tuple[str, str]:
    """Make the database, the experiment and the study's run. Returns the identifiers of experiment and run.

    Raises:
        UserError: the tracking server or database cannot be used.
    """
    from sqlalchemy.exc import SQLAlchemyError

    quiet_mlflow()
    from mlflow.exceptions import MlflowException

    try:
        make_database(uri)
        client = make_client(uri)
        experiment_id = experiment_of(client, experiment, uri)
        run = client.create_run(experiment_id, run_name=study_name, tags=dict(tags))
        log_params(client, run.info.run_id, params)
        client.set_experiment_tag(experiment_id, view.TAG, view.view(params))
    except (
        MlflowException,
        SQLAlchemyError,
        OSError,
        ImportError,
        ValueError,
    ) as error:  # no such driver, port or host
        reason = textwrap.shorten(one_line(hide_secrets(str(error), uri)), 200, placeholder=" ...")
        raise UserError(
            f"tracking.uri {without_secrets(uri)!r}{from_environment(uri)} cannot be used: {reason}; give an MLflow "
            "server (http://HOST:PORT), a database (sqlite:///FILE, postgresql://HOST/NAME), or null for one in the "
            "study's folder"
        ) from error
    if (file := sqlite_uri.file_of(uri)) is not None:
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA journal_mode=WAL")
    return experiment_id, str(run.info.run_id)


def is_there(study: Study) -> bool:
    """Whether a study's run is in the experiment of its number and name; True too if the store does not answer.

    Raises:
        UserError: the experiment or the run was deleted, in MLflow's UI for instance.
    """
    from mlflow.exceptions import MlflowException

    name = study.data["config"]["tracking"]["experiment"] or study.name
    try:
        client = make_client(str(study.data["tracking_uri"]))
        run = client.get_run(study.data["parent_run_id"]).info
        experiment = client.get_experiment(run.experiment_id)
    except MlflowException as error:
        return str(error.error_code) != "RESOURCE_DOES_NOT_EXIST"
    except Exception:  # each kind of store has its own
        return True
    there = (experiment.experiment_id, experiment.name) == (str(study.data["experiment_id"]), name)
    found = (("experiment", experiment, experiment.experiment_id), ("run", run, run.run_id))
    for what, entity, identifier in found if there else ():
        if entity.lifecycle_stage == "deleted":
            uri = shlex.quote(f"{URI_VARIABLE}={study.data['tracking_uri']}")
            raise UserError(
                f"the MLflow {what} of study {study.name!r} was deleted, and MLflow would show nothing: restore it "
                f"with `env {uri} mlflow {what}s restore --{what}-id {identifier}`"
            )
    return there


def share_view(study: Study) -> bool:
    """Write the view of this study's columns to its experiment. Returns whether MLflow took it.

    A study of an older version has no view. Studies that share an experiment share the view of the one begun last.
    """

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        params = client.get_run(study.data["parent_run_id"]).data.params
        client.set_experiment_tag(study.data["experiment_id"], view.TAG, view.view(params))

    return attempt(call, "view of the study")


def attach(study: Study, files: Iterable[Path], folder: str | None = None) -> bool:
    """Log files as artifacts of the study's run, in a folder of its artifacts. Returns whether MLflow took them."""

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        for file in files:
            client.log_artifact(study.data["parent_run_id"], str(file), folder)

    PATIENCE.begin(study.location)
    try:
        return attempt(call, "report of the study")
    finally:
        PATIENCE.end()


def end_run(study: Study, run_id: str, status: str) -> bool:
    """Set the status of a run. Returns whether MLflow took it."""

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        if status == "RUNNING":
            client.update_run(run_id, status)
        elif client.get_run(run_id).info.status != status:  # else it would get another end time
            client.set_terminated(run_id, status)

    return attempt(call, "status of a run")


def log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    """Log parameters in batches as large as MLflow takes them."""
    from mlflow.entities import Param

    items = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def delete_run(uri: str, run_id: str) -> bool:
    """Delete a run that no trial or study needs. Returns whether MLflow did so."""
    return attempt(lambda: make_client(uri).delete_run(run_id), "superseded run")


def child_runs(study: Study, status: str) -> list[tuple[str, str]]:
    """The runs of trials with this status, as far as MLflow answers: the identifiers of each run and of its trial."""
    found: list[tuple[str, str]] = []

    def call() -> None:
        client = make_client(study.data["tracking_uri"])
        query = f"tags.`mlflow.parentRunId` = '{study.data['parent_run_id']}' and attributes.status = '{status}'"
        token = None
        while token != "":
            page = client.search_runs([study.data["experiment_id"]], query, page_token=token)
            found.extend((run.info.run_id, run.data.tags["trial_id"]) for run in page)
            token = page.token or ""

    attempt(call, "search for runs")
    return found


def attempt(call: Callable[[], object], what: str) -> bool:
    """Ask MLflow for something. Returns whether it answered; a refusal is logged as a warning."""
    try:
        call()
    except OutOfPatience:
        return False  # it is said once
    except Exception as error:  # a broken tracker, whatever is wrong with it, must not end a sweep
        _log.warning("MLflow did not take the %s: %s", what, one_line(hide_secrets(str(error)))[:200])
        return False
    return True
