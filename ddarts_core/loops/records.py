"""What a loop reports: one `EpochRecord` per epoch, as plain torch-free data.

Metric names carry their split: `train/` (images that trained the weights), `alpha/` (images that trained the alphas),
`held_out/` (images that trained nothing), `test/` (read once, after training). A network's score stands beside
`recalibration_batches`, how many batches its batch normalisation was recalibrated from: 0 means running statistics, and
so does its absence, in records from before there was a choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..ground.files import write_atomic

PHASES = ("warmup", "search", "joint")
"""Of the epochs of a search, in the order by which MLflow has them as numbers."""

LATER: Mapping[str, str] = MappingProxyType({"retrain": "retrain/", "transfer": "fine_tuning/"})
"""Phases that follow a search, in their order, and what their numbers begin with where all phases share one list."""


def stage(phase: str) -> int:
    """0 of a search's epochs, 1 of the training of what it found, 2 of that network's training on another task."""
    return 1 + [*LATER].index(phase) if phase in LATER else 0


@dataclass(frozen=True)
class EpochRecord:
    """What a loop records of one epoch.

    Attributes:
        epoch: number from 0, warm-up epochs included.
        phase: `warmup`, `search`, `joint` (weights and alphas on the images of both splits), `retrain` or `transfer`.
        network: number of the supernet, from 0, of a search that goes from one to the next.
        metrics: scalar by name, for example `held_out/accuracy` (a fraction of 1) or `alpha/zero_one`.
        contributions: marginal contribution M of each group of alphas (eq. 6, nats), averaged over the epoch's steps;
            empty when not computed, NaN (null in JSON) of a group that no step removed.
        ablation: ablation loss L_AB of each group (eq. 7).
        shapley: Shapley value of each group on held-out images, with the sign of eq. 6 (nats); empty when not computed.
        shapley_errors: their standard errors; zeros where the values are exact.
        alphas: [groups][edges][operations of the space], after the epoch; empty unless recorded.
        gates: of the same shape, what the alphas stand for; empty unless recorded, and where it is sigma(alpha).
        parameters: other architecture parameters by name, nested lists [groups]...; empty unless recorded.
        seconds: by part of the epoch (`data`, `alphas`, `weights`, `recalibration`, `evaluation`), which make up all of
            it; not reproducible.
        peak_memory: largest memory in bytes; not reproducible.
    """

    epoch: int
    phase: str
    metrics: Mapping[str, float]
    contributions: tuple[float, ...] = ()
    ablation: tuple[float, ...] = ()
    alphas: tuple[tuple[tuple[float, ...], ...], ...] = ()
    shapley: tuple[float, ...] = ()
    shapley_errors: tuple[float, ...] = ()
    network: int = 0
    gates: tuple[tuple[tuple[float, ...], ...], ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    peak_memory: int = field(default=0, compare=False)

    @property
    def place(self) -> tuple[int, int]:
        """Its stage and its number: the order of a trial's epochs."""
        return stage(self.phase), self.epoch

    def to_dict(self, timing: bool = False) -> dict[str, Any]:
        """Plain data; without `timing` only what the same seed reproduces byte for byte."""
        data: dict[str, Any] = {
            "epoch": self.epoch,
            "phase": self.phase,
            "metrics": dict(sorted(self.metrics.items())),
            "contributions": [None if math.isnan(value) else value for value in self.contributions],
            "ablation": list(self.ablation),
            "alphas": [[list(edge) for edge in cell] for cell in self.alphas],
        }
        if self.gates:
            data["gates"] = [[list(edge) for edge in cell] for cell in self.gates]
        if self.parameters:
            data["parameters"] = dict(self.parameters)
        if self.network:
            data["network"] = self.network
        if self.shapley:
            data |= {"shapley": list(self.shapley), "shapley_errors": list(self.shapley_errors)}
        if timing:
            data |= {"seconds": dict(self.seconds), "peak_memory": self.peak_memory}
        return data

    @cached_property
    def line(self) -> str:
        """All of it as JSON on one line; made once, so that a file may be written anew after every epoch."""
        return json.dumps(self.to_dict(timing=True))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpochRecord:
        """The inverse of `to_dict`."""
        return cls(
            epoch=data["epoch"],
            phase=data["phase"],
            metrics=dict(data["metrics"]),
            contributions=tuple(math.nan if value is None else value for value in data["contributions"]),
            ablation=tuple(data["ablation"]),
            alphas=tuple(tuple(tuple(edge) for edge in cell) for cell in data["alphas"]),
            shapley=tuple(data.get("shapley", ())),
            shapley_errors=tuple(data.get("shapley_errors", ())),
            gates=tuple(tuple(tuple(edge) for edge in cell) for cell in data.get("gates", ())),
            parameters=dict(data.get("parameters", {})),
            network=data.get("network", 0),
            seconds=dict(data.get("seconds", {})),
            peak_memory=data.get("peak_memory", 0),
        )


def write_jsonl(path: str | Path, records: Iterable[EpochRecord], timing: bool = False) -> None:
    """Write records, one JSON object per line, to a temporary name and rename it."""
    lines = (record.line if timing else json.dumps(record.to_dict()) for record in records)
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_jsonl(path: str | Path) -> list[EpochRecord]:
    """Records of a file that `write_jsonl` wrote; an empty list if there is none."""
    file = Path(path)
    if not file.exists():
        return []
    return [EpochRecord.from_dict(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line]
