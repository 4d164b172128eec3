"""kill -9 of a trial, the driver and the MLflow server, Ctrl-C, a full disk: a resume completes a sweep, whole."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.locks import await_workers
from ddarts_tuning.store.study import find_study
from ddarts_tuning.tracking import study_run as tracking

from tests.tuning.processes import Driver, Server, by_hand, epochs_of, events_of, faults, results
from tests.tuning.test_moving import check_place

pytestmark = pytest.mark.filterwarnings("ignore")

Make = Callable[..., SweepConfig]

NONE: dict[str, int] = dict.fromkeys(
    (
        "trials lost",
        "trials double",
        "epochs lost",
        "epochs repeated",
        "points lost",
        "points double",
        "runs not ended",
        "journal wrong",
        "study not ended",
    ),
    0,
)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def stop(driver: Driver, path: Path, sent: signal.Signals) -> None:
    """Send a signal to the whole group, as `timeout` and a terminal do: all is kept, and how to go on is said."""
    os.killpg(driver.process.pid, sent)
    last = driver.finish()
    assert last.startswith("interrupted") and f"`ddarts resume {path}`" in last
    study = find_study(path)
    assert study.state == "INTERRUPTED"
    client = tracking.make_client(study.data["tracking_uri"])
    assert "RUNNING" not in {run.info.status for run in client.search_runs([study.data["experiment_id"]])}


def test_a_study_whose_processes_are_killed_and_that_is_copied_and_stopped_loses_nothing(
    make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a trial's process is killed, then the driver, both in the middle of that trial's search.

    The copy goes on and leaves the study alone; one polite stop of the copy keeps everything, too. Nothing comes out
    otherwise. TMPDIR is too long for Ray's sockets.
    """
    temporary = tmp_path / ("t" * 80)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    groups: dict[str, Any] = {"search": {"epochs": 12}, "tune": {"num_samples": 2}}
    config = make_sweep("killed", **groups)
    path, copy = config.study_dir, tmp_path / "copy"
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) >= 3)
    (worker,) = driver.workers()
    os.kill(worker, signal.SIGKILL)
    before = epochs_of(path, 0)
    driver.wait_for(lambda: epochs_of(path, 0) >= before + 3)
    driver.kill()
    assert epochs_of(path, 0) < 12
    assert find_study(path).state == "INTERRUPTED"
    await_workers(path, "trials")
    shutil.copytree(path, copy)
    shutil.copy(driver.events, tmp_path / "copy.events")  # epochs that the copy repeats are counted
    left = contents(path)
    driver = Driver("resume", copy)
    driver.wait_for(lambda: epochs_of(copy, 1) >= 1)
    stop(driver, copy, signal.SIGTERM)
    assert Driver("resume", copy).finish().startswith("finished 0")
    assert faults(copy, 2, (12, 2)) == NONE
    check_place(copy, 2)
    assert [event["number"] for event in events_of(copy) if event["kind"] == "restarted"] == [0]
    assert results(copy) == by_hand(make_sweep("calm", **groups), copy)
    assert contents(path) == left


@pytest.mark.slow
def test_a_driver_that_is_killed_twice_loses_nothing(make_sweep: Make) -> None:
    config = make_sweep("killed-twice", tune={"num_samples": 3, "max_concurrent": 2})
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) >= 1 and epochs_of(path, 1) >= 2)
    driver.kill()
    driver = Driver("resume", path)
    driver.wait_for(lambda: epochs_of(path, 2) >= 3)
    driver.kill()
    assert Driver("resume", path).finish().startswith("finished 0")
    assert faults(path, 3, (2, 2)) == NONE


@pytest.mark.slow
def test_a_kill_while_a_study_is_extended(make_sweep: Make) -> None:
    """The trials of before stay as they are; the new ones are completed, by a scheduler that remembers the others."""
    tune = {"num_samples": 2, "max_concurrent": 2, "scheduler": "median", "grace_period": 9}  # it stops nobody
    config = make_sweep("extended", tune=tune)
    path = config.study_dir
    assert Driver("run", path, config).finish().startswith("finished 0")
    before = find_study(path).trials()
    driver = Driver("extend", path, config)
    driver.wait_for(lambda: epochs_of(path, 2) >= 1)
    driver.kill()
    assert Driver("resume", path).finish().startswith("finished 0")
    assert faults(path, 4, (2, 2)) == NONE
    assert find_study(path).trials()[:2] == before


@pytest.mark.slow
def test_ctrl_c_keeps_everything(make_sweep: Make) -> None:
    config = make_sweep("stopped", tune={"num_samples": 2})
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 1) >= 1)
    stop(driver, path, signal.SIGINT)
    assert Driver("resume", path).finish().startswith("finished 0")
    assert faults(path, 2, (2, 2)) == NONE


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.mark.slow
def test_an_mlflow_server_that_is_killed_and_started_again_has_everything_once(
    make_sweep: Make, server: Server
) -> None:
    config = make_sweep("served", tune={"num_samples": 2}, tracking={"uri": server.uri})
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) >= 2)
    server.kill()
    driver.wait_for(lambda: epochs_of(path, 1) >= 2)
    server.start()
    driver.finish()
    last = Driver("resume", path).finish()
    assert last.startswith("finished 0")
    assert faults(path, 2, (2, 2)) == NONE


@pytest.mark.slow
def test_a_raylet_that_stands_still_for_a_while_costs_nothing(make_sweep: Make) -> None:
    """For longer than the 30 s after which Ray Client and others give up."""
    config = make_sweep("still", tune={"num_samples": 2})
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) >= 1)
    (raylet,) = (child for child in psutil.Process(driver.process.pid).children() if child.name() == "raylet")
    raylet.suspend()
    time.sleep(35)
    raylet.resume()
    assert driver.finish().startswith("finished 0")
    assert faults(path, 2, (2, 2)) == NONE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """With room for some megabytes and for some hundreds of files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    room = "size=48m,nr_inodes=2000"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2**16, 0], ids=["no bytes", "no files"])
def test_a_full_disk_stops_a_sweep_with_one_sentence(make_sweep: Make, small_disk: Path, size: int) -> None:
    config = make_sweep("full", storage=str(small_disk), tune={"num_samples": 2})
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) >= 2)
    ballast = small_disk / "ballast"
    ballast.mkdir()
    while driver.process.poll() is None:
        fill(ballast, size)
    last = driver.finish(status=1)
    assert last.startswith(f"Error: no space is left for study {path}; ") and f"`ddarts resume {path}`" in last
    assert find_study(path).state == "INTERRUPTED"
    shutil.rmtree(ballast)
    assert Driver("resume", path).finish().startswith("finished 0")
    assert faults(path, 2, (2, 2)) == NONE


def fill(ballast: Path, size: int) -> None:
    """Write files of a size until there is no space."""
    with contextlib.suppress(OSError):
        for number in itertools.count(len(list(ballast.iterdir()))):
            (ballast / str(number)).write_bytes(os.urandom(size))
