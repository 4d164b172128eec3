"""A cluster of two nodes as `ray start` makes it, with a token: joined by address, by Ray Client, and refused."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tuning.config import SweepConfig
from tuning.study import find_study

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class TwoNodes:
    """Two nodes on loopback."""

    address: str
    client: str
    env: dict[str, str]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    folder = tmp_path_factory.mktemp("nodes")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    gcs, client = _free_port(), _free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
    env |= {"RAY_USAGE_STATS_ENABLED": "0"}
    common = ["--num-cpus=1", "--block", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={gcs}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
    starts = [[*head, "--node-ip-address=127.0.0.1"], [f"--address=127.0.0.1:{gcs}", "--node-ip-address=127.0.0.1"]]
    processes = []
    for start in starts:
        process = subprocess.Popen(
            [BIN / "ray", "start", *start, *common], env=env, cwd=folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        _wait(lambda: _answers(gcs))
    try:
        yield TwoNodes(f"127.0.0.1:{gcs}", f"ray://127.0.0.1:{client}", env)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def sweep(nodes: TwoNodes, config: SweepConfig, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`ddarts sweep` in a process of its own."""
    file = config.study_dir.parent / f"{config.name}.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    return subprocess.run(
        [BIN / "ddarts", "sweep", str(file), *arguments],
        env=nodes.env | env, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def small(make_sweep: Make, name: str, **tune: Any) -> SweepConfig:
    one = {"num_samples": 2, "max_concurrent": 2, "objective": "supernet", **tune}
    return make_sweep(name, search={"epochs": 1}, tune=one, tracking={"log_artifacts": False})


@pytest.mark.parametrize("way", ["address", "client"])
def test_a_sweep_on_two_nodes_with_a_token(nodes: TwoNodes, make_sweep: Make, way: str) -> None:
    config = small(make_sweep, f"by-{way}")
    ended = sweep(nodes, config, "--address", getattr(nodes, way))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [trial["state"] for trial in find_study(config.study_dir).trials()] == ["COMPLETED"] * 2


@pytest.mark.parametrize("way", ["address", "client"])
def test_a_wrong_token_is_one_sentence(nodes: TwoNodes, make_sweep: Make, tmp_path: Path, way: str) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(32))
    config = small(make_sweep, f"wrong-{way}")
    ended = sweep(nodes, config, "--address", getattr(nodes, way), RAY_AUTH_TOKEN_PATH=str(wrong))
    assert ended.returncode == 2
    assert "does not let this process in" in ended.stderr.splitlines()[-1]
