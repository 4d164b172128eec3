"""How long `ddarts collect --tracking-uri sqlite:///FILE` takes: `python -m tests.benchmarks.collect`.

The database has 1,000 trials of 50 epochs and 10 metrics each, 500,000 points, as a sweep without alphas logs them.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

METRICS = (
    "train/loss",
    "train/accuracy",
    "alpha/loss",
    "held_out/loss",
    "held_out/accuracy",
    "saturation/over_0.9",
    "saturation/under_0.1",
    "discretised/skip_connections",
    "contribution/cell_0",
    "seconds/weights",
)
PARAMS = {
    "seed": "1",
    "method": "ddarts",
    "data.name": "digits",
    "search.epochs": "50",
    "search.record_alphas": "False",
}


def make_database(path: Path, runs: int, epochs: int) -> None:
    """A study `big` in a database that MLflow itself made."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    experiment = client.create_experiment("big", artifact_location=(path.parent / "artifacts").as_uri())
    parent = client.create_run(experiment, tags={"study": "big"}).info.run_id
    trials = [(number, f"{number:032x}") for number in range(runs)]
    tags = {"study": "big", "mlflow.parentRunId": parent, "state": "COMPLETED", "params": '{"search.lr": 0.1}'}
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "insert into runs (run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, "
            "experiment_id) values (?, 'trial', 'FINISHED', 1, 2, 'active', 'file:///nowhere', ?)",
            ((run, int(experiment)) for _, run in trials),
        )
        database.executemany(
            "insert into tags (run_uuid, key, value) values (?, ?, ?)",
            (
                (run, key, value)
                for number, run in trials
                for key, value in (tags | {"trial_id": f"{number:05d}"}).items()
            ),
        )
        database.executemany(
            "insert into params (run_uuid, key, value) values (?, ?, ?)",
            ((run, key, value) for _, run in trials for key, value in PARAMS.items()),
        )
        database.executemany(
            "insert into metrics (run_uuid, key, value, timestamp, step, is_nan) values (?, ?, ?, ?, ?, 0)",
            (
                (run, name, (number + epoch + place) / 1100, epoch, epoch)
                for number, run in trials
                for epoch in range(epochs)
                for place, name in enumerate(METRICS)
            ),
        )


def measure(runs: int, epochs: int) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and the rows that were written."""
    from ddarts_analysis.mlflow_source import collect_from_mlflow

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        make_database(path, runs, epochs)
        wall, cpu = time.perf_counter(), time.process_time()
        done = collect_from_mlflow(f"sqlite:///{path}", "big", Path(folder) / "dataset")
        return time.perf_counter() - wall, time.process_time() - cpu, sum(done.rows.values())


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    wall, cpu, rows = measure(arguments.runs, arguments.epochs)
    points = arguments.runs * arguments.epochs * len(METRICS)
    print(f"{arguments.runs:,} runs, {points:,} points, {rows:,} rows: {wall:.1f} s wall, {cpu:.1f} s CPU")


if __name__ == "__main__":
    main()
