"""Several machines: the ready files, and a node that dies."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddarts_core.errors import UserError
from tests.tuning.processes import faults
from tuning.cluster import start_ray
from tuning.config import SweepConfig
from tuning.events import SweepEvent
from tuning.sweep import run_sweep

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

FILES = Path(__file__).parents[2] / "docs" / "cluster"


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FILES / name).read_text())
    return loaded


def test_launcher_file_is_what_rays_launcher_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("ray-cluster.yaml")
    validate_config(prepare_config(config))
    starts = [line for name in ("head", "worker") for line in config[f"{name}_start_ray_commands"] if " start " in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line and "OVERRIDE_ON_ZERO=1" in line for line in starts)


def test_rayjob_holds_together() -> None:
    """What a RayJob (ray.io/v1) must have, and that everything that is named is there."""
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["metadata"]["name"] and job["spec"]["entrypoint"].startswith("ddarts sweep ")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"] and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert volumes == {"storage"}
        for container in pod["containers"]:
            assert container["image"] and container["name"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert all(mount["mountPath"] in job["spec"]["entrypoint"] for mount in container["volumeMounts"])
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits == requests and all(isinstance(value, str) for value in limits.values())
            assert all(isinstance(variable["value"], str) for variable in container.get("env", []))


def test_slurm_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", str(FILES / "sweep.slurm")], check=True)


def test_no_cluster_at_an_address_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'.*auto, HOST:PORT or ray://"):
        start_ray(address="127.0.0.1:9")


def test_a_node_that_dies_takes_no_trial_with_it(make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with a trial each; the second node is killed after its trial's first epoch."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    killed: list[int] = []
    restarted: list[int] = []

    def watch(event: SweepEvent) -> None:
        if event.kind == "epoch" and event.number == 1 and not killed:
            killed.append(event.epochs)
            cluster.remove_node(node, allow_graceful=False)
        if event.kind == "restarted":
            restarted.append(event.number)

    config = make_sweep("nodes", search={"epochs": 4}, tune={"num_samples": 2, "max_concurrent": 2})
    try:
        result = run_sweep(config, listener=watch, address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]  # ray
    assert killed and not result.interrupted
    assert len(restarted) == 1
    assert not any(faults(config.study_dir, 2, (4, 2)).values())
