"""A study's folder as a sweep leaves it, small and invented, written with the real records and genotypes."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ddarts_analysis import study as study_module

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import S, edge_list
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.settings.config import resolve

EPOCHS, CELLS = 3, 4


def genotype_of(number: int) -> Genotype:
    """Genotypes that differ with the number; every node has an input."""
    cells = tuple(
        Cell(
            tuple(
                Edge(op=S[(number + position + source + 2 * target) % len(S)], source=source, target=target)
                for source, target in edge_list(4)
                if source >= target - 2
            ),
            concat=(2, 3, 4, 5),
        )
        for position in range(CELLS)
    )
    return Genotype(cells, reductions=(1, 2))


def record_of(number: int, epoch: int) -> EpochRecord:
    accuracy = 0.4 + 0.1 * epoch + 0.01 * number
    return EpochRecord(
        epoch=epoch,
        phase="search",
        metrics={
            "train/loss": 1.5 - accuracy,
            "train/accuracy": accuracy + 0.02,
            "alpha/loss": 1.6 - accuracy,
            "held_out/loss": 1.7 - accuracy,
            "held_out/accuracy": accuracy,
            "saturation/over_0.9": 0.1 * epoch,
            "saturation/under_0.1": 0.2 * epoch,
        }
        | ({"held_out/recalibration_batches": 4.0} if number == 3 else {}),  # the others are older
        contributions=tuple(0.01 * (cell + number) for cell in range(CELLS)),
        ablation=tuple(0.001 * cell for cell in range(CELLS)),
        alphas=tuple(
            tuple(tuple(0.1 * epoch + 0.01 * op for op in range(len(S))) for _ in edge_list(4)) for _ in range(CELLS)
        ),
        seconds={"weights": 1.5},
        peak_memory=1000,
    )


def write_trial(
    study: Path, number: int, state: str = "COMPLETED", *, accuracy: float | None = None, **fields: Any
) -> Path:
    """One trial's folder; trials alternate between two methods and three weights."""
    config = resolve(
        {
            "name": study.name,
            "seed": number,
            "method": ("ddarts", "fairdarts")[number % 2],
            "search": {"num_cells": CELLS, "epochs": EPOCHS, "w_zero_one": float(number % 3)},
            "ablation": {"weight": 0.25 * (number % 3 + 1)},
        }
    ).model_dump(mode="json")
    folder = study / "trials" / f"{number:05d}"
    done = state == "COMPLETED"
    genotype = genotype_of(number)
    value = accuracy if accuracy is not None else 0.5 + 0.03 * number
    info = {
        "schema": 1,
        "trial_id": f"{number:05d}",
        "ray_trial_id": f"ray_{number:05d}",
        "begun": "2026-01-02T03:04:05.000000+00:00",
        "number": number,
        "params": {
            "search.w_zero_one": config["search"]["w_zero_one"],
            "ablation.weight": config["ablation"]["weight"],
        },
        "config": config,
        "config_hash": f"{number:012x}",
        "seed": number,
        "run_id": f"run{number}",
        "state": state,
        "reason": "RuntimeError: <out of memory>" if state == "FAILED" else None,
        "objectives": {"derived/held_out/accuracy": value} if done else None,
        "genotype_hash": genotype.hash if done else None,
        "cost": {"parameters": 1000 + 10 * number, "macs": 5000 + 7 * number**2} if done else None,
        "derived": {"held_out/accuracy": value} if done else None,
        "seconds": 12.5,
        **fields,
    }
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(info))
    write_jsonl(folder / "records.jsonl", [record_of(number, e) for e in range(EPOCHS if done else 2)], timing=True)
    if done:
        (folder / "genotype.json").write_text(genotype.to_json())
    return folder


def write_study(folder: Path) -> Path:
    """A study without trials."""
    folder.mkdir(parents=True)
    info = {
        "schema": 1,
        "name": folder.name,
        "created": "2026-01-02T03:04:05Z",
        "command": "ddarts sweep quickstart_sweep.yaml",
        "seed": 7,
        "config": {"name": folder.name, "tune": {"num_samples": 8, "objective": "derived"}},
        "base": {},
        "config_hash": "0123456789ab",
        "git_commit": "f" * 40,
        "versions": {"python": "3.12.3", "torch": "2.9.0"},
        "tracking_uri": "sqlite:///mlflow.db",
        "experiment_id": "1",
        "parent_run_id": "abc",
        "objectives": [{"metric": "derived/held_out/accuracy", "mode": "max"}],
        "state": "FINISHED",
    }
    (folder / "study.json").write_text(json.dumps(info))
    return folder


MakeStudy = Callable[..., Path]


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """A function (states, name) -> folder of a study with one trial per state."""

    def make(*states: str, name: str = "toy") -> Path:
        folder = write_study(tmp_path / name)
        for number, state in enumerate(states):
            write_trial(folder, number, state)
        return folder

    return make


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    """Six completed trials, one pruned, one failed and one that still runs and is writing a record."""
    folder = make_study(*["COMPLETED"] * 6, "PRUNED", "FAILED", "RUNNING")
    with (folder / "trials/00008/records.jsonl").open("a") as file:
        file.write('{"epoch": 2, "phase": "sea')
    nan = record_of(5, EPOCHS - 1).to_dict(timing=True)
    nan["metrics"]["alpha/loss"] = math.nan
    with (folder / "trials/00005/records.jsonl").open("a") as file:  # the last epoch again, as after a resume
        file.write(json.dumps(nan) + "\n")
    return folder


class Parsed:
    """What was read out of files of records: which files, and the records with alphas among what they held.

    Attributes:
        files: name of each file's trial, once per time that it was read.
        alphas: records that had alphas, all together.
        most: most of them that were in memory at the same time.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.alphas = 0
        self.most = 0
        self._alive: weakref.WeakSet[Alive] = weakref.WeakSet()

    def note(self, where: str, records: tuple[EpochRecord, ...]) -> tuple[EpochRecord, ...]:
        marked = tuple(Alive(**vars(record)) if record.alphas else record for record in records)
        self.files.append(Path(where).parent.name)
        self._alive.update(record for record in marked if isinstance(record, Alive))
        self.alphas += sum(isinstance(record, Alive) for record in marked)
        self.most = max(self.most, len(self._alive))
        return marked


class Alive(EpochRecord):
    """A record that is told from its equals."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    """What the code under test reads out of files of records."""
    found, parse = Parsed(), study_module.parse_records

    def noted(text: str, where: str, *rest: Any) -> tuple[EpochRecord, ...]:
        return found.note(where, parse(text, where, *rest))

    monkeypatch.setattr(study_module, "parse_records", noted)
    return found
