"""Two machines with a network of their own between them: network namespaces, joined by a cable that can be pulled.

They share the disk, as over a shared file system that outlives the cable: so what a machine that is cut off still does
reaches the study, beside the process that goes on for it. That test comes last: the cable stays pulled. What starts on
the cluster is started on the head: Ray looks for its node among the processes of both, which are one machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.settings.config import SweepConfig

from tests.tuning.conftest import Make
from tests.tuning.processes import TRIALS, epochs_of, faults, results

BIN = Path(sys.executable).parent
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
HEAD, SECOND = "10.77.0.1", "10.77.0.2"
PORT, STORE, SERVER = 6379, 5001, 5002
ROOT = Path(__file__).parents[2]


BOTH_ARE_THERE = f"""
import ray, time
ray.init("{HEAD}:{PORT}", log_to_driver=False)
while len(ray.nodes()) < 2:
    time.sleep(0.2)  # Ray tells nobody that a node joined
"""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def ip(*words: str) -> None:
    """The command, which only root may use."""
    subprocess.run(["ip", *words], env={"PATH": PATH}, check=True)


def title_of(pid: int) -> bytes:
    """What a process calls itself; nothing if it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@dataclass(frozen=True)
class Machines:
    """The environment of processes on both, their networks' names, and where Ray on each keeps its state."""

    env: dict[str, str]
    names: tuple[str, str]
    states: tuple[str, str]

    def start(self, machine: int, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A process on one of them."""
        words = ["ip", "netns", "exec", self.names[machine], *command]
        env = self.env | {"RAY_TMPDIR": self.states[machine]}
        return subprocess.Popen(words, env=env, text=True, start_new_session=True, **options)

    def finish(self, machine: int, *command: str) -> str:
        """Run a command on one of them to its end; what it printed."""
        process = self.start(machine, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        return output

    def pids(self, machine: int) -> list[int]:
        """Processes on one of them."""
        words = ["ip", "netns", "pids", self.names[machine]]
        return [*map(int, subprocess.run(words, env=self.env, capture_output=True, text=True).stdout.split())]

    def has_trial(self, machine: int) -> bool:
        """Whether a trial's process is on one of them."""
        return any(title_of(pid).startswith(TRIALS) for pid in self.pids(machine))

    def pull_the_cable(self) -> None:
        ip("-n", self.names[1], "link", "set", "cable", "down")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    names = (f"one-{os.getpid()}", f"two-{os.getpid()}")
    if os.geteuid() != 0 or shutil.which("ip", path=PATH) is None:
        pytest.skip("needs root and iproute2")
    if subprocess.run(["ip", "netns", "add", names[0]], env={"PATH": PATH}, capture_output=True).returncode:
        pytest.skip("may not make networks")
    folder = tmp_path_factory.mktemp("machines")
    states = (tempfile.mkdtemp(prefix="ray-", dir="/tmp"), tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short paths
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1", "PATH": PATH}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env |= {"AWS_ENDPOINT_URL": f"http://{HEAD}:{STORE}", "AWS_DEFAULT_REGION": "us-east-1"}
    env |= {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "DDARTS_CACHE": str(folder / "cache")}
    made = Machines(env, names, states)
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, (HEAD, SECOND), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "route", "add", "default", "dev", "cable")  # by which Ray finds its own address
        common = ["--num-cpus=1", "--block", "--object-store-memory=100000000", "--disable-usage-stats"]
        head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--node-ip-address={HEAD}"]
        second = [f"--address={HEAD}:{PORT}", f"--node-ip-address={SECOND}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        made.start(0, str(BIN / "ray"), "start", *head, "--temp-dir", states[0], *common, **quiet)
        time.sleep(5)  # until the head listens: a node that finds none gives up
        made.start(1, str(BIN / "ray"), "start", *second, "--temp-dir", states[1], *common, **quiet)
        made.finish(0, sys.executable, "-c", BOTH_ARE_THERE)
        yield made
    finally:
        for pid in (*made.pids(0), *made.pids(1)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], env=env, capture_output=True)
        for state in states:
            shutil.rmtree(state, ignore_errors=True)


def sweep(config: SweepConfig, folder: Path) -> tuple[str, ...]:
    """The command, on the cluster."""
    file = folder / f"{config.name}.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    return (str(BIN / "ddarts"), "sweep", str(file), "--address", f"{HEAD}:{PORT}")


def wait(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.1)  # what is waited for tells nobody


SETTINGS: dict[str, Any] = {
    "data": {"num_train": 1400},  # trials that last until the other machine has one too
    "search": {"epochs": 8},
    "tune": {"num_samples": 3, "max_concurrent": 2},
}


@pytest.fixture(scope="module")
def calm(make_sweep: Make) -> list[Any]:
    """What the sweep comes to on one machine."""
    return results(run_sweep(make_sweep("calm", **SETTINGS)).study.path)


def test_machines_that_share_a_store_and_an_mlflow_server(
    machines: Machines, make_sweep: Make, calm: list[Any], tmp_path: Path
) -> None:
    """Both on the first machine; the trials of the second reach them over the cable."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    machines.start(0, str(BIN / "moto_server"), "-H", HEAD, "-p", str(STORE), **quiet)
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/ml.db"]
    server += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    machines.start(0, *server, "--host", HEAD, "--port", str(SERVER), **quiet)
    make_bucket = f"""
import socket, time, s3fs
for port in ({STORE}, {SERVER}):
    while socket.socket().connect_ex(("{HEAD}", port)):
        time.sleep(0.2)  # until the servers listen
s3fs.S3FileSystem().mkdir("studies")
"""
    machines.finish(1, sys.executable, "-c", make_bucket)
    config = make_sweep("stored", storage="s3://studies/runs", tracking={"uri": f"http://{HEAD}:{SERVER}"}, **SETTINGS)
    process = machines.start(0, *sweep(config, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait(process, lambda: machines.has_trial(0) and machines.has_trial(1))
    assert process.communicate(timeout=300)[0] and process.returncode == 0
    look = f"""
import json
from tests.tuning.processes import faults, find_study, results
path = find_study("{config.study_location}").path
print(json.dumps([results(path), faults(path, 3, (8, 2))]))
"""
    found, wrong = json.loads(machines.finish(1, sys.executable, "-W", "ignore", "-c", look).splitlines()[-1])
    assert found == json.loads(json.dumps(calm))
    assert not any(wrong.values())


def test_a_training_by_a_worker_on_each_machine(machines: Machines, tmp_path: Path) -> None:
    settings = ("data.num_train=60", "retrain.epochs=2", "retrain.channels=2", "retrain.batch_size=15")
    command = [str(BIN / "ddarts"), "retrain", "zoo:ResNet18", *(w for text in settings for w in ("--set", text))]
    cluster = ["--num-workers", "2", "--address", f"{HEAD}:{PORT}"]
    machines.finish(0, *command, "--out", str(tmp_path / "two"), *cluster)
    machines.finish(0, *command, "--out", str(tmp_path / "one"))
    losses = [
        [record["train/loss"] for record in pd.read_parquet(file).to_dict("records")]
        for file in (tmp_path / name / "genotype-seed-0" / "records.parquet" for name in ("one", "two"))
    ]
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-2)  # training amplifies rounding
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)


def test_a_cable_is_pulled(machines: Machines, make_sweep: Make, calm: list[Any], tmp_path: Path) -> None:
    """Both machines have trials; the one that is cut off loses its own to the other, and no result differs."""
    config = make_sweep("cut", **SETTINGS)
    path = config.study_dir
    process = machines.start(0, *sweep(config, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait(process, lambda: machines.has_trial(0) and machines.has_trial(1))
    wait(process, lambda: all(epochs_of(path, number) >= 2 for number in (0, 1)))
    machines.pull_the_cable()
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    assert results(path) == calm
    assert not any(faults(path, 3, (8, 2)).values())
