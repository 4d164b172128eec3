"""A sweep that wants more trials at a time than the machines hold: Ray's autoscaler starts one for it.

The autoscaler is the real one; the machines that it starts are nodes on this machine, by the provider that Ray's own
tests use.
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
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.study import find_study

from tests.tuning.processes import free_port, left_behind

Make = Callable[..., SweepConfig]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BIN = Path(sys.executable).parent

# The nodes that are there, and those where trials run: before the sweep and at every epoch.
SWEEP = """
import json, sys, time
import ray
from ray._private.state import actors
from ddarts_tuning.cluster.connection import start_ray
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.driver.sweep import run_sweep
def look():
    alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
    used = {actor["Address"]["NodeID"] for actor in alive if "Trainable" in actor["ActorClassName"]}
    seen.append([sorted(node["NodeID"] for node in ray.nodes() if node["Alive"]), sorted(used)])
    print(json.dumps(seen[-1]), flush=True)
def watch(event):
    if event.kind == "epoch":
        look()
        if all(len(used) < 2 for _, used in seen):
            time.sleep(2)  # so that the first trial lasts until the machine is there
seen = []
start_ray(address=sys.argv[2])
look()
run_sweep(resolve_sweep(json.loads(sys.argv[1])), listener=watch, address=sys.argv[2])
"""


@dataclass(frozen=True)
class Head:
    """The head of a cluster that grows, and the environment of who may join."""

    address: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with room for one trial; at most one machine more is started on demand."""
    port = free_port()
    state = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # of this cluster alone; paths of sockets must be short
    (state / "token").write_text(secrets.token_hex(32))
    (state / "autoscaler.json").write_text(json.dumps(autoscaler(f"127.0.0.1:{port}")))
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(state / "token"), "RAY_TMPDIR": str(state)}
    env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "OMP_NUM_THREADS": "1"}
    start = ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--node-ip-address=127.0.0.1"]
    start += [f"--autoscaling-config={state / 'autoscaler.json'}", "--num-cpus=1", "--include-dashboard=false"]
    process = subprocess.Popen(
        [BIN / "ray", "start", *start, "--object-store-memory=100000000", "--disable-usage-stats", "--block"],
        env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        yield Head(f"127.0.0.1:{port}", env)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        for pid in left_behind(str(state)):  # the autoscaler started the second node: it is nobody's child
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(state, ignore_errors=True)


def autoscaler(address: str) -> dict[str, Any]:
    """What the autoscaler of a head reads: one kind of machine, at most one of it."""
    machine = {"resources": {"CPU": 1}, "node_config": {}}
    stages = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "grows",
        "provider": {"type": "fake_multinode", "gcs_address": address, "use_node_id_as_ip": True},
        "head_node_type": "ray.head.default",  # the provider's name for it
        "available_node_types": {
            "ray.head.default": {**machine, "max_workers": 0},
            "worker": {**machine, "min_workers": 0, "max_workers": 1},
        },
        "max_workers": 1,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{stage}_commands": [] for stage in stages},
    }


def answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def test_a_waiting_trial_gets_a_machine(head: Head, make_sweep: Make) -> None:
    tune = {"num_samples": 3, "max_concurrent": 2, "objective": "supernet", "resources": {"cpu": 1}}
    config = make_sweep("grown", search={"epochs": 8}, tune=tune, tracking={"log_artifacts": False})
    command = [sys.executable, "-c", SWEEP, json.dumps(config.model_dump(mode="json")), head.address]
    ended = subprocess.run(command, env=head.env, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [trial["state"] for trial in find_study(config.study_dir).trials()] == ["COMPLETED"] * 3
    seen = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[[")]
    assert [len(part) for part in seen[0]] == [1, 0], "the head alone before the sweep"
    most, used = (max((epoch[i] for epoch in seen), key=len) for i in range(2))
    assert len(most) == 2, "the autoscaler started one machine, and no more"
    assert used == most, "trials ran on both at a time"
