"""From a study's folder to a Parquet dataset and to pandas frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ddarts_core.genotypes.spaces import edge_list, num_edges, operations_of
from ddarts_core.ground.errors import UserError, unknown_name
from ddarts_core.ground.files import write_with
from ddarts_core.loops.records import EpochRecord
from ddarts_core.methods import network_of
from ddarts_core.methods.common import Cells
from ddarts_core.methods.searched_network import Place
from ddarts_core.settings.search_settings import SearchConfig

from . import packed
from .schema import SCHEMAS, VERSION, VERSION_KEY
from .single import is_search
from .study import Study, Trial, metrics_of, read_info, read_study, read_trial, trial_folders, trial_row

FEW_ROWS = 100
"""A file of so few rows is no smaller compressed, and takes twice as long to write."""


@dataclass(frozen=True)
class Collected:
    """What `collect` wrote: the dataset's folder, the rows of each table, and a sentence on each gap."""

    folder: Path
    rows: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frames:
    """A study's tables in memory, with column `study`; `collect.load` fills it from a folder.

    Example:
        >>> empty = Frames.of({})
        >>> list(empty.trials.columns)[:3]
        ['study', 'trial_id', 'number']
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    contributions: pd.DataFrame
    alphas: pd.DataFrame
    genotypes: pd.DataFrame

    @classmethod
    def of(cls, tables: Mapping[str, Iterable[tuple[str, pa.Table]]]) -> Frames:
        """Frames of (study name, Arrow table) pairs by table name; absent tables are empty."""
        return cls(**{name: _frame(name, tables.get(name, ())) for name in SCHEMAS})


def collect(study_dir: str | Path, out: str | Path | None = None) -> Collected:
    """Write the Parquet dataset of a study, or of a finished search, by default to its folder `dataset`.

    Every file is replaced as a whole (write, then rename), so collecting again while the sweep runs is safe: it adds
    the trials that are new. Several studies may share `out`. If `out` ends in `.parquet`, the study becomes one file
    (`packed`).

    Raises:
        UserError: the folder is no study, or one of its files is damaged.
    """
    root = Path(study_dir)
    target = Path(out) if out is not None else root / "dataset"
    if target.suffix == packed.SUFFIX:
        study = read_study(root)
        table = arrow_tables(study, ("trials",))["trials"]
        packed.pack(target, study.info, table, [(trial.info, trial.records, trial.genotype) for trial in study.trials])
        return Collected(target, {"trials": table.num_rows})
    if is_search(root):
        search = read_study(root)
        return write_dataset(target, search.name, search.trials)
    info, trials = read_info(root), trial_folders(root)
    if (target / "study.json").exists():
        raise UserError(
            f"{target} is the folder of a study, and the dataset would mix with its files: give another folder"
        )
    for trial in trials:  # what is damaged is found before the first file is replaced
        read_trial(trial, alphas=False, metrics=metrics_of(info))
    return write_dataset(target, str(info["name"]), map(read_trial, trials))


def write_dataset(folder: Path, study: str, trials: Iterable[Trial]) -> Collected:
    """Write the tables of a study's trials as the hive partitions `study=NAME/trial=NUMBER` of a dataset.

    The trials are taken and written one after the other, so an iterator that reads them need not hold them all. Other
    files of the study, of trials that are gone or of an older layout, are removed once all are written. A table without
    a row in the whole study has one empty file, so that every reader finds its columns.
    """
    rows = dict.fromkeys(SCHEMAS, 0)
    written: dict[str, set[Path]] = {name: set() for name in SCHEMAS}

    def write(name: str, partition: str, table: pa.Table) -> None:
        path = folder / name / f"study={study}" / partition / "part-0.parquet"
        compression = "zstd" if table.num_rows > FEW_ROWS else "none"
        write_with(path, lambda file: pq.write_table(table, file, compression=compression))
        rows[name] += table.num_rows
        written[name].add(path)

    for trial in trials:
        for name, table in arrow_tables(Study(Path(), {"name": study}, (trial,))).items():
            if table.num_rows:
                write(name, f"trial={int(trial.info['number'])}", table)
    for name, schema in SCHEMAS.items():
        if not written[name]:
            write(name, "trial=0", schema.empty_table())
        for path in sorted((folder / name / f"study={study}").rglob("*.parquet")):
            if path not in written[name]:
                path.unlink()
                with suppress(OSError):  # the folder may hold what is not ours
                    path.parent.rmdir()
    return Collected(folder, rows)


def load(*study_dirs: str | Path, tables: Iterable[str] = tuple(SCHEMAS)) -> Frames:
    """Frames of one or more studies, read from their folders (no dataset is needed).

    Only the tables that are named are built, the others stay empty; table `alphas` is many times the size of the rest.

    Raises:
        UserError: no folder is given, a folder is no study, two have one name, or a file is damaged.
    """
    if not study_dirs:
        raise UserError("name at least one study")
    wanted = tuple(tables)
    studies = [read_study(folder, alphas="alphas" in wanted) for folder in study_dirs]
    names = [study.name for study in studies]
    if len(set(names)) != len(names):
        raise UserError(f"two of the studies have the same name: {', '.join(sorted(names))}")
    return frames_of(studies, wanted)


def frames_of(studies: Iterable[Study], names: Iterable[str] = tuple(SCHEMAS)) -> Frames:
    """Frames of studies that are already read; tables that are not named stay empty."""
    tables: dict[str, list[tuple[str, pa.Table]]] = {name: [] for name in names}
    for study in studies:
        for name, table in arrow_tables(study, tables).items():
            tables[name].append((study.name, table))
    return Frames.of(tables)


def read_table(dataset: str | Path, table: str) -> pd.DataFrame:
    """One table of a dataset that `collect` wrote, all studies, with column `study`.

    Raises:
        UserError: the table is unknown, missing, damaged or of another schema version.
    """
    if table not in SCHEMAS:
        raise unknown_name("table", table, SCHEMAS)
    root = Path(dataset) / table
    paths = sorted(root.glob("study=*/**/*.parquet"))
    if not paths:
        raise UserError(f"no table {table!r} in {str(dataset)!r}: run `ddarts collect STUDY` first")
    for path in paths:
        try:
            version = (pq.read_schema(path).metadata or {}).get(VERSION_KEY, b"?").decode()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}; collect the study again") from error
        if version.split(".")[0] != VERSION.split(".")[0]:
            raise UserError(f"{path} has schema {version}: this version reads {VERSION}; collect the study again")
    partitions = pa.schema([("study", pa.string()), ("trial", pa.int64())])
    partitioning = ds.partitioning(partitions, flavor="hive")
    try:
        data = ds.dataset([str(path) for path in paths], partitioning=partitioning, partition_base_dir=str(root))
        frame: pd.DataFrame = data.to_table().to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{root} is damaged: {str(error).splitlines()[0]}; collect the study again") from error
    ordered: pd.DataFrame = frame.reindex(columns=["study", *SCHEMAS[table].names])
    return ordered


# --- tables ---------------------------------------------------------------------------------------------------------


def arrow_tables(study: Study, names: Iterable[str] = tuple(SCHEMAS)) -> dict[str, pa.Table]:
    """Tables of `schema.SCHEMAS` of one study, rows ordered by trial number, epoch and position."""
    return {name: _BUILDERS[name](study) for name in names}


def _table(name: str, rows: Callable[[Trial], Iterator[tuple[Any, ...]]]) -> Callable[[Study], pa.Table]:
    """Builder of a table from rows per trial."""

    def build(study: Study) -> pa.Table:
        schema = SCHEMAS[name]
        columns = list(zip(*(row for trial in study.trials for row in rows(trial)), strict=True)) or [()] * len(schema)
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    return build


def _frame(name: str, tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    parts = [table.to_pandas().assign(study=study) for study, table in tables]
    if not parts:
        parts = [SCHEMAS[name].empty_table().to_pandas().assign(study=pd.Series(dtype="object"))]
    columns = ["study", *SCHEMAS[name].names]
    for part in parts:
        for column in part.columns:
            if isinstance(part[column].dtype, pd.CategoricalDtype):  # categories differ between studies
                part[column] = part[column].astype("object")
    joined: pd.DataFrame = pd.concat(parts, ignore_index=True).reindex(columns=columns)
    return joined


def _trial_rows(trial: Trial) -> Iterator[tuple[Any, ...]]:
    row = trial_row(trial)
    yield tuple(row[name] for name in SCHEMAS["trials"].names)


def _epoch_rows(trial: Trial) -> Iterator[tuple[Any, ...]]:
    for record in trial.records:
        for name, value in sorted(record.metrics.items()):
            split, slash, metric = name.partition("/")
            key = (split, metric) if slash else (None, name)
            yield (trial.trial_id, record.epoch, record.phase, *key, value)
        for part, seconds in sorted(record.seconds.items()):
            yield (trial.trial_id, record.epoch, record.phase, "seconds", part, seconds)


def _contribution_rows(trial: Trial) -> Iterator[tuple[Any, ...]]:
    for record in trial.records:
        by_cell = zip_longest(record.contributions, record.ablation, record.shapley, record.shapley_errors)
        for cell, values in enumerate(by_cell):
            yield (trial.trial_id, record.epoch, cell, *values)


def _alphas(study: Study) -> pa.Table:
    """Table `alphas`, by whole arrays: it has a row per operation and epoch."""
    schema = SCHEMAS["alphas"]
    parts = [_alphas_of(trial, record) for trial in study.trials for record in trial.records if record.alphas]
    return pa.concat_tables(parts).cast(schema) if parts else schema.empty_table()


def _alphas_of(trial: Trial, record: EpochRecord) -> pa.Table:
    search = trial.info["config"].get("search", {})
    if search.get("network", Cells.name) != Cells.name:
        return _alphas_by_place(trial, record, network_of(SearchConfig.model_validate(search)).places)
    space = search.get("space", "S")
    ops = operations_of(space)
    try:
        values = np.asarray(record.alphas, dtype=np.float32)
    except ValueError as error:
        raise UserError(f"trial {trial.trial_id}, epoch {record.epoch}: its alphas are not one array") from error
    if values.ndim != 3 or values.shape[2] != len(ops):
        raise UserError(
            f"trial {trial.trial_id}, epoch {record.epoch}: alphas of shape {list(values.shape)} where space {space} "
            f"has {len(ops)} operations per edge"
        )
    ends = np.asarray(_edges(values.shape[1], trial.trial_id), dtype=np.int16)
    cell, edge, op = (index.ravel() for index in np.indices(values.shape, dtype=np.int16))
    columns = {
        "trial_id": pa.repeat(pa.scalar(trial.trial_id), values.size).dictionary_encode(),
        "epoch": pa.repeat(pa.scalar(record.epoch, pa.int32()), values.size),
        "cell": cell,
        "edge": edge,
        "source": ends[edge, 0],
        "target": ends[edge, 1],
        "op": pa.DictionaryArray.from_arrays(op.astype(np.int32), list(ops)),
        "alpha": values.ravel(),
        "gate": gates_of(record, values, trial.trial_id).ravel(),
    }
    return pa.table(columns)


def _alphas_by_place(trial: Trial, record: EpochRecord, places: Sequence[Place]) -> pa.Table:
    """The rows of a network without cells: its decisions have different numbers of options, and no source or target."""
    alphas, gates = ([value for group in of for row in group for value in row] for of in (record.alphas, record.gates))
    if not len(places) == len(alphas) == len(gates):
        raise UserError(
            f"trial {trial.trial_id}, epoch {record.epoch}: {len(alphas)} alphas and {len(gates)} gates where there "
            f"are {len(places)} options"
        )
    columns = {
        "trial_id": pa.repeat(pa.scalar(trial.trial_id), len(places)).dictionary_encode(),
        "epoch": pa.repeat(pa.scalar(record.epoch, pa.int32()), len(places)),
        "cell": pa.array([place.cell for place in places], pa.int16()),
        "edge": pa.array([place.edge for place in places], pa.int16()),
        "source": pa.array([1] * len(places), pa.int16()),
        "target": pa.array([2] * len(places), pa.int16()),
        "op": pa.array([place.option for place in places]).dictionary_encode(),
        "alpha": pa.array(alphas, pa.float32()),
        "gate": pa.array(gates, pa.float32()),
    }
    return pa.table(columns)


def gates_of(record: EpochRecord, alphas: np.ndarray, trial_id: str) -> np.ndarray:
    """Gates of a record: sigma(alpha) where it has no others."""
    if not record.gates:
        return (1 / (1 + np.exp(-alphas.astype(np.float64)))).astype(np.float32)
    gates = np.asarray(record.gates, dtype=np.float32)
    if gates.shape != alphas.shape:
        raise UserError(f"trial {trial_id}, epoch {record.epoch}: gates and alphas differ in shape")
    return gates


def _edges(count: int, trial_id: str) -> tuple[tuple[int, int], ...]:
    """Ends of the edges of a cell that has this many."""
    steps = next((n for n in range(1, 33) if num_edges(n) >= count), 0)
    if num_edges(steps) != count:
        raise UserError(f"trial {trial_id}: a cell of {count} edges does not exist in its records")
    return edge_list(steps)


def _genotype_rows(trial: Trial) -> Iterator[tuple[Any, ...]]:
    if trial.genotype is None:
        return
    genotype_hash, text = trial.genotype.hash, trial.genotype.to_json()
    yield from ((trial.trial_id, genotype_hash, text, *operation) for operation in trial.genotype.operations())


_BUILDERS: Mapping[str, Callable[[Study], pa.Table]] = MappingProxyType(
    {
        "trials": _table("trials", _trial_rows),
        "epochs": _table("epochs", _epoch_rows),
        "contributions": _table("contributions", _contribution_rows),
        "alphas": _alphas,
        "genotypes": _table("genotypes", _genotype_rows),
    }
)
