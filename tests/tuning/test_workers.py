"""kill -9 of a trial's process, and damaged checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver.callback import note_end, track_end
from ddarts_tuning.driver.new_study import new_study
from ddarts_tuning.driver.sweep import run_again
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.checkpoints import found
from ddarts_tuning.store.study import find_study
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord, read_jsonl
from tests.tuning.processes import Driver, by_hand, epochs_of, events_of, faults, results

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

ONE = {"tune": {"num_samples": 1}}


@pytest.mark.slow
def test_a_killed_worker_costs_one_epoch_at_most(make_sweep: Make) -> None:
    """And nothing comes out otherwise. Once killed, with the driver: `test_resume.py`."""
    config = make_sweep("struck", **ONE)
    path = config.study_dir
    driver = Driver("run", path, config)
    for epochs in (1, 3):  # once in the search, once in the training
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs)  # type: ignore[misc]
        driver.strike()
    assert driver.finish().startswith("finished 0")
    assert not any(faults(path, 1, (2, 2)).values())
    events = events_of(path)
    assert [event["number"] for event in events if event["kind"] == "restarted"] == [0, 0]
    reported = [event["epochs"] for event in events if event["kind"] == "epoch"]
    assert set(reported) == {1, 2, 3, 4} and len(reported) <= 6
    assert results(path) == by_hand(make_sweep("calm", **ONE), path)


# --- checkpoints, without Ray ---------------------------------------------------------------------------------------

PARAMS = {"search.w_zero_one": 1.0, "ablation.loss": "centered", "ablation.weight": 0.5}


@pytest.fixture
def trial(make_sweep: Make, tmp_path: Path) -> Callable[[], SearchTrial]:
    """Makes a process's side of trial 0 of a new study, anew at every call."""
    study = new_study(make_sweep("alone", storage=str(tmp_path)))
    begin(study, 0, PARAMS)
    return lambda: SearchTrial({"study": str(study.path), "number": 0})


@pytest.mark.parametrize(("damaged", "left"), [([], 3), ([3], 2), ([2, 3], 0)])
def test_a_trial_goes_on_from_its_last_intact_checkpoint(
    trial: Callable[[], SearchTrial], tmp_path: Path, damaged: list[int], left: int
) -> None:
    """Or begins anew; what comes out is the same."""
    first = trial()
    for _ in range(3):
        first.step()
    first.cleanup()  # killed
    folder = tmp_path / "alone" / "trials" / "00000"
    whole = read_jsonl(folder / "records.jsonl")
    assert len(whole) == 3 and sorted(found(folder)) == [2, 3]
    for epochs in damaged:
        file = found(folder)[epochs]
        file.write_bytes(file.read_bytes()[:-100])
    second = trial()
    assert read_jsonl(folder / "records.jsonl") == whole[:left]
    reports = [second.step() for _ in range(4 - left)]
    assert [report.get("state") for report in reports] == [None] * (3 - left) + ["COMPLETED"]
    assert read_jsonl(folder / "records.jsonl")[:3] == whole and not found(folder)
    again = trial()  # its process died before it could report the end
    assert again.step() == reports[-1]


def test_a_trial_that_failed_without_a_process_goes_on_in_its_run(
    trial: Callable[[], SearchTrial], tmp_path: Path
) -> None:
    study = find_study(tmp_path / "alone")
    note_end(study, 0, "FAILED", "no process could be started")
    assert track_end(study, 0, None) and run_again(study) == 1
    process = trial()
    process.step()
    process.cleanup()
    assert [name for _, name in tracking.child_runs(study, "RUNNING")] == ["00000"]
    assert not tracking.child_runs(study, "FAILED")


def test_an_epoch_that_nobody_was_told_of_is_reported_first(trial: Callable[[], SearchTrial], tmp_path: Path) -> None:
    """Killed between its checkpoint and its record: a scheduler that compares trials after it must not miss it."""
    first = trial()
    first.step()
    last = first.step()
    first.cleanup()
    records = tmp_path / "alone" / "trials" / "00000" / "records.jsonl"
    records.write_text(records.read_text().splitlines(keepends=True)[0])
    second = trial()
    assert second.step() == last and second.step()["epochs"] == 3


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
    for _ in range(3):
        first.step()
    assert calls == [0, 1, 0]
    folder = tmp_path / "alone" / "trials" / "00000"
    data = [plain(record, timing=True) for record in first._records]
    assert (folder / "records.jsonl").read_text() == "".join(json.dumps(each) + "\n" for each in data)
    assert checkpoint.load(found(folder)[3])["records"] == json.dumps(data)


def test_mlflow_is_sent_an_epoch_once_its_checkpoint_is_written(
    trial: Callable[[], SearchTrial], tmp_path: Path
) -> None:
    """So what is done again after a kill is sent once, and is what the records have."""
    folder = tmp_path / "alone" / "trials" / "00000"
    first = trial()
    first.step()
    first.step()
    first.cleanup()  # killed before the second checkpoint was whole
    found(folder)[2].unlink()
    assert [step for step, _ in points(first, "train/loss")] == [0]
    second = trial()
    while not second.step().get("done"):
        pass
    records = read_jsonl(folder / "records.jsonl")
    for prefix, of_phase in (("", records[:2]), ("retrain/", records[2:])):
        part = next(iter(of_phase[0].seconds))
        assert points(second, f"{prefix}seconds/{part}") == [(r.epoch, r.seconds[part]) for r in of_phase]


def points(trial: SearchTrial, name: str) -> list[tuple[int, float]]:
    """What MLflow has of a metric."""
    client = tracking.make_client(trial._study.data["tracking_uri"])
    return [(point.step, point.value) for point in client.get_metric_history(str(trial._sender.run_id), name)]


def test_what_is_recorded_of_the_network_is_that_of_the_one_that_is_trained(make_sweep: Make, tmp_path: Path) -> None:
    retrain = {"num_cells": 7, "reductions": [5, 6], "derive_order": "published"}
    study = new_study(make_sweep("sized", storage=str(tmp_path), search={"num_cells": 5, "epochs": 1}, retrain=retrain))
    begin(study, 0, {})
    trial = SearchTrial({"study": str(study.path), "number": 0})
    trial.step()
    trial.step()
    assert trial._retrain is not None
    assert trial._record["cost"]["parameters"] == trial._retrain.network.num_parameters
