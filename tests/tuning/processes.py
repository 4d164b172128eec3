"""Sweeps in processes of their own, to be killed, and what must be whole afterwards."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ddarts_tuning.driver.new_study import new_study
from ddarts_tuning.searchers.journal import open_journal
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.study import find_study
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.loops.records import read_jsonl

RUN = """
import json, sys
from ddarts_core.ground.errors import UserError
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.driver.extending import extend_sweep
from ddarts_tuning.driver.sweep import resume_sweep, run_sweep
mode, argument, events, *address = sys.argv[1:]
def note(event):
    with open(events, "a") as file:
        file.write(json.dumps({"kind": event.kind, "number": event.number, "epochs": event.epochs}) + "\\n")
where = {"address": address[0]} if address else {"num_cpus": 2}
try:
    if mode == "resume":
        result = resume_sweep(argument, listener=note, **where)
    else:
        start = {"run": run_sweep, "extend": extend_sweep}[mode]
        result = start(resolve_sweep(json.loads(argument)), listener=note, **where)
except UserError as error:
    sys.exit(f"Error: {error}")
print("interrupted" if result.interrupted else "finished", result.untracked, result.message)
"""


class Driver:
    """A process that runs, resumes or extends a study.

    Args:
        mode: `run`, `resume` or `extend`.
        path: the study's folder.
        config: of the sweep; not needed to resume.
        address: of the Ray cluster; None starts Ray in the process.
        location: of a study to resume, when it is not `path` but a URI.
        python: that runs it.
    """

    def __init__(
        self,
        mode: str,
        path: Path,
        config: SweepConfig | None = None,
        address: str | None = None,
        location: str | None = None,
        python: str = sys.executable,
    ) -> None:
        self.events = path.parent / f"{path.name}.events"
        self._earlier = len(events_of(path))
        self._path = path
        self.output = ""
        argument = (location or str(path)) if config is None else json.dumps(config.model_dump(mode="json"))
        self.process = subprocess.Popen(
            [python, "-c", RUN, mode, argument, str(self.events), *([address] if address else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def told(self, kind: str) -> int:
        """How many events of a kind this process told of, and none before it."""
        return sum(event["kind"] == kind for event in events_of(self._path)[self._earlier :])

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the process runs trials and the condition holds, which may have held before the process began.

        It waits while the process runs, at most 15 minutes: a test has a limit of its own.
        """
        until = time.monotonic() + 900
        while not (self.told("started") and condition()):
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise AssertionError(self.process.communicate()[0])
            time.sleep(0.02)

    def finish(self, status: int = 0) -> str:
        """Wait for the end, with this exit status; the last line printed."""
        self.output, _ = self.process.communicate(timeout=900)
        assert self.process.returncode == status, self.output
        return self.output.splitlines()[-1]

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def workers(self) -> list[int]:
        """Process numbers of the trials: descendants of the driver that Ray has given a trial."""
        return trials_below(self.process.pid)

    def strike(self) -> None:
        """kill -9 of the trials' processes; wait until a trial goes on in another one."""
        before = self.told("restarted")
        self.wait_for(lambda: bool(self.workers()))  # the last ones may have been killed a moment ago
        for worker in self.workers():
            os.kill(worker, signal.SIGKILL)
        self.wait_for(lambda: self.told("restarted") > before)


TRIALS = (b"ray::ResourceTrainable", b"ray::SearchTrial")
"""What Ray calls a trial's process."""


def trials_below(ancestor: int) -> list[int]:
    """Process numbers of the trials that descend from a process."""
    parents: dict[int, int] = {}
    trials = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended
        if title.startswith(TRIALS):
            trials.append(int(folder.name))
    return sorted(pid for pid in trials if ancestor in _ancestors(pid, parents))


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found


