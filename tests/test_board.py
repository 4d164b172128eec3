"""What a running sweep shows, what Ctrl-C does to it, and `ddarts status`."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.cluster.connection import polite_stops
from ddarts_tuning.driver.events import SweepEvent
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.store.locks import lock
from ddarts_tuning.store.study import WEIGHTS, Study, keep_best_weights, trial_dir
from ddarts_tuning.trial.trial_record import begin
from rich.console import Console

from ddarts_cli.board import Board
from ddarts_cli.main import run
from ddarts_cli.sweeping import board_of, print_ranking, watch
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.studies.study_files import read_json, write_json

METRIC = "derived/held_out/accuracy"
LONG = {"ablation.loss": "centered", "search.w_zero_one": 0.125, "search.edge": "sampled", "search.lr": 0.0123}


def test_the_table_tells_the_whole_sweep_and_each_trial_in_80_columns() -> None:
    now = [0.0]
    board = Board(4, ["COMPLETED"], [(METRIC, "max")], (0.5, "00000"), lambda: now[0])
    assert board.headline() == "1/4 trials ended (1 completed); best 50.00 % (trial 00000)"
    for number, phase in ((1, "warmup"), (2, "joint")):
        board.take(SweepEvent("started", f"0000{number}", number, LONG, num_epochs=4, phase=phase))
    now[0] = 60.0
    for done, phase in enumerate(("search", "retrain"), 1):
        event = SweepEvent("epoch", "00001", 1, LONG, epochs=done, num_epochs=4, accuracy=0.25, phase=phase)
        board.take(event)
    assert board.rate == 2.0 and board.minutes_left == (2 + 4 + 4) / 2.0
    written = io.StringIO()
    Console(width=80, file=written).print(board)
    shown = written.getvalue()
    assert max(map(len, shown.splitlines())) <= 80 and set(" ".join(f"{k}={v}" for k, v in LONG.items()).split()) <= {
        word.strip(",") for word in shown.split()
    }
    assert "trial 00001  training  epoch 2/4" in shown and "held out 25.00 %" in shown
    assert "trial 00002  joint     epoch 0/4" in shown and len(shown.splitlines()[-1]) <= 78
    board.take(SweepEvent("restarted", "00002", 2, LONG, epochs=1, num_epochs=4, phase="warmup"))
    assert (board.rows["00002"].phase, board.rows["00002"].epochs) == ("warm-up", 1)
    board.take(SweepEvent("finished", "00001", 1, LONG, state="COMPLETED", objectives={METRIC: 0.75}))
    board.take(SweepEvent("finished", "00002", 2, LONG, state="PRUNED"))
    board.take(SweepEvent("stopping", "", -1, {}))
    assert board.rows == {} and board.headline() == (
        "3/4 trials ended (2 completed, 1 pruned); best 75.00 % (trial 00001); 2 epochs/min; stopping"
    )


def test_a_line_says_why_a_trial_was_restarted(capsys: pytest.CaptureFixture[str]) -> None:
    with watch(Board(1), "ddarts resume runs/mine") as listen:
        listen(SweepEvent("restarted", "00002", 2, LONG, epochs=1, reason="ValueError: of a plug-in"))
    assert capsys.readouterr().out == "trial 00002 restarted after epoch 1: ValueError: of a plug-in\n"


def test_settings_stand_below_their_row_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = {"parameters": 1234567, "macs": 1}
    done = {"trial_id": "00000", "number": 0, "state": "COMPLETED", "reason": None, "objectives": {METRIC: 0.9}}
    rows = [{**done, "cost": cost, "params": LONG}]
    rows += [{**done, "trial_id": "00001", "state": "PRUNED", "reason": "stopped", "objectives": None, "cost": None}]
    rows[1]["params"] = LONG
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((80, 24)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_ranking(rows, [(METRIC, "max")], last={"00001": 0.4})
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80 and "1,234,567" in lines[2] and lines[3].startswith("    ablation.loss=centered,")
    below = " ".join(lines[-2:])
    assert "held out 40.00 % at last; stopped" in " ".join(below.split()) and "pruned" in "".join(lines)


STOPPED_TWICE = """
import signal, sys, time
from ddarts_cli.sweeping import board_of, watch
from ddarts_tuning.cluster.connection import polite_stops
from ddarts_tuning.driver.events import SweepEvent
signal.signal(signal.SIGINT, signal.default_int_handler)
with watch(board_of(None, 1), "ddarts resume here") as listener:
    with polite_stops(lambda: listener(SweepEvent("stopping", "", -1, {}))):
        signal.signal(signal.SIGUSR1, lambda *_: None)  # as Ray Tune's, which notes it
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)
        signal.raise_signal(signal.SIGINT)
