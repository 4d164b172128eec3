"""kill -9 of the driver, and Ctrl-C, in the middle of a sweep: resuming completes it and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddarts_core.records import read_jsonl
from tuning import tracking
from tuning.config import SweepConfig
from tuning.searcher import open_journal
from tuning.study import find_study

pytestmark = pytest.mark.filterwarnings("ignore")

Make = Callable[..., SweepConfig]

RUN = """
import json, sys
from tuning.config import resolve_sweep
from tuning.sweep import resume_sweep, run_sweep
mode, argument = sys.argv[1:]
if mode == "run":
    result = run_sweep(resolve_sweep(json.loads(argument)), num_cpus=2)
else:
    result = resume_sweep(argument, num_cpus=2)
print("interrupted" if result.interrupted else "finished", result.untracked, result.message)
"""


def start(mode: str, argument: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, mode, argument],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output.splitlines()[-1]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.02)


def epochs_of(study: Path, number: int) -> int:
    return len(read_jsonl(study / "trials" / f"{number:05d}" / "records.jsonl"))


def check_whole(path: Path, num_trials: int) -> list[dict[str, Any]]:
    """All trials completed, each once, with every epoch once, in all three stores."""
    study = find_study(path)
    trials = study.trials()
    assert study.state == "FINISHED"
    assert [trial["number"] for trial in trials] == list(range(num_trials))
    assert [(trial["state"], trial["reason"]) for trial in trials] == [("COMPLETED", None)] * num_trials
    client = tracking.make_client(study.data["tracking_uri"])
    runs = client.search_runs([study.data["experiment_id"]])
    assert len(runs) == num_trials + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial in trials:
        records = read_jsonl(path / "trials" / trial["trial_id"] / "records.jsonl")
        assert [(r.phase, r.epoch) for r in records] == [("search", 0), ("search", 1), ("retrain", 0), ("retrain", 1)]
        for name in ("train/loss", "retrain/train/loss"):
            history = client.get_metric_history(trial["run_id"], name)
            assert sorted(metric.step for metric in history) == [0, 1], name
    journal = open_journal(path / "optuna.log", study.name, {"directions": ["maximize"]}).get_trials()
    assert sorted(trial.user_attrs["number"] for trial in journal) == list(range(num_trials))
    assert {trial.state.name for trial in journal} == {"COMPLETE"}
    return trials


def test_a_killed_driver_loses_nothing(make_sweep: Make) -> None:
    config = make_sweep("killed", tune={"num_samples": 4, "max_concurrent": 2})
    path = config.study_dir
    process = start("run", json.dumps(config.model_dump(mode="json")))
    wait_for(lambda: epochs_of(path, 0) >= 1 and epochs_of(path, 1) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert find_study(path).state == "INTERRUPTED"

    process = start("resume", str(path))
    wait_for(lambda: epochs_of(path, 2) >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert finish(start("resume", str(path))).startswith("finished 0")
    check_whole(path, 4)


def test_one_ctrl_c_keeps_everything_and_says_how_to_go_on(make_sweep: Make) -> None:
    config = make_sweep("stopped")
    path = config.study_dir
    process = start("run", json.dumps(config.model_dump(mode="json")))
    wait_for(lambda: epochs_of(path, 1) >= 1, process)
    process.send_signal(signal.SIGINT)
    last = finish(process)
    assert last.startswith("interrupted") and f"`ddarts resume {path}`" in last
    study = find_study(path)
    assert study.state == "INTERRUPTED"
    client = tracking.make_client(study.data["tracking_uri"])
    assert "RUNNING" not in {run.info.status for run in client.search_runs([study.data["experiment_id"]])}

    assert finish(start("resume", str(path))).startswith("finished 0")
    check_whole(path, 3)
