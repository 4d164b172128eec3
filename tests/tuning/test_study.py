"""The folder of a study, read without Ray, MLflow or torch."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.store.backend import Folder
from ddarts_tuning.store.locks import lock
from ddarts_tuning.store.progress import summary
from ddarts_tuning.store.study import (
    Study,
    find_study,
    list_studies,
    trial_dir,
)

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.studies.study_files import read_json, write_json

DATA: dict[str, Any] = {
    "objectives": [{"metric": "held_out/accuracy", "mode": "max"}],
    "state": "RUNNING",
    "config": {"tune": {"num_samples": 5, "objective": "supernet"}},
    "base": {},
}


def add_trial(study: Study, number: int, state: str, value: float | None = None, seconds: float = 0.0) -> None:
    data = {
        "schema": 1,
        "config": {"search": {"warmup_epochs": 1, "epochs": 2}},
        "trial_id": f"{number:05d}",
        "number": number,
        "state": state,
        "params": {},
        "seconds": seconds,
        "cost": None,
        "reason": None,
        "objectives": None if value is None else {"held_out/accuracy": value},
    }
    write_json(trial_dir(study.path, number) / "trial.json", data)


def test_ranking_and_summary(study_path: Path) -> None:
    study = create_study(study_path, DATA)
    add_trial(study, 0, "COMPLETED", 0.5)
    add_trial(study, 1, "FAILED")
    add_trial(study, 2, "COMPLETED", 0.9)
    add_trial(study, 3, "RUNNING")
    write_jsonl(
        trial_dir(study_path, 3) / "records.jsonl", [EpochRecord(0, "warmup", {}), EpochRecord(1, "search", {})]
    )
    assert [trial["number"] for trial in study.ranked()] == [2, 0, 1, 3]
    shown = summary(study)
    assert shown["trials"] == {"RUNNING": 1, "COMPLETED": 2, "PRUNED": 0, "FAILED": 1}
    assert shown["best"]["number"] == 2
    [running] = shown["running"]
    assert (running["trial_id"], running["epochs"], running["epochs_per_minute"]) == ("00003", 2, None)
    assert shown["expected_end"] is None  # nobody runs it


def test_rate_and_expected_end_of_a_running_study(study_path: Path) -> None:
    """Two of five took 20 and 40 s, one has run for 15 s: 75 s are left, however long ago the study was made."""
    made = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=3)
    study = create_study(study_path, {**DATA, "created": made.isoformat()})
    for number, state in enumerate(("COMPLETED", "PRUNED", "RUNNING")):
        add_trial(study, number, state, 0.5 if state == "COMPLETED" else None, seconds=(20.0, 40.0, 0.0)[number])
    settings = {"search": {"warmup_epochs": 1, "epochs": 4}, "retrain": {"epochs": 7}}
    file = trial_dir(study_path, 2) / "trial.json"
    write_json(file, {**read_json(file), "config": settings})
    records = [EpochRecord(n, "search", {}, seconds={"weights": 4.0, "evaluation": 1.0}) for n in range(3)]
    write_jsonl(trial_dir(study_path, 2) / "records.jsonl", records, timing=True)
    with lock(study_path):
        shown = summary(study)
    assert shown["running"] == [{"trial_id": "00002", "epochs": 3, "num_epochs": 5, "epochs_per_minute": 12.0}]
    expected = datetime.datetime.fromisoformat(shown["expected_end"])
    left = (expected - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert abs(left - 75) < 5


def test_found_by_name_and_by_folder(study_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_study(study_path, DATA)
    storage = study_path.parent
    assert find_study("study", storage).path == find_study(study_path).path == study_path
    with pytest.raises(UserError, match=r"no study 'stude'.*studies: study"):
        find_study("stude", storage)
    monkeypatch.chdir(storage.parent)
    with pytest.raises(UserError, match=rf"no study 'stude'.*not in '{re.escape(str(storage))}' \(studies: study\)"):
        find_study(f"{storage.name}/stude", storage.name)


def test_an_existing_study_is_never_overwritten(study_path: Path) -> None:
    create_study(study_path, DATA)
    with pytest.raises(UserError, match=r"exists already.*ddarts resume .*another name"):
        create_study(study_path, DATA)


def test_listed_oldest_first(tmp_path: Path) -> None:
    for name in ("z", "a", "m"):
        create_study(tmp_path / name, DATA)
    assert [study.name for study in list_studies(tmp_path)] == ["z", "a", "m"]
    assert list_studies(tmp_path / "absent") == []


def test_a_study_whose_sweep_is_gone_is_interrupted(study_path: Path) -> None:
    study = create_study(study_path, DATA)
    with lock(study_path):
        assert study.state == "RUNNING"
        with pytest.raises(UserError, match="running in another process"), lock(study_path):
            pass
    assert study.state == "INTERRUPTED"
    assert study.update(state="FINISHED").state == "FINISHED"


def test_damaged_study_is_a_users_error(study_path: Path) -> None:
    create_study(study_path, DATA)
    (study_path / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*study\.json"):
        find_study(study_path)


def test_reading_a_study_imports_nothing_heavy() -> None:
    code = (
        "import sys, ddarts_tuning.store.study, ddarts_tuning.settings.config, ddarts_tuning.driver.events;"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_differs_is_named_with_both_values(tmp_path: Path) -> None:
    from ddarts_tuning.driver.extending import check_same

    lr = {"type": "float", "low": 0.01, "high": 0.1}
    data: dict[str, Any] = {"name": "a", "search": {"lr": 0.05, "epochs": 2}, "space": {"alpha.lr": lr}}
    config = resolve_sweep(data)
    study = Study(
        Folder(tmp_path), {"name": "a", "config": config.model_dump(mode="json"), "base": base_settings(config)}
    )
    check_same(study, resolve_sweep({**data, "name": "b", "tune": {"num_samples": 3, "searcher": "random"}}))
    for override, named in (
        ("search.lr=0.06", "search.lr (0.05 there, 0.06 now)"),
        ("seed=1", "seed (0 there, 1 now)"),
        ("tune.scheduler=pbt", "tune.scheduler (asha there, pbt now)"),
        ("tune.objective=supernet", "tune.objective (derived there, supernet now)"),
    ):
        with pytest.raises(UserError, match=re.escape(f"study 'a' exists with another {named}: only")):
            check_same(study, resolve_sweep(data, [override]))
    moved = ["search.epochs=3", "space.alpha.lr.low=0.02"]
    check_same(study, resolve_sweep(data, moved))
    named = "search.epochs (2 there, 3 now), space.alpha.lr.low (0.01 there, 0.02 now), tune.scheduler (asha there, pbt"
    with pytest.raises(UserError, match=re.escape(named)):
        check_same(study, resolve_sweep(data, [*moved, "tune.scheduler=pbt"]))