"""


def test_the_first_stop_answers_at_once_and_the_second_ends_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED_TWICE], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("stopping: every trial is kept") and done.stdout.count("\n") == 1
    assert done.returncode == 130 and done.stderr.endswith("\ngo on: ddarts resume here\n")
    assert "Traceback" not in done.stderr


def test_a_stop_reaches_ray_once_and_tells_in_a_thread() -> None:
    heard: list[str] = []
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    told = threading.Event()

    def hear() -> None:
        heard.append(threading.current_thread().name)
        told.set()

    try:
        with polite_stops(hear):
            signal.signal(signal.SIGUSR1, lambda *_: heard.append("ray"))
            signal.raise_signal(signal.SIGTERM)
            assert told.wait(10) and sorted(heard) == ["ray", "stopping"]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, kept)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Of four trials planned: one complete, one pruned after two epochs, one that runs."""
    space = {"search.lr": {"type": "float", "low": 0.01, "high": 0.1}}
    config = resolve_sweep({"space": space, "tune": {"num_samples": 4}})
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config), "state": "RUNNING"}
    made = create_study(tmp_path / "mine", {**stored, "objectives": [{"metric": METRIC, "mode": "max"}]})
    for number, state in enumerate(("COMPLETED", "PRUNED", "RUNNING")):
        begin(made, number, {"search.lr": 0.05})
        file = trial_dir(made.path, number) / "trial.json"
        found: dict[str, Any] = {METRIC: 0.8} if state == "COMPLETED" else {}
        write_json(file, {**read_json(file), "state": state, "objectives": found or None})
    records = [EpochRecord(epoch, "search", {"held_out/accuracy": 0.2 * (epoch + 1)}) for epoch in range(2)]
    write_jsonl(trial_dir(made.path, 1) / "records.jsonl", [*records, EpochRecord(0, "retrain", {"train/loss": 1.0})])
    return made


def test_a_sweep_that_goes_on_counts_what_was_done(study: Study) -> None:
    assert board_of(study, 4).headline() == "2/4 trials ended (1 completed, 1 pruned); best 80.00 % (trial 00000)"
    assert board_of(None, 4).headline() == "0/4 trials ended"


def test_status_shows_what_became_of_each_trial_and_watches_until_the_sweep_is_over(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            study.update(state="FINISHED")

    monkeypatch.setattr("ddarts_cli.commands.status.time.sleep", wait)
    with lock(study.path):
        assert run(["status", str(study.path), "--watch", "--every", "3"]) == 0
    shown = capsys.readouterr().out
    assert waits == [3, 3] and shown.count("4 trials planned, 1 running, 1 completed, 1 pruned") == 2
    assert shown.count("search.lr=0.05; held out 40.00 % at last") == 3
    assert run(["status", str(study.path), "--watch", "--json"]) == 2


def test_only_the_best_trials_weights_are_kept(study: Study) -> None:
    for number, value in ((3, 0.9), (4, 0.7)):
        begin(study, number, {"search.lr": 0.05})
        file = trial_dir(study.path, number) / "trial.json"
        write_json(file, {**read_json(file), "state": "COMPLETED", "objectives": {METRIC: value}})
    for number in (0, 2, 3, 4):
        (trial_dir(study.path, number) / WEIGHTS).touch()
    keep_best_weights(study)
    there = sorted(file.parent.name for file in study.path.glob(f"trials/*/{WEIGHTS}"))
    assert there == ["00002", "00003"], "of one that runs, and of the best"