def left_behind(state: str) -> list[int]:
    """Processes of a Ray that keeps its state in a folder, whose parents may have ended."""
    found = subprocess.run(["ps", "-wweo", "pid,args"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in found if state in line]


class Server:
    """An MLflow server on loopback, on a database of its own.

    Args:
        folder: of its database and artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/ml.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "--port", str(self._port), "--workers", "1"],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 300
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < until
            time.sleep(0.2)

    def kill(self) -> None:
        """kill -9, its worker too."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        """Whether the process that serves is there; the socket takes connections some seconds earlier."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


PASSWORD = "S3cR#t/4711"
LOGIN = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
FORMS = (PASSWORD, quote(PASSWORD, safe=""), LOGIN, "S3cR")


class Guard(http.server.ThreadingHTTPServer):
    """Passes on to an MLflow server what comes with the password; whatever else comes is refused, and counted.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), Guarded)
        self.behind = server.uri.removeprefix("http://")
        self.folder = server.folder
        self.uri = f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:{self.server_port}"
        self.passed = self.refused = 0

    def __enter__(self) -> Guard:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        super().__exit__(*error)


class Guarded(http.server.BaseHTTPRequestHandler):
    server: Guard

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Basic {LOGIN}":
            self.server.refused += 1
            return self._answer(401, b"")
        self.server.passed += 1
        there = http.client.HTTPConnection(self.server.behind)
        there.request(self.command, self.path, body, dict(self.headers))
        reply = there.getresponse()
        return self._answer(reply.status, reply.read())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def told(text: str) -> bool:
    """Whether a text has the password in any of its forms."""
    return any(form in text for form in FORMS)


def leaks(*folders: str | Path) -> list[Path]:
    """Files that have it."""
    files = [file for folder in folders for file in Path(folder).rglob("*") if file.is_file()]
    assert len(files) > 20
    return [file for file in files if told(file.read_bytes().decode("latin-1"))]


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")


def has_slurm() -> bool:
    """Whether Slurm's daemons can be started here."""
    return os.geteuid() == 0 and all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in SLURM)


def epochs_of(study: Path, number: int) -> int:
    """Epochs that a trial has recorded."""
    return len(read_jsonl(study / "trials" / f"{number:05d}" / "records.jsonl"))


def events_of(path: Path) -> list[dict[str, Any]]:
    """What all drivers of a study were told; nothing if it was run without one."""
    file = path.parent / f"{path.name}.events"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def repeats(path: Path) -> list[int]:
    """How many epochs were done again each time that a trial went on after a kill: at most one is allowed."""
    done: dict[int, int] = {}
    found = []
    for event in events_of(path):
        if event["kind"] == "epoch":
            again = done.get(event["number"], 0) - event["epochs"] + 1
            found += [again] if again > 0 else []
            done[event["number"]] = event["epochs"]
    return found


def results(path: Path) -> list[Any]:
    """What the same seed must reproduce of each trial: parameters, objectives, genotype and every record."""
    return [
        (
            trial["number"],
            trial["params"],
            trial["objectives"],
            trial["genotype_hash"],
            [record.to_dict() for record in read_jsonl(path / "trials" / trial["trial_id"] / "records.jsonl")],
        )
        for trial in find_study(path).trials()
    ]


def by_hand(config: SweepConfig, path: Path) -> list[Any]:
    """What `results` of a study must be: trials of its parameters, run one after the other in this process without Ray.

    Args:
        config: of a sweep with the same settings in another folder.
        path: of the study.
    """
    study = new_study(config)
    for trial in find_study(path).trials():
        begin(study, trial["number"], trial["params"])
        process = SearchTrial({"study": str(study.path), "number": trial["number"]})
        while not process.step().get("done"):
            pass
        process.cleanup()
    return results(study.path)


def faults(path: Path, num_trials: int, num_epochs: tuple[int, int]) -> dict[str, int]:
    """What is missing or double in a finished study, in its folder, in MLflow and in Optuna's journal; all 0 is whole.

    An epoch that was done again counts when it was not the only one of its trial at that kill.

    Args:
        path: the study's folder.
        num_trials: that must be COMPLETED.
        num_epochs: of the search and of the training of each.
    """
    study = find_study(path)
    trials = study.trials()
    client = tracking.make_client(study.data["tracking_uri"])
    runs = client.search_runs([study.data["experiment_id"]])
    journal = open_journal(path / "optuna.log", study.name, {"directions": ["maximize"]}).get_trials()
    numbers = sorted(trial.user_attrs["number"] for trial in journal if trial.state.name == "COMPLETE")
    points = lost = doubled = 0
    for trial in trials:
        lost += sum(num_epochs) - len(read_jsonl(path / "trials" / trial["trial_id"] / "records.jsonl"))
        for name, expected in zip(("train/loss", "retrain/train/loss"), num_epochs, strict=True):
            steps = [metric.step for metric in client.get_metric_history(trial["run_id"], name)]
            points += expected - len(set(steps))
            doubled += len(steps) - len(set(steps))
    return {
        "trials lost": num_trials - sum(trial["state"] == "COMPLETED" for trial in trials),
        "trials double": len(trials) - len({trial["number"] for trial in trials}),
        "epochs lost": lost,
        "epochs repeated": sum(again - 1 for again in repeats(path)),
        "points lost": points,
        "points double": doubled,
        "runs not ended": sum(run.info.status != "FINISHED" for run in runs) + abs(len(runs) - num_trials - 1),
        "journal wrong": int(numbers != list(range(num_trials))),
        "study not ended": int(study.state != "FINISHED"),
    }
