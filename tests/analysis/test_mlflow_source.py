"""The same tables out of MLflow as out of the folder; the runs are logged by the code of a sweep."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from ddarts_analysis import mlflow_runs, mlflow_source
from ddarts_analysis.collect import collect, read_table
from ddarts_analysis.mlflow_source import collect_from_mlflow
from ddarts_analysis.schema import SCHEMAS
from ddarts_analysis.study import read_study
from ddarts_tuning.store.study import find_study
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.tracking import trial_run
from mlflow import MlflowClient

from ddarts_core.ground.errors import UserError
from ddarts_core.studies import sqlite_uri
from tests.analysis.conftest import MakeStudy, record_of

#: What a sweep logs with its own run; a setting with a condition that never held was never proposed.
PARAMS = {
    "tune.objective": "derived",
    "tune.second_objective": "None",
    "space.search.w_zero_one.low": "0",
    "space.ablation.weight.low": "0",
    "space.search.lr.low": "0",
    "space.search.lr.when.method": "['darts']",
}


def log_study(uri: str, folder: Path) -> str:
    """Log a study's folder as its sweep would have done; the identifier of the parent run."""
    info = json.loads((folder / "study.json").read_text())
    tags = {"study": folder.name}
    experiment, parent = tracking.start_study(uri, folder.name, folder.name, tags, PARAMS)
    info |= {"tracking_uri": uri, "experiment_id": experiment, "parent_run_id": parent}
    (folder / "study.json").write_text(json.dumps(info))
    study = find_study(folder)
    for trial in read_study(folder).trials:
        run = trial_run.TrialRun(study, folder / "trials" / trial.trial_id)
        ended = trial.info["state"] != "RUNNING"
        assert run.finish(None, artifacts=True) if ended else run.sync(trial.records)
        path = folder / "trials" / trial.trial_id / "trial.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "run_id": run.run_id}))
    return parent


def assert_same_tables(one: Path, other: Path, running: str | None = None) -> None:
    """Whole frames are equal; of a trial that runs MLflow has no alphas yet."""
    for table in SCHEMAS:
        ours, theirs = read_table(one, table), read_table(other, table)
        assert len(ours) > 0
        if table == "alphas" and running is not None:
            ours = ours[ours["trial_id"] != running].reset_index(drop=True)
        if table == "trials" and running is not None:  # its time is known when it ends
            ours.loc[ours["trial_id"] == running, "seconds"] = None
        names = ours.select_dtypes("category").columns
        pd.testing.assert_frame_equal(
            ours.astype(dict.fromkeys(names, object)), theirs.astype(dict.fromkeys(names, object)), check_exact=True
        )


@pytest.fixture
def store(make_study: MakeStudy, tmp_path: Path) -> tuple[str, Path]:
    """Trials of every state; one has NaN and Shapley values in its records, and runs its last epoch twice."""
    folder = make_study("COMPLETED", "COMPLETED", "PRUNED", "FAILED", "RUNNING")
    write_odd_records(folder / "trials/00001/records.jsonl")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    log_study(uri, folder)
    measured = json.loads((folder / "trials/00000/trial.json").read_text())["run_id"]
    MlflowClient(uri).log_metric(measured, "system/cpu_utilization_percentage", 50.0, step=9)  # no epoch of the trial
    return uri, folder


def write_odd_records(path: Path) -> None:
    records = [record_of(1, epoch).to_dict(timing=True) for epoch in range(3)]
    records[1]["contributions"][2] = records[1]["metrics"]["alpha/loss"] = float("nan")
    records[2] |= {"shapley": [0.1, -0.2, 0.3, 0.0], "shapley_errors": [0.01, 0.02, 0.0, 0.0]}
    retrain = {"epoch": 0, "phase": "retrain", "metrics": {"train/loss": 1.25}, "seconds": {"weights": 0.5}}
    records.append({**retrain, "contributions": [], "ablation": [], "alphas": []})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_mlflow_and_folder_give_the_same_tables(store: tuple[str, Path], tmp_path: Path, monkeypatch):
    uri, folder = store
    expected = collect(folder, tmp_path / "a").folder
    by_sql = collect_from_mlflow(uri, "toy", tmp_path / "b")
    monkeypatch.setattr(sqlite_uri, "PREFIX", "no such scheme")
    by_client = collect_from_mlflow(uri, "toy", tmp_path / "c")
    for other in (by_sql, by_client):
        assert_same_tables(expected, other.folder, running="00004")
        assert len(other.notes) == 1 and other.notes[0].startswith("alphas of 1 of 5 trials are left out")
    assert read_table(expected, "contributions")["shapley"].notna().sum() == 4


