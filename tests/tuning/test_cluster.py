"""Several machines: the ready files, and a node that dies."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ddarts_tuning.cluster.connection import start_ray
from ddarts_tuning.cluster.machines import Machine, check_room, machines, room
from ddarts_tuning.driver.events import SweepEvent
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.tune import ResourcesConfig, TuneConfig

from ddarts_core.ground.errors import UserError
from tests.tuning import rayjob_schema
from tests.tuning.processes import faults

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

FILES = Path(__file__).parents[2] / "docs" / "cluster"


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FILES / name).read_text())
    return loaded


def test_launcher_file_is_what_rays_launcher_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("ray-cluster.yaml")
    jsonschema.validate(config, launcher_schema())  # what is written in the file, without what Ray fills in
    validate_config(prepare_config(config))
    starts = [line for name in ("head", "worker") for line in config[f"{name}_start_ray_commands"] if " start " in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line and "OVERRIDE_ON_ZERO=1" in line for line in starts)


def launcher_schema() -> dict[str, Any]:
    """The schema of a launcher file that Ray ships."""
    from ray import autoscaler

    loaded: dict[str, Any] = json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text())
    return loaded


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["max_worker"], 2),
        (["provider", "type"], None),
        (["auth", "ssh_user"], 1),
        (["setup_commands"], "pip install ddarts"),
        (["max_workers"], "two"),
    ],
)
def test_a_wrong_launcher_file_fails(path: list[Any], value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(read("ray-cluster.yaml"), path, value), launcher_schema())


def changed(data: Any, path: list[Any], value: Any) -> Any:
    """A copy with one value set; None takes the key away."""
    copied = copy.deepcopy(data)
    *way, last = path
    inner = functools.reduce(lambda found, key: found[key], way, copied)
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return copied


def test_rayjob_is_what_kuberay_takes() -> None:
    rayjob_schema.validate(read("rayjob.yaml"))


HEAD = ["spec", "rayClusterSpec", "headGroupSpec"]
WORKERS = ["spec", "rayClusterSpec", "workerGroupSpecs", 0]
CONTAINER = [*WORKERS, "template", "spec", "containers", 0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["apiVersion"], "ray.io/v1alpha1"),
        (["spec", "entryPoint"], "ddarts"),
        (["spec", "submissionMode"], "K8SJobMode"),
        (["spec", "shutdownAfterJobFinishes"], "yes"),
        (["spec", "ttlSecondsAfterFinished"], "600"),
        (["spec", "rayClusterSpec", "headGroupSpec"], None),
        (["spec", "rayClusterSpec", "rayVersion"], 2.6),
        (["spec", "rayClusterSpec", "authOptions", "mode"], "tokens"),
        ([*HEAD, "rayStartParams", "num-cpus"], 0),
        ([*HEAD, "template"], None),
        ([*WORKERS, "groupName"], None),
        ([*WORKERS, "maxReplicas"], None),
        ([*WORKERS, "replica"], 2),
        ([*WORKERS, "minReplicas"], -1),
        ([*CONTAINER, "volumemounts"], []),
        ([*CONTAINER, "name"], None),
        ([*CONTAINER, "env", 0, "value"], 1),
        ([*CONTAINER, "volumeMounts", 0, "mountPath"], None),
        ([*CONTAINER, "resources", "limit"], {}),
        ([*WORKERS, "template", "spec", "volumes", 0, "persistentVolumeClaim", "claimName"], None),
        ([*HEAD, "template", "spec", "containers", 0, "ports", 0, "containerPort"], "6379"),
    ],
)
def test_a_wrong_rayjob_fails(path: list[Any], value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        rayjob_schema.validate(changed(read("rayjob.yaml"), path, value))


def test_rayjob_holds_together() -> None:
    """What no schema says: everything that is named is there, and what is written is on the mounted claim."""
    job = read("rayjob.yaml")
    assert job["spec"]["entrypoint"].startswith("ddarts sweep ")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for template in rayjob_schema.pods(job["spec"]):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            assert container["image"]
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes == {"storage"}
            assert all(mount["mountPath"] in job["spec"]["entrypoint"] for mount in container["volumeMounts"])
            assert container["resources"]["limits"] == container["resources"]["requests"]


def test_no_cluster_at_an_address_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'.*auto, HOST:PORT or ray://"):
        start_ray(address="127.0.0.1:9")


WORK = """
import os, ray
from ddarts_tuning.cluster.connection import start_ray
start_ray(num_cpus=1)
session = ray._private.worker._global_node.get_session_dir_path()
os.makedirs(f"{session}/artifacts/working_dirs/00000_x")
print(session)
"""


def test_the_working_folders_of_trials_go_with_the_ray_that_was_started_for_them() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], check=True, capture_output=True, text=True)
    session = Path(done.stdout.split()[-1])
    assert session.is_dir() and not (session / "artifacts").exists()


@pytest.mark.parametrize("failures", [2, 3])
@pytest.mark.parametrize(
    "reason",
    [
        "RuntimeError: Starting Ray client server failed. See it for logs.",
        "TimeoutError: GetOrCreateRuntimeEnv request failed after 5 attempts. Last exception: refused",
    ],
)
def test_a_busy_head_is_asked_again(
    reason: str, failures: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A head of Ray Client gives a new client's server 30 s, and answers as here when that was not enough.

    What Ray itself says of it stands before no sentence.
    """
    import ray

    answer = f"Initialization failure from server:\n{reason}"
    asked: list[str] = []

    def init(address: str, **_: Any) -> None:
        asked.append(address)
        if len(asked) <= failures:
            warnings.warn("Ray Client connection timed out.", stacklevel=1)
            (own := logging.getLogger("ray.util.client.logsclient")).setLevel(logging.INFO)
            own.warning("Log channel is reconnecting.")
            raise ConnectionAbortedError(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        monkeypatch.setattr(ray, "init", init)
        address = f"ray://127.0.0.1:{listener.getsockname()[1]}"
        refused = pytest.raises(UserError, match=r"started no server for this process in 3 attempts; its head")
        with refused if failures == 3 else contextlib.nullcontext():
            start_ray(address=address)
    assert asked == [address] * 3 and not said and not caplog.records


@pytest.mark.parametrize(
    ("there", "cpu", "gpu", "expected"),
    [
        ([(1, 0), (1, 0)], 2.0, 0.0, 0),
        ([(1, 0), (1, 0)], 1.0, 0.0, 2),
        ([(3, 0), (5, 0)], 2.0, 0.0, 3),
        ([(4, 0)], 0.1, 0.0, 40),
        ([(8, 1), (8, 1)], 1.0, 1.0, 2),
        ([(8, 2), (1, 2)], 1.0, 0.4, 5),  # two to a GPU: none straddles two
        ([(1, 0), (1, 2)], 2.0, 0.5, 0),
        ([(8, 0), (1, 2)], 2.0, 0.5, 0),  # the cores here, the GPUs there
        ([], 1.0, 0.0, 0),
    ],
)
def test_a_trial_fits_on_one_machine_or_on_none(
    monkeypatch: pytest.MonkeyPatch, there: list[tuple[int, int]], cpu: float, gpu: float, expected: int
) -> None:
    found = [Machine(f"node{k}", "host", cpus, gpus, 2**36) for k, (cpus, gpus) in enumerate(there)]
    monkeypatch.setattr("ddarts_tuning.cluster.machines.machines", lambda: found)
    config = TuneConfig(num_samples=100, resources=ResourcesConfig(cpu=cpu, gpu=gpu))
    assert room(config) == expected
    for cluster, most in ((False, None), (False, 3), (True, None), (True, 3)):
        tune = config.model_copy(update={"max_concurrent": most})
        refused = not expected and not (cluster and most)  # an autoscaler may start a machine that it fits on
        with pytest.raises(UserError, match="fits on none") if refused else contextlib.nullcontext():
            check_room(tune, cluster)


@pytest.mark.slow
def test_what_fits_on_no_node_is_refused_before_anything_is_written(make_sweep: Make) -> None:
    """Two nodes of one core, and a head that takes no trials: a trial of two cores would wait for ever."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    config = make_sweep("wide", tune={"num_samples": 1, "max_concurrent": None, "resources": {"cpu": 2.0}})
    try:
        with pytest.raises(UserError, match=r"cpu 2, gpu 0: a trial runs on one machine.*\(1 CPUs and 0 GPUs\)"):
            run_sweep(config, address=cluster.address)
        assert len(machines()) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]  # ray
    assert not config.study_dir.exists()


@pytest.mark.slow
def test_a_node_that_dies_takes_no_trial_with_it(make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with a trial each; the second node is killed after its trial's first epoch."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    begun: set[int] = set()
    killed: list[int] = []
    restarted: list[int] = []

    def watch(event: SweepEvent) -> None:
        begun.add(event.number)
        if event.kind == "epoch" and len(begun) == 1:
            time.sleep(2)  # or the first trial might end, and the second take over its process, before it has one
        if event.kind == "epoch" and event.number == 1 and not killed:
            killed.append(event.epochs)
            cluster.remove_node(node, allow_graceful=False)
        if event.kind == "restarted":
            restarted.append(event.number)

    config = make_sweep("nodes", search={"epochs": 8}, tune={"num_samples": 2, "max_concurrent": 2})
    try:
        result = run_sweep(config, listener=watch, address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]  # ray
    assert killed and not result.interrupted
    assert len(restarted) == 1
    assert not any(faults(config.study_dir, 2, (8, 2)).values())
