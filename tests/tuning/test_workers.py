"""kill -9 of a trial's process, and damaged checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # it has no types
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray.train._internal.session import _TrainingResult

from ddarts_core import checkpoint
from ddarts_core.errors import UserError
from ddarts_core.records import EpochRecord, read_jsonl
from tests.tuning.processes import Driver, epochs_of, events_of, faults, results
from tuning import tracking
from tuning.config import SweepConfig
from tuning.new_study import new_study
from tuning.study import hold
from tuning.trainable import CHECKPOINT, SearchTrial

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

TWO = {"tune": {"num_samples": 2}}


@pytest.fixture(scope="module")
def calm(make_sweep: Make) -> list[Any]:
    """What an undisturbed sweep gives."""
    config = make_sweep("calm", **TWO)
    assert Driver("run", config.study_dir, config).finish().startswith("finished 0")
    return results(config.study_dir)


def test_a_killed_worker_costs_one_epoch_at_most(make_sweep: Make, calm: list[Any]) -> None:
    config = make_sweep("struck", **TWO)
    path = config.study_dir
    driver = Driver("run", path, config)
    for number, epochs in ((0, 1), (1, 3)):  # once in a search, once in a training
        driver.wait_for(lambda number=number, epochs=epochs: epochs_of(path, number) >= epochs)  # type: ignore[misc]
        workers = driver.workers()
        assert workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    assert driver.finish().startswith("finished 0")
    assert not any(faults(path, 2, (2, 2)).values())
    events = events_of(path)
    assert [event["number"] for event in events if event["kind"] == "restarted"] == [0, 1]
    for number in (0, 1):
        reported = [event["epochs"] for event in events if event["kind"] == "epoch" and event["number"] == number]
        assert set(reported) == {1, 2, 3, 4} and len(reported) <= 5
    assert results(path) == calm


# --- checkpoints, without Ray ---------------------------------------------------------------------------------------


@pytest.fixture
def trial(make_sweep: Make, tmp_path: Path) -> Callable[[], SearchTrial]:
    """Makes a process's side of trial 0 of a new study, anew at every call."""
    study = new_study(make_sweep("alone", storage=str(tmp_path)))
    params = {"search.w_zero_one": 1.0, "ablation.loss": "centered", "ablation.weight": 0.5}
    return lambda: SearchTrial({"study": str(study.path), "number": 0, "params": params})


def save(trial: SearchTrial, folder: Path) -> Path:
    folder.mkdir(parents=True)
    trial.save_checkpoint(str(folder))
    return folder


def test_a_damaged_checkpoint_sends_a_trial_back_to_the_last_good_one(
    trial: Callable[[], SearchTrial], tmp_path: Path
) -> None:
    first = trial()
    folders = []
    for epoch in range(4):
        first.step()
        folders.append(save(first, tmp_path / "ray" / f"checkpoint_{epoch:06d}"))
    records = tmp_path / "alone" / "trials" / "00000" / "records.jsonl"
    whole = read_jsonl(records)
    assert len(whole) == 4
    for folder in folders[2:]:
        file = folder / CHECKPOINT
        file.write_bytes(file.read_bytes()[:-100])
    second = trial()
    second._record["state"] = "RUNNING"  # as if it had been killed before its end
    second.load_checkpoint(str(folders[3]))
    assert read_jsonl(records) == whole[:2]
    reports = [second.step(), second.step()]
    assert [report.get("state") for report in reports] == [None, "COMPLETED"]
    assert read_jsonl(records) == whole


