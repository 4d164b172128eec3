"""The hash of a configuration. Runs that have equal results have equal hashes. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from .retrain_settings import RetrainConfig

#: Settings that determine where a run is and what it takes, not what it finds.
PLACES = (
    "name",
    "storage",
    "data.root",
    "data.num_workers",
    "search.device",
    "retrain.device",
    "retrain.checkpoint_every",
    "tracking.system_metrics",
)

#: Settings that came later, with what every run before them had: at this value they count for nothing, so that results
#: keep the hash that they were published under and a run that was begun then goes on.
LATER: Mapping[str, Any] = MappingProxyType(
    {
        "data.channels": None,
        "data.mean": None,
        "data.std": None,
        "data.in_memory": None,
        "data.on_broken": "error",
        "search.edge": "mixed",
        "search.regularisers": {},
        "search.stages": "standard",
        "search.freezing": "none",
        "search.options": {},
        "data.split.seed": None,
        "search.number": None,
        "search.network": "cells",
        "search.cost": None,
        "search.probe": 0,
        "search.stop": None,
        "search.share_weights": False,
        "search.hessian": "finite",
        "search.head_norm": False,
        "alpha.grad_clip": None,
        "ablation.schedule": "constant",
        "ablation.options": {},
        "discretise.max_skips": None,
        "discretise.options": {},
        "retrain.class_weights": "none",
        "retrain.compile": "none",
        "retrain.on_dead_cell": "warn",
        "tune.metric": "accuracy",
        "tune.max_failures_alike": 3,
        "tune.budget": "epochs",
        "tune.budget_amount": None,
        "tune.limits": {"parameters": None, "macs": None, "latency_ms": None},
        "tune.latency": None,
        "tune.resources.threads": None,
        "transfer": {},
        # Scores before were of running statistics, and every record says which it has; the training is the same.
        "search.recalibration_batches": 4,
    }
)

#: Settings that had another name, by dotted path, and that name.
RENAMED: Mapping[str, str] = MappingProxyType({"search.gates": "search.relaxation"})


def config_hash(config: BaseModel, exclude: Iterable[str] = PLACES) -> str:
    """Return 12 hex digits of the SHA-256 of everything that determines the results, except for rounding.

    Args:
        config: a configuration, or a part of one.
        exclude: dotted paths of settings that are left out of the hash. A path that `config` does not have is ignored.
    """
    data = config.model_dump(mode="json")
    part = "retrain." if isinstance(config, RetrainConfig) else ""
    for path in exclude:
        group, name = _group_of(data, path)
        group.pop(name, None)
    for path, value in LATER.items():
        group, name = _group_of(data, path.removeprefix(part))
        if name in group and group[name] == value:
            del group[name]
    for path, earlier in RENAMED.items():
        group, name = _group_of(data, path.removeprefix(part))
        if name in group:
            group[earlier.rpartition(".")[2]] = group.pop(name)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _group_of(data: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that a dotted path leads into (empty if there is none), and the last name of the path."""
    *groups, name = path.split(".")
    for key in groups:
        inner = data.get(key)
        data = inner if isinstance(inner, dict) else {}
    return data, name
