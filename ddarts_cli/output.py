"""The files of a search: records with the same bytes for the same seed, and timings apart from them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddarts_core.ground.files import write_atomic, write_with
from ddarts_core.loops.records import EpochRecord


def records_table(records: Sequence[EpochRecord]) -> pa.Table:
    """One row per epoch: epoch, phase, one column per metric (null where absent), contributions, ablation, alphas.

    Shapley values and their standard errors follow where an epoch has them.
    """
    names = sorted({name for record in records for name in record.metrics})
    floats = pa.list_(pa.float64())
    optional = ("shapley", "shapley_errors") if any(record.shapley for record in records) else ()
    schema = pa.schema(
        [
            pa.field("epoch", pa.int32(), nullable=False),
            pa.field("phase", pa.string(), nullable=False),
            *(pa.field(name, pa.float64()) for name in names),
            pa.field("contributions", floats),
            pa.field("ablation", floats),
            pa.field("alphas", pa.list_(pa.list_(floats))),
            *(pa.field(name, floats) for name in optional),
        ]
    )
    rows = [
        {
            "epoch": record.epoch,
            "phase": record.phase,
            **record.metrics,
            "contributions": list(record.contributions),
            "ablation": list(record.ablation),
            "alphas": [[list(edge) for edge in cell] for cell in record.alphas],
            **{name: list(getattr(record, name)) for name in optional},
        }
        for record in records
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def write_records(path: str | Path, records: Sequence[EpochRecord]) -> None:
    """Write `records_table` as Parquet. It has deterministic fields only, so that equal runs give equal bytes."""
    table = records_table(records)
    write_with(path, lambda name: pq.write_table(table, name, compression="zstd"))


def write_timings(path: str | Path, records: Sequence[EpochRecord]) -> None:
    """Write, as CSV, a row for each epoch: the seconds that each of its parts took, and the peak memory in bytes."""
    parts = sorted({part for record in records for part in record.seconds})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "phase", *(f"seconds_{part}" for part in parts), "peak_memory"])
    for record in records:
        seconds = [f"{record.seconds[part]:.6f}" if part in record.seconds else "" for part in parts]
        writer.writerow([record.epoch, record.phase, *seconds, record.peak_memory])
    write_atomic(path, text.getvalue())


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document for people and programs."""
    write_atomic(path, json.dumps(document, indent=2) + "\n")


def write_yaml(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write a mapping as YAML, with its keys in the order of the mapping."""
    import yaml

    write_atomic(path, yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=120))
