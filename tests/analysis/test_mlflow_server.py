"""The same tables over HTTP from a real MLflow server, artifacts through its proxy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ddarts_analysis import mlflow_runs
from ddarts_analysis.collect import collect
from ddarts_analysis.mlflow_source import collect_from_mlflow

from ddarts_cli.server import free_port
from tests.analysis.conftest import MakeStudy
from tests.analysis.test_mlflow_source import assert_same_tables, log_study, write_odd_records


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of an MLflow server on the loopback interface with an empty store."""
    port = free_port(None)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "served"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([*command, "--workers", "1"], env=os.environ | quiet, start_new_session=True)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def test_http_and_folder_give_the_same_tables(server: str, make_study: MakeStudy, tmp_path: Path, monkeypatch):
    folder = make_study("COMPLETED", "COMPLETED", "PRUNED", "FAILED")
    write_odd_records(folder / "trials/00001/records.jsonl")
    log_study(server, folder)
    expected = collect(folder, tmp_path / "a").folder
    whole = collect_from_mlflow(server, "toy", tmp_path / "b")
    assert whole.notes == ()
    assert_same_tables(expected, whole.folder)
    monkeypatch.setattr(mlflow_runs, "BULK_POINTS", 5)  # every answer of two runs or more is cut off
    assert_same_tables(expected, collect_from_mlflow(server, "toy", tmp_path / "c").folder)
