"""A cluster of two nodes as `ray start` makes it, with a token, where ddarts is not installed at first.

Joined by address and by Ray Client, which both send the checkout's packages; refused; and joined by `auto` once the
wheel is installed, from an environment and a folder that know nothing of the checkout.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.settings.config import SweepConfig, TrackingConfig
from ddarts_tuning.store.study import find_study

from ddarts_core.ground.redact import without_secrets
from tests.installed import bare_environment, build_wheel, install
from tests.tuning.processes import Guard, Server, free_port, leaks, left_behind, told

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class TwoNodes:
    """Two nodes on loopback, and the environment of Python that they were started from."""

    address: str
    client: str
    env: dict[str, str]
    python: Path
    folder: Path


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    folder = tmp_path_factory.mktemp("nodes")
    python = bare_environment(folder / "venv")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    gcs, client = free_port(), free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
    state = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # of these nodes alone; paths of sockets must be short
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": state}
    common = ["--num-cpus=1", "--block", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={gcs}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
    second = [f"--address=127.0.0.1:{gcs}", "--num-gpus=1"]  # Ray takes our word for it
    starts = [[*start, "--node-ip-address=127.0.0.1"] for start in (head, second)]
    processes = []
    for start in starts:
        process = subprocess.Popen(
            [python, "-m", "ray.scripts.scripts", "start", *start, *common],
            env=env, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        _wait(lambda: _answers(gcs) and _answers(client))
    try:
        yield TwoNodes(f"127.0.0.1:{gcs}", f"ray://127.0.0.1:{client}", env, python, folder)
    finally:
        for pid in left_behind(state):  # ending them gently takes half a minute
            os.kill(pid, signal.SIGKILL)
        for process in processes:
            process.kill()
            process.wait(60)
        shutil.rmtree(state, ignore_errors=True)


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def sweep(
    nodes: TwoNodes, config: SweepConfig, *arguments: str, command: Path = BIN / "ddarts", **env: str
) -> subprocess.CompletedProcess[str]:
    """`ddarts sweep` in a process of its own, in a folder that is not the checkout."""
    file = config.study_dir.parent / f"{config.name}.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    return subprocess.run(
        [command, "sweep", str(file), *arguments],
        env=nodes.env | env, cwd=nodes.folder, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def small(make_sweep: Make, name: str, **tune: Any) -> SweepConfig:
    one = {"num_samples": 2, "max_concurrent": 2, "objective": "supernet", **tune}
    return make_sweep(name, search={"epochs": 1}, tune=one, tracking={"log_artifacts": False})


@pytest.mark.slow
@pytest.mark.parametrize("way", ["address", "client"])
def test_a_sweep_on_two_nodes_with_a_token(nodes: TwoNodes, make_sweep: Make, way: str) -> None:
    config = small(make_sweep, f"by-{way}")
    ended = sweep(nodes, config, "--address", getattr(nodes, way))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [trial["state"] for trial in find_study(config.study_dir).trials()] == ["COMPLETED"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("way", ["address", "client"])
def test_the_password_of_a_tracking_server_comes_by_the_sweep(
    nodes: TwoNodes, make_sweep: Make, tmp_path: Path, way: str
) -> None:
    """The nodes were started without it; none of their files has it."""
    server = Server(tmp_path)
    with Guard(server) as guard:
        config = small(make_sweep, f"guarded-{way}").model_copy(
            update={"tracking": TrackingConfig(uri=without_secrets(guard.uri), log_artifacts=False)}
        )
        ended = sweep(nodes, config, "--address", getattr(nodes, way), MLFLOW_TRACKING_URI=guard.uri)
        server.kill()
    assert ended.returncode == 0 and not told(ended.stdout + ended.stderr), ended.stdout + ended.stderr
    assert guard.passed and not guard.refused
    assert leaks(config.study_dir, guard.folder, nodes.env["RAY_TMPDIR"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("way", ["address", "client"])
def test_a_wrong_token_is_one_sentence(nodes: TwoNodes, make_sweep: Make, tmp_path: Path, way: str) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(32))
    config = small(make_sweep, f"wrong-{way}")
    ended = sweep(nodes, config, "--address", getattr(nodes, way), RAY_AUTH_TOKEN_PATH=str(wrong))
    assert ended.returncode == 2
    assert "does not let this process in" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_trials_at_a_time_with_half_a_gpu_each(nodes: TwoNodes, make_sweep: Make) -> None:
    """Places on a GPU that only Ray believes in: the trials compute on the CPU."""
    _wait_for_both(nodes)
    shared = {"num_samples": 4, "max_concurrent": None, "resources": {"cpu": 0.1, "gpu": 0.5}}
    config = small(make_sweep, "shared", **shared)
    ended = sweep(nodes, config, "--address", nodes.address, "--set", "search.device=cpu")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = [line.split()[2] for line in ended.stdout.splitlines() if line.startswith("trial ")]
    steps = [step for step in steps if step in ("started:", "completed")]
    running = list(accumulate(1 if step == "started:" else -1 for step in steps))
    assert len(steps) == 8 and max(running) == 2, ended.stdout


def _wait_for_both(nodes: TwoNodes) -> None:
    ask = [nodes.python, "-c", f"import ray; ray.init({nodes.address!r}); print(len(ray.nodes()))"]
    _wait(lambda: subprocess.run(ask, env=nodes.env, capture_output=True, text=True).stdout.endswith("2\n"))


@pytest.mark.slow
def test_a_training_by_a_worker_on_each_node(nodes: TwoNodes) -> None:
    """The nodes have no ddarts: the worker's code is sent. Here torch's group is opened as Ray does it."""
    _wait_for_both(nodes)
    settings = (
        "retrain.device=cpu",
        "data.num_train=60",
        "retrain.epochs=2",
        "retrain.channels=2",
        "retrain.batch_size=15",
    )
    command = ["retrain", "zoo:ResNet18", "--num-workers", "2", "--address", nodes.address, "--out", "trained"]
    ended = subprocess.run(
        [BIN / "ddarts", *command, *(word for setting in settings for word in ("--set", setting))],
        env=nodes.env, cwd=nodes.folder, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = nodes.folder / "trained" / "genotype-seed-0"
    assert {file.name for file in folder.iterdir()} == {"checkpoint.pt", "weights.pt", "records.parquet", "timings.csv"}


@pytest.mark.slow
def test_a_sweep_on_nodes_with_the_wheel(nodes: TwoNodes, make_sweep: Make) -> None:
    install(nodes.python, build_wheel(nodes.folder))
    where = [str(nodes.python), "-c", "import ddarts_tuning.cluster.connection as c; print(c.__file__, c.sent_code())"]
    found = subprocess.run(where, cwd=nodes.folder, check=True, capture_output=True, text=True).stdout.split()
    assert Path(found[0]).is_relative_to(nodes.folder / "venv") and found[1] == "[]", "nothing is sent"
    config = small(make_sweep, "by-wheel")
    ended = sweep(nodes, config, "--address", "auto", command=nodes.python.parent / "ddarts")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [trial["state"] for trial in find_study(config.study_dir).trials()] == ["COMPLETED"] * 2
