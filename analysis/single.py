"""The folder of a single search as a study of one trial, so that whatever reads a study reads it too."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddarts_core.datasets.facts import read_info
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord
from ddarts_core.methods import GATES
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.settings.config import ExperimentConfig, load_experiment
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import read_json

#: Name of the one trial.
TRIAL = "00000"

#: What a search is judged by: the score of its supernet on images that trained nothing.
METRIC = "held_out/accuracy"

#: Columns of `records.parquet` that are no metrics.
_LISTS = ("contributions", "ablation", "alphas", "shapley", "shapley_errors")


def is_search(root: Path) -> bool:
    """Whether a folder is that of a search that came to its end: `search.json` is written last."""
    return (root / "search.json").is_file() and not (root / "study.json").exists()


def read_search(
    root: Path, alphas: bool = True
) -> tuple[dict[str, Any], dict[str, Any], list[EpochRecord], AnyGenotype]:
    """Read the folder of a finished search as if it were that of a study of one trial.

    Args:
        root: the folder of the search.
        alphas: whether to read the alphas of the records.

    Returns:
        What `study.json` would hold, what the `trial.json` of the one trial would hold, the records, and the genotype.

    Raises:
        UserError: one of its files is missing or damaged.
    """
    summary = read_json(root / "search.json")
    config: ExperimentConfig = load_experiment(root / "config.yaml")
    genotype = AnyGenotype.load(root / "genotype.json")
    settings = config.model_dump(mode="json")
    begun = datetime.fromtimestamp((root / "config.yaml").stat().st_mtime, timezone.utc).isoformat()
    try:
        records = _records(root, config, alphas)
        info = {
            "name": root.resolve().name,  # searches of one file, which lie in several folders, have one name
            "created": begun,
            "state": "FINISHED",
            "objectives": [{"metric": METRIC, "mode": "max"}],
            "command": ddarts("search", root / "config.yaml", "--out", "again"),
            "config": settings,
            "plugins": plugins.recorded(root),
            **{name: summary[name] for name in ("seed", "config_hash", "git_commit", "versions")},
        }
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"the search in {root} is damaged: {error}") from error
    trial = {
        "trial_id": TRIAL,
        "number": 0,
        "state": "COMPLETED",
        "reason": None,
        "params": {},
        "config": settings,
        "objectives": {METRIC: records[-1].metrics[METRIC]} if records and METRIC in records[-1].metrics else {},
        "cost": _cost(root, genotype, config),
        "seconds": sum(sum(record.seconds.values()) for record in records),
        "begun": begun,
        **{name: summary.get(name) for name in ("seed", "config_hash", "genotype_hash", "one_shot")},
    }
    return info, trial, records, genotype


def _cost(root: Path, genotype: AnyGenotype, config: ExperimentConfig) -> Mapping[str, Any] | None:
    """The cost of the network that `ddarts retrain` would train; None if the settings refuse it."""
    info = read_info(root)
    if info is None:  # of a search before there were such files
        return None
    try:
        return retrain_cost(genotype, config, info).to_dict()
    except UserError:
        return None


def _records(root: Path, config: ExperimentConfig, alphas: bool) -> list[EpochRecord]:
    """The epochs, each with its times, which are in a file of their own.

    The file of records has no gates. Where they are not sigma(alpha) the alphas are left out, since nobody could tell
    what they stand for.
    """
    with (root / "timings.csv").open(encoding="utf-8", newline="") as file:
        timings = list(csv.DictReader(file))
    shown = alphas and GATES[config.search.gates].independent
    rows = pq.read_table(root / "records.parquet").to_pylist()
    return [_record(row, timing, shown) for row, timing in zip(rows, timings, strict=True)]


def _record(row: Mapping[str, Any], timing: Mapping[str, str], alphas: bool) -> EpochRecord:
    metrics = {name: value for name, value in row.items() if name not in ("epoch", "phase", *_LISTS)}
    seconds = {name.removeprefix("seconds_"): value for name, value in timing.items() if name.startswith("seconds_")}
    return EpochRecord(
        epoch=row["epoch"],
        phase=row["phase"],
        metrics={name: value for name, value in metrics.items() if value is not None},
        contributions=tuple(math.nan if value is None else value for value in row["contributions"]),
        ablation=tuple(row["ablation"]),
        alphas=tuple(tuple(tuple(edge) for edge in cell) for cell in row["alphas"]) if alphas else (),
        shapley=tuple(row.get("shapley") or ()),
        shapley_errors=tuple(row.get("shapley_errors") or ()),
        seconds={name: float(value) for name, value in seconds.items() if value},
        peak_memory=int(timing["peak_memory"]),
    )
