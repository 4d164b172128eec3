"""`tune.resources: auto`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ddarts_tuning.cluster import resources
from ddarts_tuning.cluster.machines import Machine
from ddarts_tuning.cluster.resources import (
    Device,
    check_smallest,
    cluster_device,
    idle_gpus,
    largest_trial,
    this_device,
    with_resources,
)
from ddarts_tuning.driver.new_study import create_study, new_study
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.space import base_settings, trial_config
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.data.sets import data_info
from ddarts_core.estimates import room
from ddarts_core.estimates.memory import step_memory
from ddarts_core.ground.errors import UserError

Make = Callable[..., SweepConfig]

SPACE: dict[str, Any] = {
    "search.channels": {"type": "int", "low": 2, "high": 6},
    "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0},
}


@pytest.fixture
def sweep(make_sweep: Make) -> SweepConfig:
    return make_sweep("auto", space=SPACE, tune={"resources": "auto"})


def test_the_largest_trial_counts(sweep: SweepConfig) -> None:
    largest = largest_trial(sweep, sweep.build_space(), Device("cpu", 2**34, cpus=2, gpus=0))
    assert largest.search.channels == 6 and sweep.search.channels == 2


@pytest.mark.parametrize(("gibibytes", "share"), [(80, 0.05), (1, 0.5), (0.6, 0.85)])
def test_share_of_a_gpu(sweep: SweepConfig, gibibytes: float, share: float) -> None:
    """CUDA itself takes half a GiB, so tiny searches need half of a GPU of 1 GiB."""
    device = Device("cuda", int(gibibytes * 2**30), cpus=8, gpus=1)
    resources = with_resources(sweep, sweep.build_space(), device).tune.fixed_resources
    assert resources.gpu == share
    assert int(1 / share) * resources.cpu <= 8


def test_cores_of_a_machine_without_gpu_follow_its_memory(sweep: SweepConfig) -> None:
    space = sweep.build_space()
    ample = with_resources(sweep, space, Device("cpu", 64 * 2**30, cpus=4, gpus=0)).tune.fixed_resources
    tight = with_resources(sweep, space, Device("cpu", 2 * 2**30, cpus=4, gpus=0)).tune.fixed_resources
    assert (ample.cpu, ample.gpu) == (1.0, 0.0)
    assert tight.cpu == 2.0


def test_what_can_never_fit_is_refused_with_what_would(make_sweep: Make) -> None:
    space = {"search.channels": {"type": "int", "low": 2, "high": 128}}
    config = make_sweep("large", search={"steps": 1}, space=space, tune={"resources": "auto"})
    with pytest.raises(UserError, match=r"channels 128.*needs about .* GiB, the GPU has 0\.55 GiB: at most search\.ch"):
        with_resources(config, config.build_space(), Device("cuda", 560 * 2**20, cpus=4, gpus=1))


@pytest.mark.parametrize(
    ("path", "choices", "taken"),
    [
        ("search.order", ["first", "second"], "second"),
        ("search.checkpoint_cells", [True, False], False),
        ("discretise.rule", ["darts", "edge"], "edge"),
    ],
)
def test_of_a_choice_the_one_that_takes_most_counts(
    make_sweep: Make, path: str, choices: list[Any], taken: Any
) -> None:
    space = {**SPACE, path: {"type": "categorical", "choices": choices}}
    groups: dict[str, Any] = {"ablation": {"loss": "none"}, "tune": {"resources": "auto"}}
    if path == "discretise.rule":  # which only a training shows that takes more than the search
        groups["retrain"] = {"channels": 32, "batch_size": 100}
    config = make_sweep("choices", space=space, **groups)
    largest = largest_trial(config, config.build_space(), Device("cpu", 2**34, cpus=2, gpus=0))
    group, _, name = path.partition(".")
    assert largest.model_dump()[group][name] == taken
    assert largest.search.channels == 6


@pytest.mark.parametrize("objective", ["derived", "supernet"])
def test_a_training_that_cannot_fit_is_refused_with_its_own_settings(make_sweep: Make, objective: str) -> None:
    settings = {"channels": 64, "batch_size": 100}
    tune = {"resources": "auto", "objective": objective}
    config = make_sweep(f"training-{objective}", space=SPACE, retrain=settings, tune=tune)
    device = Device("cuda", 600 * 2**20, cpus=4, gpus=1)
    if objective == "supernet":  # nothing is trained
        assert with_resources(config, config.build_space(), device).tune.fixed_resources.gpu > 0
        return
    with pytest.raises(UserError, match=r"retrain\.channels 64, retrain\.batch_size 100\) needs") as refused:
        with_resources(config, config.build_space(), device)
    advice = str(refused.value).partition("GiB: ")[2]
    assert "search." not in advice
    for path, value in re.findall(r"retrain\.(\w+) (\d+)", advice):
        smaller = make_sweep("smaller", space=SPACE, retrain={**settings, path: int(value)}, tune=tune)
        assert with_resources(smaller, smaller.build_space(), device).tune.fixed_resources.gpu > 0


def test_resources_that_are_given_stay(make_sweep: Make) -> None:
    config = make_sweep("given", tune={"resources": {"cpu": 0.5}})
    assert with_resources(config, config.build_space()) is config


def gpu_machine(name: str, cpus: float, gpus: float, memory: int = 64 * 2**30) -> Machine:
    return Machine(name, name, cpus, gpus, memory)


def test_on_a_cluster_the_smallest_machine_with_gpus_decides(make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine where the sweep is started, a head without a GPU, has no say."""
    there = [gpu_machine("head", 4, 0), gpu_machine("large", 32, 4), gpu_machine("small", 4, 1)]
    sizes = {"large": 80 * 2**30, "small": 24 * 2**30}
    asked: list[str] = []

    def gpu_memory(machine: Machine) -> int:
        asked.append(machine.node)
        return sizes[machine.node]

    monkeypatch.setattr(resources, "machines", lambda: there)
    monkeypatch.setattr(resources, "gpu_memory", gpu_memory)
    config = make_sweep("cluster", tune={"resources": "auto"})
    assert cluster_device(config) == Device("cuda", 24 * 2**30, cpus=4, gpus=1)
    assert asked == ["large", "small"]
    found = with_resources(config, config.build_space(), cluster_device(config)).tune.fixed_resources
    assert (found.cpu, found.gpu) == (0.2, 0.05)  # twenty on the GPU of the small machine share its four cores
    on_cpus = make_sweep("cpus", tune={"resources": "auto"}, search={"device": "cpu"}, retrain={"device": "cpu"})
    assert cluster_device(on_cpus) == Device("cpu", 64 * 2**30, cpus=32, gpus=0)
    monkeypatch.setattr(resources, "machines", list)
    with pytest.raises(UserError, match="no machine of the Ray cluster has cores"):
        cluster_device(config)


