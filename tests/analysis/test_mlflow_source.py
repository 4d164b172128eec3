"""The same tables out of MLflow as out of the folder; the runs are written as a sweep writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.collect import collect, read_table
from analysis.mlflow_source import _read_client, collect_from_mlflow
from analysis.study import read_study
from ddarts_core.errors import UserError
from tests.analysis.conftest import MakeStudy


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in config.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return out


def log_study(uri: str, folder: Path, artifacts: Path) -> str:
    """What a sweep logs: a parent, a child per trial, metrics by epoch, final numbers, genotypes; the parent's id."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("toy", artifact_location=artifacts.as_uri())
    parent = client.create_run(experiment, tags={"study": "toy"}).info.run_id
    space = {"space.search.w_zero_one.low": "0", "space.ablation.weight.low": "0", "tune.objective": "derived"}
    space |= {"space.search.lr.low": "0", "space.search.lr.when.method": "['darts']"}  # never proposed
    client.log_batch(parent, params=[Param(k, v) for k, v in space.items()])
    for trial in read_study(folder).trials:
        info = trial.info
        tags = {"study": "toy", "trial_id": trial.trial_id, "mlflow.parentRunId": parent}
        tags |= {"config_hash": info["config_hash"]}
        run = client.create_run(experiment, tags=tags).info.run_id
        client.log_batch(run, params=[Param(k, v) for k, v in flat(dict(info["config"])).items()])
        for record in trial.records:
            values = dict(record.metrics)
            values |= {f"contribution/cell_{i}": v for i, v in enumerate(record.contributions)}
            values |= {f"ablation/cell_{i}": v for i, v in enumerate(record.ablation)}
            values |= {f"seconds/{k}": v for k, v in record.seconds.items()}
            client.log_batch(run, metrics=[Metric(k, v, 1000 + record.epoch, record.epoch) for k, v in values.items()])
        if info["state"] == "RUNNING":
            continue
        values = {f"derived/{k}": v for k, v in (info["derived"] or {}).items()}
        values |= {"parameters": 1000 + 10 * info["number"], "macs": 5000} if info["cost"] else {}
        done = {"state": info["state"], "reason": info["reason"], "genotype_hash": info["genotype_hash"]}
        client.log_batch(
            run,
            metrics=[Metric(k, v, 9000, 0) for k, v in values.items()],
            tags=[RunTag(k, v) for k, v in done.items() if v],
        )
        if trial.genotype is not None:
            client.log_artifact(run, str(folder / "trials" / trial.trial_id / "genotype.json"))
        client.set_terminated(run, "FAILED" if info["state"] == "FAILED" else "FINISHED")
    return str(parent)


@pytest.fixture
def store(make_study: MakeStudy, tmp_path: Path, monkeypatch) -> tuple[str, Path]:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = make_study("COMPLETED", "COMPLETED", "PRUNED", "FAILED", "RUNNING")
    for trial in folder.glob("trials/*/trial.json"):  # the name that a sweep gives its objective
        trial.write_text(trial.read_text().replace('"derived/accuracy"', '"derived/held_out/accuracy"'))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    log_study(uri, folder, tmp_path / "artifacts")
    return uri, folder


def test_mlflow_and_folder_give_the_same_tables(store: tuple[str, Path], tmp_path: Path, monkeypatch):
    uri, folder = store
    expected = collect(folder, tmp_path / "a").folder
    by_sql = collect_from_mlflow(uri, "toy", tmp_path / "b").folder
    monkeypatch.setattr("analysis.mlflow_source._read_sqlite", _read_client)
    by_client = collect_from_mlflow(uri, "toy", tmp_path / "c").folder
    for table in ("trials", "epochs", "contributions", "genotypes"):
        ours = read_table(expected, table)
        for other in (by_sql, by_client):
            theirs = read_table(other, table)
            ignored = ["seconds", "run_id"] if table == "trials" else []
            pd.testing.assert_frame_equal(
                ours.drop(columns=ignored), theirs.drop(columns=ignored), check_categorical=False, check_dtype=False
            )
    assert len(read_table(expected, "epochs")) > 0 and len(read_table(expected, "genotypes")) > 0


def test_mistakes_are_one_sentence(store: tuple[str, Path], tmp_path: Path, monkeypatch):
    uri, _ = store
    with pytest.raises(UserError, match="no study 'other': it has toy"):
        collect_from_mlflow(uri, "other", tmp_path / "out")
    with pytest.raises(UserError, match="no MLflow database"):
        collect_from_mlflow("sqlite:////nowhere/mlflow.db", "toy", tmp_path / "out")
    (tmp_path / "bad.db").write_text("rubbish " * 200)
    with pytest.raises(UserError, match="not a readable MLflow database"):
        collect_from_mlflow(f"sqlite:///{tmp_path}/bad.db", "toy", tmp_path / "out")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with pytest.raises(UserError, match=r"'127.0.0.1' cannot be read"):
        collect_from_mlflow("http://user:secret@127.0.0.1:9", "toy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
