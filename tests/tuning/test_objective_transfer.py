"""`tune.objective: transfer`: a trial's network is fine-tuned on another task, and its box AP there ranks the trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ddarts_analysis import report_text
from ddarts_analysis.study import read_study, trial_row
from ddarts_tuning.driver.extending import check_same
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.driver.sweep import _check_data, check_images
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.score import score_config
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.store.progress import num_epochs
from ddarts_tuning.store.study import Study
from ddarts_tuning.tracking.trial_run import epoch_metrics, final_metrics
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, read_jsonl
from ddarts_core.studies.study_files import TRANSFER_OBJECTIVE, read_json
from ddarts_core.transfer import shapes
from ddarts_core.transfer.scan import score_splits
from tests.test_transfer import TINY
from tests.tuning.test_budget import NoSender

Make = Callable[..., SweepConfig]

IMAGES = 12


@pytest.fixture(scope="module")
def config(make_sweep: Make, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """A sweep whose other task has no second split at all: nothing of it can be read."""
    root = tmp_path_factory.mktemp("shapes")
    shapes.write_coco(root, "train2017", IMAGES)
    shapes.write_classes(root / "classes", 24, 6)
    training = {path.removeprefix("training."): value for path, value in TINY.items() if path.startswith("training.")}
    return make_sweep(
        "other",
        data={"name": "folder", "root": str(root / "classes"), "image_size": 32, "num_train": None},
        search={"num_cells": 3, "steps": 1, "channels": 2, "epochs": 1, "warmup_epochs": 0, "batch_size": 4},
        retrain={"form": "imagenet", "channels": 2, "epochs": 1, "batch_size": 4},
        tune={"objective": "transfer"},
        transfer={
            "recipe": "retinanet-small",
            "data": {"root": str(root)},
            "network": {"pyramid": 8},
            "training": training | {"epochs": 2},
            "score_fraction": 0.25,
        },
        space={"seed": {"type": "int", "low": 5, "high": 6}},
    )


@pytest.fixture(scope="module")
def study(config: SweepConfig) -> Study:
    objectives = [{"metric": metric, "mode": mode} for metric, mode in config.tune.objectives]
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config), "tracking_uri": "", "state": ""}
    return create_study(config.study_location, {**stored, "objectives": objectives})


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddarts_tuning.trial.trainable.Sender", NoSender)


def epochs_of(study: Study, number: int) -> Iterator[dict[str, Any]]:
    """The reports of a process that runs a trial, or goes on with it."""
    trial = SearchTrial({"study": str(study.path), "number": number})
    while True:
        report = trial.step()
        yield report
        if report.get("done"):
            return


def test_a_trial_is_scored_on_the_other_task_in_whichever_process(config: SweepConfig, study: Study) -> None:
    """One trial in one process, and one whose process is killed amid the fine-tuning, have the same files."""
    for number in (0, 1):
        begin(study, number, {"seed": 5})
    report = [*epochs_of(study, 0)][-1]
    found = read_json(study.path / "trials/00000/trial.json")
    assert found["state"] == "COMPLETED", found["reason"]
    records = read_jsonl(study.path / "trials/00000/records.jsonl")
    assert [record.phase for record in records] == ["search", "retrain", "transfer", "transfer"]
    score = records[-1].metrics["held_out/box_ap"]
    assert (
        found["objectives"]
        == {TRANSFER_OBJECTIVE: score}
        == {config.tune.objectives[0][0]: report[f"objective/{TRANSFER_OBJECTIVE}"]}
    )
    assert found["transfer"]["held_out/box_ap"] == score and "held_out/accuracy" in found["derived"]

    for _, report in zip(range(3), epochs_of(study, 1), strict=False):
        assert not report.get("done")
    assert [record.phase for record in read_jsonl(study.path / "trials/00001/records.jsonl")][-1] == "transfer"
    assert len([*epochs_of(study, 1)]) == 1, "it goes on with its last epoch"
    again = read_json(study.path / "trials/00001/trial.json")
    assert read_jsonl(study.path / "trials/00001/records.jsonl") == records
    assert {key: again[key] for key in ("transfer", "derived", "objectives", "state")} == {
        key: found[key] for key in ("transfer", "derived", "objectives", "state")
    }


def test_what_is_told_of_such_a_trial(study: Study) -> None:
    """In MLflow, in the trial's row, and in the report; the test before has run it."""
    found = read_json(study.path / "trials/00000/trial.json")
    assert final_metrics(found)[TRANSFER_OBJECTIVE] == found["objectives"][TRANSFER_OBJECTIVE]
    assert epoch_metrics(EpochRecord(1, "transfer", {"train/loss": 2.0}))["fine_tuning/train/loss"] == 2.0
    row = trial_row(read_study(study.path).trials[0])
    assert row["transfer_box_ap"] == found["transfer"]["held_out/box_ap"]
    assert row["transfer_box_ap50"] == found["transfer"]["held_out/box_ap50"] and row["num_epochs"] == 1
    table = report_text.ranking([row], 1, [{"metric": TRANSFER_OBJECTIVE, "mode": "max"}])
    assert f"{100 * row['transfer_box_ap']:.1f} %" in table or f"{100 * row['transfer_box_ap']:.2f} %" in table
    assert num_epochs(found["config"], study.data["config"]) == 4


