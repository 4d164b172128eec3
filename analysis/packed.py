"""A study as one Parquet file: a row per trial, small enough to be kept in a repository or attached to a paper.

Nothing that the records of a study say is lost. `read_study` reads such a file as it reads the study's folder, so
tables, figures and verdicts can be made again from it, to the last digit. Every reader of Parquet reads the columns of
table `trials` (see `schema`), and behind them three columns of text: `trial_json`, `records_jsonl` and `genotype_json`.
The metadata of the file holds what `study.json` says. What only the machine that ran the study can use is left out: its
paths, its command, the addresses of its stores, and the runs there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_with
from ddarts_core.loops.records import EpochRecord

from .schema import VERSION, VERSION_KEY

SUFFIX = ".parquet"

#: Key of what `study.json` says in the metadata of the file.
STUDY_KEY = b"ddarts.study"

#: What is kept of `study.json`, and what its settings of places become.
KEPT = (
    *("schema", "name", "created", "state", "seed", "objectives", "config", "config_hash"),
    *("git_commit", "versions", "plugins", "earlier"),
)
PLACELESS = {"storage": "runs", "tracking": {}}

#: What is left out of `trial.json`.
OF_THE_MACHINE = ("run_id", "ray_trial_id", "code", "config_json")

_TEXTS = ("trial_json", "records_jsonl", "genotype_json")


def pack(
    file: str | Path,
    info: Mapping[str, Any],
    trials: pa.Table,
    parts: Sequence[tuple[Mapping[str, Any], Sequence[EpochRecord], AnyGenotype | None]],
) -> None:
    """Write a study, with all its records, to one file.

    Args:
        file: the file to write, as a whole.
        info: what `study.json` says.
        trials: table `trials` of the study.
        parts: of each trial, in the same order, what `trial.json` says, its epochs with their alphas, and its genotype.
    """
    texts = [
        (
            _text(_placeless({key: value for key, value in of_trial.items() if key not in OF_THE_MACHINE})),
            "\n".join(_text(record.to_dict(timing=True)) for record in records),
            None if genotype is None else genotype.to_json(),
        )
        for of_trial, records, genotype in parts
    ]
    table = trials.select([name for name in trials.column_names if name not in OF_THE_MACHINE])
    columns = list(zip(*texts, strict=True)) or [()] * len(_TEXTS)
    for name, column in zip(_TEXTS, columns, strict=True):
        table = table.append_column(name, pa.array(column, pa.string()))
    kept = {name: info[name] for name in KEPT if name in info}
    table = table.replace_schema_metadata({VERSION_KEY: VERSION, STUDY_KEY: _text(_placeless(kept))})
    write_with(file, lambda name: pq.write_table(table, name, compression="zstd", compression_level=19))


def unpack(
    file: Path,
) -> tuple[dict[str, Any], Iterator[tuple[dict[str, Any], tuple[EpochRecord, ...], AnyGenotype | None]]]:
    """What `pack` wrote: what `study.json` says, and of each trial what it was given.

    Raises:
        UserError: there is no such file, it is damaged, or it is no study.
    """
    if not file.is_file():
        raise UserError(f"no study at {str(file)!r}: there is no such file")
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged: {str(error).splitlines()[0]}") from error
    text = (table.schema.metadata or {}).get(STUDY_KEY)
    if text is None:
        raise UserError(f"{file} is not a study: ddarts collect STUDY --out FILE.parquet makes one of a study")
    return json.loads(text), map(_trial, table.select(_TEXTS).to_pylist())


def _trial(row: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[EpochRecord, ...], AnyGenotype | None]:
    genotype = row["genotype_json"]
    lines = row["records_jsonl"].splitlines()
    records = tuple(EpochRecord.from_dict(json.loads(line)) for line in lines)
    return json.loads(row["trial_json"]), records, None if genotype is None else AnyGenotype.from_text(genotype)


def _placeless(info: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in `config` without the places of one machine."""
    return {**info, "config": {name: PLACELESS.get(name, value) for name, value in info["config"].items()}}


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