def test_the_stage_of_an_epoch_is_that_of_its_record():
    """Of stages that warmup_epochs does not tell: P-DARTS' second warm-up, DOTS' last stage."""
    stages = [("warmup", 0), ("search", 0), ("warmup", 1), ("joint", 1)]
    records = [replace(record_of(0, epoch), phase=phase, network=n) for epoch, (phase, n) in enumerate(stages)]
    points = [(name, r.epoch, value) for r in records for name, value in trial_run.epoch_metrics(r).items()]
    found = mlflow_source._records(points, warmup=1)
    assert [(record.phase, record.network) for record in found] == stages
    assert [record.metrics for record in found] == [record.metrics for record in records]
    before = [point for point in points if not point[0].startswith("stage/")]
    phases = [record.phase for record in mlflow_source._records(before, warmup=1)]
    assert phases == ["warmup", "search", "search", "search"]


def test_files_of_records_are_read_a_few_trials_at_a_time(store: tuple[str, Path], tmp_path: Path, monkeypatch):
    uri, folder = store
    calls: list[int] = []

    def counted(uri: str, runs: list[mlflow_runs.Run], name: str) -> dict[str, str]:
        calls.extend([len(runs)] if name == "records.jsonl" else [])
        return mlflow_runs.read_artifacts(uri, runs, name)

    monkeypatch.setattr(mlflow_source, "_TOGETHER", 2)
    monkeypatch.setattr(mlflow_source, "read_artifacts", counted)
    found = collect_from_mlflow(uri, "toy", tmp_path / "out").folder
    assert calls == [2, 2, 1]
    assert_same_tables(collect(folder).folder, found, running="00004")


def test_a_point_that_was_logged_twice_counts_once_with_its_later_value(store: tuple[str, Path], tmp_path: Path):
    uri, folder = store
    run_id = read_study(folder).trials[0].info["run_id"]
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        for stamp, value in ((10**15, 0.75), (1, 0.25)):
            database.execute(
                "insert into metrics (run_uuid, key, value, timestamp, step, is_nan) values (?, ?, ?, ?, 1, 0)",
                (run_id, "held_out/accuracy", value, stamp),
            )
    collect_from_mlflow(uri, "toy", tmp_path / "out")
    rows = read_table(tmp_path / "out", "epochs").query(
        "trial_id == '00000' and split == 'held_out' and metric == 'accuracy'"
    )
    assert rows["epoch"].tolist() == [0, 1, 2] and rows["value"].tolist()[1] == 0.75


def test_runs_of_older_versions_lack_only_what_they_did_not_log(store: tuple[str, Path], tmp_path: Path):
    uri, folder = store
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        database.execute("delete from tags where key = 'params'")
    expected = read_table(collect(folder).folder, "trials")["params_json"].tolist()
    for path in (tmp_path / "mlartifacts").rglob("records.jsonl"):
        path.unlink()
    done = collect_from_mlflow(uri, "toy", tmp_path / "out")
    assert done.rows["alphas"] == 0 and "alphas of 5 of 5 trials are left out" in done.notes[0]
    assert read_table(tmp_path / "out", "trials")["params_json"].tolist() == expected


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
    with pytest.raises(UserError, match=r"'http://127.0.0.1:9' cannot be read: .*\S( \.\.\.)?$"):
        collect_from_mlflow("http://user:secret@127.0.0.1:9", "toy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