def test_images_that_score_do_not_train(config: SweepConfig) -> None:
    """They are a share of the first split, another one with another seed; the second split is not there at all."""
    own = score_config(config.transfer)
    sets = []
    for seed in (5, 5, 6):
        splits = score_splits(own.model_copy(update={"seed": seed}), own.score_fraction)
        trained = {splits.train.paths[number] for number in splits.used}
        assert len(splits.held_out) == IMAGES / 4 and len(splits.train) == IMAGES * 3 / 4
        assert not {*splits.held_out.paths} & {*splits.train.paths} and trained <= {*splits.train.paths}
        assert splits.held_out[0].path == splits.held_out.paths[0]
        sets.append(splits.held_out.paths)
    assert sets[0] == sets[1] != sets[2]
    assert not (Path(own.data.root) / "val2017").exists()


def test_mistakes_are_told_before_a_sweep_begins(make_sweep: Make, config: SweepConfig, study: Study) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"tune": {"objective": "derived"}}, "transfer has no place with tune.objective derived"),
        ({"retrain": {"form": "cifar"}}, "retrain.form is cifar: set retrain.form to imagenet"),
        ({"transfer": {"seed": 3}}, "transfer.seed has no place in a sweep, where it is each trial's own"),
        ({"transfer": {"training": {"epoch": 3}}}, "unknown setting 'training.epoch'"),
        ({"transfer": {"score_fraction": 1}}, "score_fraction"),
        ({"transfer": {"recipe": "mask-rcnn-small"}}, "choose one of retinanet-1x, retinanet-small"),
    ]
    plain = json.loads(config.model_dump_json(include={"data", "search", "retrain", "tune", "transfer", "space"}))
    for change, sentence in changes:
        groups = {key: {**plain[key], **change.get(key, {})} for key in plain}
        with pytest.raises(UserError, match=sentence):
            make_sweep("wrong", **groups)
    grey = make_sweep("grey", **{**plain, "data": {"name": "digits", "root": "data"}})
    with pytest.raises(UserError, match=r"those of data\.name digits have 1 channels"):
        _check_data(grey)
    longer = {**plain["transfer"], "training": {**plain["transfer"]["training"], "epochs": 3}}
    with pytest.raises(UserError, match=r"another transfer\.training\.epochs \(2 there, 3 now\)"):
        check_same(study, config.model_copy(update={"transfer": longer}))
    missing = make_sweep("missing", **{**plain, "transfer": {**plain["transfer"], "data": {"root": "/nowhere"}}})
    for check in (_check_data, partial(check_images, study)):
        with pytest.raises(UserError, match=r"instances_train2017\.json is missing"):
            check(missing)
    check_images(study, missing, "auto")  # the trials look, on a cluster's machines
