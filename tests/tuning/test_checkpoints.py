"""Which checkpoints of a trial stay, and which one it goes on from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.checkpoints import clear, file_of, forget, found, intact, is_checkpoint
from ddarts_tuning.store.locks import await_workers
from ddarts_tuning.store.study import find_study

from ddarts_core.loops import checkpoint
from tests.tuning.processes import Driver, epochs_of, faults, repeats, results

Make = Callable[..., SweepConfig]


def write(folder: Path, *epochs: int) -> None:
    for each in epochs:
        checkpoint.save(file_of(folder, each), {"epochs": each})


def epochs(folder: Path, **limits: Any) -> list[int]:
    return [int(state["epochs"]) for state in intact(folder, **limits)]


def test_the_furthest_intact_one_counts_whatever_the_clock_says(tmp_path: Path) -> None:
    """Written by a machine whose clock runs behind, and over one that was there; a damaged one is passed over."""
    write(tmp_path, 9, 10, 100)
    for file, hours in ((file_of(tmp_path, 9), 0), (file_of(tmp_path, 100), 5)):
        os.utime(file, (time.time() - 3600 * hours,) * 2)
    (tmp_path / "checkpoint-x.pt").touch()
    assert list(found(tmp_path)) == [9, 10, 100] and epochs(tmp_path) == [100, 10, 9]
    assert epochs(tmp_path, above=9) == [100, 10] and epochs(tmp_path, above=8, up_to=10) == [10, 9]
    file_of(tmp_path, 100).write_bytes(b"half")
    assert epochs(tmp_path) == [10, 9]
    write(tmp_path, 1_000_000)
    assert epochs(tmp_path)[0] == 1_000_000 and is_checkpoint("trials/00000/checkpoint-1000000.pt")
    assert not is_checkpoint("trials/00000/checkpoint-x.pt") and not is_checkpoint("trials/00000/records.jsonl")


def test_two_stay_and_the_one_that_another_trial_may_go_on_from(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4)
    forget(tmp_path, lasting=2)
    assert list(found(tmp_path)) == [2, 3, 4]
    forget(tmp_path)
    assert list(found(tmp_path)) == [3, 4]
    clear(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_kills_around_the_end_of_a_trial(make_sweep: Make) -> None:
    """What ended is not begun again, and its checkpoints go: the results are those without a kill."""
    groups: dict[str, Any] = {"search": {"epochs": 12}, "retrain": {"epochs": 1}, "tune": {"num_samples": 2}}
    config = make_sweep("calm", **groups)
    assert Driver("run", config.study_dir, config).finish().startswith("finished 0")
    calm = results(config.study_dir)
    config = make_sweep("ending", **groups)
    path = config.study_dir

    def checkpoints() -> list[Path]:
        return list(path.glob("trials/00000/checkpoint-*.pt"))

    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) > 0 and find_study(path).trials()[0]["state"] == "COMPLETED")
    driver.kill()
    for _ in range(2):
        driver = Driver("resume", path)
        driver.wait_for(lambda: find_study(path).trials()[0]["state"] == "COMPLETED" and not checkpoints())
        driver.kill()
        await_workers(path, "trials")
    driver = Driver("resume", path)
    driver.wait_for(lambda: epochs_of(path, 1) >= 1)
    driver.kill()
    assert Driver("resume", path).finish().startswith("finished 0")
    assert not any(faults(path, 2, (12, 1)).values())
    assert results(path) == calm
    assert not list(path.rglob("checkpoint*.pt")) and not list(path.rglob("*.pkl"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_kill_after_a_resume_costs_more_than_an_epoch(make_sweep: Make) -> None:
    """The driver and then the trial's process are killed, again and again."""
    tune = {"num_samples": 1, "searcher": "random", "max_failures": 9}
    config = make_sweep("again", search={"epochs": 20}, retrain={"epochs": 1}, tune=tune)
    path = config.study_dir
    driver = Driver("run", path, config)
    for epochs in (9, 15):
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs)  # type: ignore[misc]  # no type for a default
        driver.kill()
        driver = Driver("resume", path)
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs + 2)  # type: ignore[misc]  # no type for a default
        driver.strike()
    assert driver.finish().startswith("finished 0")
    assert max(repeats(path), default=0) <= 1
    assert not any(faults(path, 1, (20, 1)).values())