ASKED = """
import ray
from ddarts_core.ground.errors import UserError
from ddarts_tuning.cluster.machines import gpu_memory, machines
ray.init("local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
taken = ray.remote(num_gpus=2)(lambda: __import__("time").sleep(60)).remote()  # by others
machine, = machines()
print(machine.cpus, machine.gpus, machine.memory > 2**28)
try:
    gpu_memory(machine)
except UserError as error:
    print(error)
"""


def test_a_gpu_is_asked_for_its_memory_where_it_is() -> None:
    """Ray takes our word for two GPUs; torch finds none, and the question waits for no share of them."""
    env = {**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    assert first == "1.0 2.0 True"
    assert second.startswith("tune.resources auto: Ray counts 2 GPUs on ") and "torch finds none there" in second


@pytest.mark.parametrize(
    ("search", "retrain", "objective", "kind"),
    [("auto", "auto", "derived", "cuda"), ("cpu", "auto", "derived", "cuda"), ("cpu", "auto", "supernet", "cpu")],
)
def test_trials_that_compute_on_cpus_take_no_gpu(
    make_sweep: Make, monkeypatch: pytest.MonkeyPatch, search: str, retrain: str, objective: str, kind: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda k: SimpleNamespace(total_memory=(24 - k) * 2**30))
    groups: dict[str, Any] = {"search": {"device": search}, "retrain": {"device": retrain}}
    config = make_sweep(f"{search}-{objective}", tune={"resources": "auto", "objective": objective}, **groups)
    found = this_device(config)
    assert found.kind == kind
    assert kind == "cpu" or (found.memory, found.gpus) == (23 * 2**30, 2)
    assert idle_gpus(config) == 0
    given = make_sweep(f"given-{search}-{objective}", tune={"objective": objective}, **groups)
    assert idle_gpus(given) == (2 if kind == "cuda" else 0)


def test_a_gpu_that_trials_are_not_given_is_refused(make_sweep: Make) -> None:
    with pytest.raises(UserError, match=r"search\.device cuda, but trials get no GPU: set tune\.resources\.gpu"):
        make_sweep("none", search={"device": "cuda"})
    with pytest.raises(UserError, match=r"retrain\.device cuda:1: a trial sees only the GPU that Ray gives it"):
        make_sweep("other", retrain={"device": "cuda:1"}, tune={"resources": {"gpu": 0.5}})
    assert make_sweep("shared", search={"device": "cuda"}, tune={"resources": {"gpu": 0.5}}).search.device == "cuda"


def test_a_search_is_given_one_gpu_at_most(make_sweep: Make) -> None:
    assert make_sweep("one", tune={"resources": {"gpu": 1}}).tune.fixed_resources.gpu == 1
    for many in (2, 1.5):
        with pytest.raises(UserError, match=r"a search uses one GPU: give at most 1; .*`ddarts retrain "):
            make_sweep("two", tune={"resources": {"gpu": many}})


# --- what a trial's process keeps to -------------------------------------------------------------------------------

SEEN = """
import json, os
import ray
from ddarts_tuning.cluster.connection import start_ray
start_ray(num_cpus=2)
def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")
print(json.dumps([ray.get(ray.remote(num_cpus=share)(seen).remote()) for share in (0.5, 2)]))
"""


def test_a_trial_without_a_gpu_sees_none_and_has_the_threads_of_its_cores() -> None:
    """On a machine whose GPU is visible to the driver."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-c", SEEN], env={**env, "CUDA_VISIBLE_DEVICES": "0"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["", "1"], ["", "2"]]


@pytest.mark.parametrize(
    ("gpu", "capped", "refused"), [(0.25, [0.1875], ""), (1.0, [], ""), (0.0, [], ""), (0.05, [], "at least 0.08")]
)
def test_a_share_of_a_gpu_is_a_share_of_its_memory(
    make_sweep: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpu: float,
    capped: list[float],
    refused: str,
) -> None:
    """CUDA's context, which torch does not count, comes out of the share: 500 MiB of these 8,000."""
    config = make_sweep("shares", storage=str(tmp_path), tune={"resources": {"cpu": 2.0, "gpu": gpu}})
    study = create_study(
        config.study_dir, {"config": config.model_dump(mode="json"), "base": base_settings(config), "objectives": []}
    )
    asked: list[float] = []
    threads = torch.get_num_threads()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda k: SimpleNamespace(total_memory=8000 * 2**20))
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", asked.append)
    try:
        trial = SearchTrial.__new__(SearchTrial)
        trial._sweep, trial._impossible = study.data["config"], None
        trial._limit_resources()
        assert asked == capped
        assert (refused in trial._impossible) if refused else trial._impossible is None  # type: ignore[operator]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_sweep_of_which_no_trial_fits_is_refused_and_a_trial_that_does_not_fit_says_so(
    make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = {"search.channels": {"type": "int", "low": 2, "high": 64}}
    config = make_sweep("large", storage=str(tmp_path), space=channels, search={"batch_size": 30})
    space, info = config.build_space(), data_info(config.data)
    smallest = trial_config(base_settings(config), {"search.channels": 2})
    need = step_memory(smallest, info, torch.device("cpu")).peak
    monkeypatch.setattr(room, "memory_of", lambda device: need)
    check_smallest(config, space, info)
    study = new_study(config)
    begin(study, 0, {"search.channels": 64})
    report = SearchTrial({"study": str(study.path), "number": 0}).step()
    assert report["state"] == "FAILED" and "3 cells of 64 channels, batches of 30) needs at least" in report["reason"]
    monkeypatch.setattr(room, "memory_of", lambda device: need - 1)
    with pytest.raises(UserError, match="3 cells of 2 channels, batches of 30"):
        run_sweep(make_sweep("none", storage=str(tmp_path), space=channels))
    assert not (tmp_path / "none").exists()


