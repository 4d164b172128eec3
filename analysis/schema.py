"""Schema of the Parquet dataset: five tables in long format, every column with its type, unit and meaning.

A dataset is a folder with one folder per table, partitioned as `TABLE/study=NAME/trial=NUMBER/part-0.parquet`, so
`study` and `trial` are columns for every reader that knows hive partitions (pandas, polars, DuckDB, Spark).
Accuracies are fractions of 1, losses and contributions are in nats, times in seconds, counts are plain numbers. A new
column raises the minor version. A column that is changed or removed, or another layout, raises the major version.
Readers refuse a dataset of another major version than theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

VERSION = "2.5"

#: Key of the version in the metadata of every file.
VERSION_KEY = b"ddarts.schema"

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_NAME = pa.dictionary(pa.int32(), pa.string())


def _field(name: str, kind: pa.DataType, unit: str, meaning: str, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required, metadata={"unit": unit, "description": meaning})


def _schema(table: str, *fields: pa.Field) -> pa.Schema:
    metadata = {VERSION_KEY: VERSION.encode(), b"ddarts.table": table.encode()}
    return pa.schema(fields, metadata=metadata)


_TRIAL_ID = _field("trial_id", _NAME, "", "name of the trial, unique in its study", required=True)
_EPOCH = _field("epoch", pa.int32(), "", "number from 0, warm-up included", required=True)
_PHASE = _field("phase", _NAME, "", "warmup, search, joint or retrain", required=True)
_CELL = _field("cell", pa.int16(), "", "position in the network, or group of alphas, from 0", required=True)
_OP = _field("op", _NAME, "", "operation name", required=True)
_SOURCE = _field("source", pa.int16(), "", "node the edge leaves: 0 and 1 are the cell's inputs", required=True)
_TARGET = _field("target", pa.int16(), "", "node the edge enters: 2 and up", required=True)

#: Arrow schema by table name. The columns `study` and `trial` are not stored: they are the partitions.
SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "trials": _schema(
            "trials",
            _TRIAL_ID,
            _field("number", _INT, "", "order in which trials were proposed, from 0", required=True),
            _field("state", _TEXT, "", "RUNNING, COMPLETED, PRUNED or FAILED", required=True),
            _field("reason", _TEXT, "", "why it failed or was pruned"),
            _field("seed", _INT, "", "seed of the search"),
            _field("method", _TEXT, "", "method preset"),
            _field("data_set", _TEXT, "", "name of the data set"),
            _field("num_cells", _INT, "", "cells of the supernet"),
            _field("channels", _INT, "", "width of the supernet's first cells"),
            _field("search_epochs", _INT, "epochs", "planned length of the search without warm-up"),
            _field("w_zero_one", _FLOAT, "", "weight of the zero-one loss"),
            _field("w_ablation", _FLOAT, "", "weight of the ablation loss; 0 when it is off or only monitored"),
            _field("threshold", _FLOAT, "", "smallest sigma(alpha) of a kept operation"),
            _field("config_hash", _TEXT, "", "hash of the resolved configuration"),
            _field("config_json", _TEXT, "", "resolved configuration"),
            _field("params_json", _TEXT, "", "proposed values by dotted path"),
            _field("objectives_json", _TEXT, "", "objective values by name"),
            _field("objective", _FLOAT, "", "value of the study's first objective"),
            _field("held_out_accuracy", _FLOAT, "fraction of 1", "supernet, last epoch, held-out images"),
            _field(
                "recalibration_batches",
                _INT,
                "batches",
                "that its batch normalisation was recalibrated from; 0: running statistics, as in older studies",
            ),
            _field(
                "derived_accuracy", _FLOAT, "fraction of 1", "derived network after its short retrain, held-out images"
            ),
            _field(
                "held_out_balanced_accuracy", _FLOAT, "fraction of 1", "mean recall of the classes, of the supernet"
            ),
            _field(
                "derived_balanced_accuracy",
                _FLOAT,
                "fraction of 1",
                "mean recall of the classes, of the derived network",
            ),
            _field(
                "baseline_accuracy",
                _FLOAT,
                "fraction of 1",
                "start architecture (DARTOpti), trained as the derived network, held-out images",
            ),
            _field("baseline_parameters", _INT, "", "weights of the start architecture without auxiliary head"),
            _field("baseline_macs", _INT, "multiply-adds per image", "of the start architecture, convention A"),
            _field("gain", _FLOAT, "fraction of 1", "derived_accuracy less baseline_accuracy"),
            _field(
                "transfer_box_ap",
                _FLOAT,
                "fraction of 1",
                "box AP after the fine-tuning of tune.objective transfer, images that trained nothing",
            ),
            _field("transfer_box_ap50", _FLOAT, "fraction of 1", "the same at an overlap of 0.5"),
            _field("genotype_hash", _TEXT, "", "hash of the genotype"),
            _field("parameters", _INT, "", "weights of the derived network without auxiliary head"),
            _field("macs", _INT, "multiply-adds per image", "of the derived network, convention A"),
            _field("latency_ms", _FLOAT, "ms", "median of a forward pass, where tune.latency measured it"),
            _field("latency_spread_ms", _FLOAT, "ms", "of these, from the first to the third quartile"),
            _field("beyond", _TEXT, "", "limits of tune.limits that the network is beyond, by commas; empty: none"),
            _field("num_epochs", _INT, "epochs", "recorded epochs of the search, warm-up included"),
            _field("search_seconds", _FLOAT, "s", "wall time of these epochs"),
            _field("search_macs", _INT, "multiply-adds", "of the whole search, where tune.budget counted them"),
            _field("run_id", _TEXT, "", "MLflow run"),
            _field("seconds", _FLOAT, "s", "wall time of the trial"),
        ),
        "epochs": _schema(
            "epochs",
            _TRIAL_ID,
            _EPOCH,
            _PHASE,
            _field("split", _NAME, "", "train, alpha, held_out, validation, or the metric's group before the slash"),
            _field("metric", _NAME, "", "metric name behind the slash", required=True),
            _field("value", _FLOAT, "fraction of 1, nats, count or s", "accuracy, loss, operations or time, by metric"),
        ),
        "contributions": _schema(
            "contributions",
            _TRIAL_ID,
            _EPOCH,
            _CELL,
            _field("contribution", _FLOAT, "nats", "marginal contribution M of the cell (eq. 6), below 0 helps"),
            _field("ablation", _FLOAT, "", "ablation loss of the cell (eq. 7); null when not computed"),
            _field("shapley", _FLOAT, "nats", "Shapley value of the cell, below 0 helps; null when not computed"),
            _field("shapley_error", _FLOAT, "nats", "standard error of the Shapley value; 0 where it is exact"),
        ),
        "alphas": _schema(
            "alphas",
            _TRIAL_ID,
            _EPOCH,
            _CELL,
            _field("edge", pa.int16(), "", "index of the edge, by target then source", required=True),
            _SOURCE,
            _TARGET,
            _OP,
            _field("alpha", pa.float32(), "", "architecture parameter after the epoch"),
            _field("gate", pa.float32(), "", "weight of the operation that it stands for; null in schema 2.0"),
        ),
        "genotypes": _schema(
            "genotypes",
            _TRIAL_ID,
            _field("genotype_hash", _NAME, "", "hash of the genotype", required=True),
            _field("genotype_json", _NAME, "", "the whole genotype", required=True),
            _CELL,
            _TARGET,
            _SOURCE,
            _OP,
        ),
    }
)
