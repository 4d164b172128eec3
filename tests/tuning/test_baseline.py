"""The start architecture beside every DARTOpti trial: trained once, as the derived network is, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ddarts_analysis import report_text
from ddarts_analysis.ranking import value
from ddarts_analysis.study import read_study, trial_row
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.store.backend import backend_of
from ddarts_tuning.store.study import Study
from ddarts_tuning.tracking.trial_run import final_metrics
from ddarts_tuning.trial import baseline
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.loops.records import read_jsonl
from ddarts_core.settings.config import resolve
from ddarts_core.studies.study_files import read_json
from ddarts_core.training.retrain import Retrain
from tests.tuning.test_budget import NoSender

Make = Callable[..., SweepConfig]

GROUPS = {
    "method": "dartopti",
    "search": {"num_cells": None, "steps": None, "channels": 2, "epochs": 1, "warmup_epochs": 0, "batch_size": 50},
    "retrain": {"channels": 2, "epochs": 2, "batch_size": 50},
    "ablation": {"loss": "none"},
}


def undisturbed(config: SweepConfig) -> float:
    """Held-out accuracy of ResNet18 on the images of a trial, trained here."""
    info, images = load_train(config.data)
    parts = split(images, config.data, config.seed)
    run = Retrain(config.retrain, ZOO["ResNet18"].genotype, info, parts.weights.joined(parts.alphas), None, config.seed)
    assert len(list(run.records())) == 2
    return run.evaluate(parts.held_out).metrics["accuracy"]


def test_a_start_whose_training_is_killed_is_trained_on_and_only_once(
    make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_sweep("killed", storage=str(tmp_path), space={"seed": {"type": "int", "low": 5, "high": 6}}, **GROUPS)
    study = Study(backend_of(tmp_path), {"name": "killed"})
    info, images = load_train(config.data)
    parts = split(images, config.data, config.seed)
    arguments = (study, config, info, parts.weights.joined(parts.alphas), parts.held_out)
    epochs = []
    run_epoch = Retrain._run_epoch

    def once_killed(run: Retrain) -> object:
        if len(epochs) == 1:
            epochs.append(-1)
            raise KeyboardInterrupt
        epochs.append(run.epoch)
        return run_epoch(run)

    monkeypatch.setattr(Retrain, "_run_epoch", once_killed)
    with pytest.raises(KeyboardInterrupt):
        baseline.of_start(*arguments)
    found = baseline.of_start(*arguments)
    assert epochs == [0, -1, 1], "it goes on with its second epoch"
    assert baseline.of_start(*arguments) == found and len(epochs) == 3
    monkeypatch.undo()
    assert found["held_out/accuracy"] == undisturbed(config)
    other = resolve({**config.model_dump(include={"method", "data", "search", "retrain", "ablation"}), "seed": 6})
    assert baseline.of_start(study, other, *arguments[2:])["parameters"] == found["parameters"]
    assert len(list(tmp_path.glob("baselines/*/baseline.json"))) == 2, "another seed is another training"


def test_a_trial_has_its_start_beside_it(make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddarts_tuning.trial.trainable.Sender", NoSender)
    config = make_sweep("opti", storage=str(tmp_path), space={"seed": {"type": "int", "low": 5, "high": 6}}, **GROUPS)
    metric = "derived/held_out/accuracy"
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config), "tracking_uri": "", "state": ""}
    study = create_study(config.study_location, {**stored, "objectives": [{"metric": metric, "mode": "max"}]})
    begin(study, 0, {"seed": 5})
    trial = SearchTrial({"study": str(study.path), "number": 0})
    report = {}
    while not report.get("done"):
        report = trial.step()
    found = read_json(study.path / "trials/00000/trial.json")
    assert found["state"] == "COMPLETED" and found["baseline"]["held_out/accuracy"] == undisturbed(config)
    assert final_metrics(found)["baseline/held_out/accuracy"] == found["baseline"]["held_out/accuracy"]
    *earlier, last = read_jsonl(study.path / "trials/00000/records.jsonl")
    beside = {f"baseline/{name}": number for name, number in found["baseline"].items()}
    assert beside.keys() > {"baseline/held_out/accuracy", "baseline/parameters", "baseline/macs"}
    assert last.phase == "retrain" and {**last.metrics, **beside} == last.metrics
    assert not any(name.startswith("baseline/") for record in earlier for name in record.metrics)
    (read,) = read_study(study.path).trials
    row = trial_row(read)
    assert row["baseline_parameters"] == found["baseline"]["parameters"] and row["baseline_macs"] > 0
    gain = found["derived"]["held_out/accuracy"] - found["baseline"]["held_out/accuracy"]
    assert value(row, "gain") == gain == row["derived_accuracy"] - row["baseline_accuracy"]
    text = report_text.start([row])
    assert "what was found and its start cannot be told apart" in text.lower() and f"{row['baseline_macs']:,}" in text
    assert report_text.start([{**row, "baseline_parameters": None}]) == ""