def test_an_epoch_is_serialised_once(
    trial: Callable[[], SearchTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not again with every epoch after it, in the file and in the checkpoint; what is written is the same."""
    plain, calls = EpochRecord.to_dict, []

    def counted(record: EpochRecord, timing: bool = False) -> dict[str, Any]:
        calls.append(record.epoch)
        return plain(record, timing)

    monkeypatch.setattr(EpochRecord, "to_dict", counted)
    first = trial()
    for epoch in range(4):
        first.step()
        folder = save(first, tmp_path / "ray" / f"checkpoint_{epoch:06d}")
    assert calls == [0, 1, 0, 1]
    written = (tmp_path / "alone" / "trials" / "00000" / "records.jsonl").read_text()
    data = [plain(record, timing=True) for record in first._records]
    assert written == "".join(json.dumps(each) + "\n" for each in data)
    assert checkpoint.load(folder / CHECKPOINT)["records"] == json.dumps(data)


def test_mlflow_is_sent_an_epoch_once_its_checkpoint_is_written(
    trial: Callable[[], SearchTrial], tmp_path: Path
) -> None:
    """So what is done again after a kill is sent once, and is what the records have."""
    first = trial()
    first.step()
    folder = save(first, tmp_path / "ray" / "checkpoint_000000")
    first.step()
    first.cleanup()  # killed before the second checkpoint was whole
    assert [step for step, _ in points(first, "train/loss")] == [0]
    second = trial()
    second.load_checkpoint(str(folder))
    while not second.step().get("done"):
        pass
    records = read_jsonl(tmp_path / "alone" / "trials" / "00000" / "records.jsonl")
    for prefix, of_phase in (("", records[:2]), ("retrain/", records[2:])):
        part = next(iter(of_phase[0].seconds))
        assert points(second, f"{prefix}seconds/{part}") == [(r.epoch, r.seconds[part]) for r in of_phase]


def points(trial: SearchTrial, name: str) -> list[tuple[int, float]]:
    """What MLflow has of a metric."""
    client = tracking.make_client(trial._study.data["tracking_uri"])
    return [(point.step, point.value) for point in client.get_metric_history(str(trial._sender.run_id), name)]


def test_a_checkpoint_that_is_gone_is_not_missed(trial: Callable[[], SearchTrial], tmp_path: Path) -> None:
    """Ray's note of a trial may be older than the checkpoints that are kept."""
    first = trial()
    for epoch in range(3):
        first.step()
        save(first, tmp_path / "ray" / f"checkpoint_{epoch:06d}")
    shutil.rmtree(tmp_path / "ray" / "checkpoint_000000")
    second = trial()
    gone = tune.Checkpoint(str(tmp_path / "ray" / "checkpoint_000000"), LocalFileSystem())
    second.restore(_TrainingResult(checkpoint=gone, metrics={"training_iteration": 1}))
    assert second.step()["epochs"] == 4


def test_no_checkpoint_is_needed_after_the_end(trial: Callable[[], SearchTrial], tmp_path: Path) -> None:
    """Ray may not have noted the end: the trial reports it once more. One that has not ended needs a checkpoint."""
    first, gone = trial(), tune.Checkpoint(str(tmp_path / "ray" / "checkpoint_000000"), LocalFileSystem())
    noted = _TrainingResult(checkpoint=gone, metrics={"training_iteration": 3})
    for _ in range(3):
        first.step()
    with pytest.raises(ValueError, match="does not exist"):
        trial().restore(noted)
    last = first.step()
    second = trial()
    second.restore(noted)
    assert second.step() == last and last["state"] == "COMPLETED"
    assert second.training_iteration == 3


@pytest.mark.parametrize("stored", [False, True])
def test_a_trial_that_ray_had_not_noted_goes_on_under_its_new_name(
    stored: bool, make_sweep: Make, tmp_path: Path
) -> None:
    """From the newest of its number's checkpoints, also when it was renamed before."""
    groups = {"storage": f"memory://{tmp_path.name}"} if stored else {"storage": str(tmp_path)}
    study = new_study(make_sweep("renamed", tracking={"uri": f"sqlite:///{tmp_path}/ml.db"}, **groups))
    params = {"search.w_zero_one": 1.0, "ablation.loss": "none"}
    filesystem, root = url_to_fs(study.location)
    with hold(study):
        for epochs, name in enumerate(("ray/00000_zz", "ray-2/00000_mm", "ray/00000_aa"), start=1):
            trial = SearchTrial({"study": study.location, "number": 0, "params": params})
            assert trial.step()["epochs"] == epochs
            folder = save(trial, tmp_path / "written" / name)
            filesystem.put(f"{folder}/", f"{root}/{name}/checkpoint_000000/", recursive=True)
            trial.cleanup()  # killed
            time.sleep(0.01)  # so that the next checkpoint is later on any clock


def test_what_is_recorded_of_the_network_is_that_of_the_one_that_is_trained(make_sweep: Make, tmp_path: Path) -> None:
    retrain = {"num_cells": 7, "reductions": [5, 6], "derive_order": "published"}
    study = new_study(make_sweep("sized", storage=str(tmp_path), search={"num_cells": 5, "epochs": 1}, retrain=retrain))
    trial = SearchTrial({"study": str(study.path), "number": 0, "params": {}})
    trial.step()
    trial.step()
    assert trial._retrain is not None
    assert trial._record["cost"]["parameters"] == trial._retrain.network.num_parameters


def test_a_trial_without_an_intact_checkpoint_says_so(trial: Callable[[], SearchTrial], tmp_path: Path) -> None:
    first = trial()
    first.step()
    file = save(first, tmp_path / "ray" / "checkpoint_000000") / CHECKPOINT
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"trial\.pt"):
        trial().load_checkpoint(str(file.parent))