def test_what_depends_on_a_choice_is_asked_about_with_it(make_sweep: Make) -> None:
    """FBNetV2's published resolutions leave too few of eight pixels: the method alone would be refused."""

    def only(value: str | int) -> dict[str, Any]:
        return {"type": "categorical", "choices": [value], "when": {"method": ["fbnetv2"]}}

    method = {"type": "categorical", "choices": ["fbnetv2"]}
    options = {"blocks": only("small"), "hidden": only(0), "resolutions": only(1)}
    space = {"method": method, **{f"search.options.{name}": value for name, value in options.items()}}
    config = make_sweep("eight", space=space, ablation={"loss": "none"})
    check_smallest(config, config.build_space(), data_info(config.data))


def test_a_gpu_that_refuses_its_share_ends_the_trial_with_the_reason(
    make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cap(share: float) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    study = new_study(make_sweep("full", storage=str(tmp_path), tune={"resources": {"gpu": 0.5}}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda k: SimpleNamespace(total_memory=8000 * 2**20))
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", cap)
    params = {"search.w_zero_one": 1.0, "ablation.loss": "none"}
    begin(study, 0, params)
    report = SearchTrial({"study": str(study.path), "number": 0}).step()
    assert report["done"] and report["state"] == "FAILED"
    [trial] = study.trials()
    assert trial["state"] == "FAILED" and trial["reason"].startswith("CUDA error: out of memory Compile")
