"""The MLflow server as a child process on the loopback interface."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from ddarts_cli.console import say
from ddarts_core.ground.errors import UserError
from ddarts_core.studies.sqlite_uri import uri_of

HOST = "127.0.0.1"


def free_port(port: int | None) -> int:
    """Find a port that can be bound on the loopback interface.

    Args:
        port: the port that is wanted; None takes a free one.

    Raises:
        UserError: the port is taken, or this process may not use it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise UserError(
                f"--port {port}: {error.strerror}; choose another, or leave it out for a free one"
            ) from error
        return int(probe.getsockname()[1])


def serve(database: Path, port: int, url: str) -> int:
    """Run the server until it ends or Ctrl-C stops it, and print its link as soon as it answers.

    The server works in the folder of the database, and is given only the name of the database: from a whole path with
    % and ? in it MLflow makes other folders.

    Args:
        database: the path of the SQLite database.
        port: the port that the server listens on.
        url: the link to print.

    Returns:
        The exit status of the command: 0, or 1 if the server ended with an error.
    """
    # A line for each request would push the link out of sight.
    environment = {"UVICORN_LOG_LEVEL": "warning", **os.environ}
    # Without the first variable MLflow starts a job runner and seven consumers that nothing here uses.
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri_of(Path(database.name))]
    command += [
        "--artifacts-destination",
        (database.parent / "mlartifacts").as_uri(),
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through `finally`, so that the server ends too
    server = subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True, cwd=database.parent)
    try:
        announced = False
        while server.poll() is None:
            if not announced and _answers(port):
                say(f"MLflow UI: {url} (Ctrl-C stops it)")
                announced = True
            time.sleep(0.3)  # between looks at whether the server answers and lives
        return int(server.returncode != 0)
    except KeyboardInterrupt:
        say("stopped")
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
