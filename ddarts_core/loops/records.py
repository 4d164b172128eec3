"""A loop reports one `EpochRecord` per epoch, as plain data. Torch-free.

The name of a metric begins with the split of its images: `train/` (images that trained the weights), `alpha/` (images
that trained the alphas), `held_out/` (images that trained nothing), `test/` (images that are read once, after the
training). Beside the score of a network stands `recalibration_batches`: from how many batches its batch normalisation
was recalibrated. 0 means that the network was scored with running statistics. Records from before there was a choice
lack this metric, which means the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..ground.errors import UserError
from ..ground.files import write_atomic

PHASES = ("warmup", "search", "joint")
"""The phases of the epochs of a search. MLflow gets the place of a phase in this order, as a number."""

LATER: Mapping[str, str] = MappingProxyType({"retrain": "retrain/", "transfer": "fine_tuning/"})
"""The phases that follow a search, in their order, and the prefix of their metrics where all phases share one list."""


def stage(phase: str) -> int:
    """Return the stage of a phase.

    It is 0 for the epochs of a search, 1 for the training of the network that the search found, and 2 for the training
    of that network on another task.
    """
    return 1 + [*LATER].index(phase) if phase in LATER else 0


@dataclass(frozen=True)
class EpochRecord:
    """What a loop records of one epoch.

    Attributes:
        epoch: the number of the epoch, from 0; warm-up epochs count too.
        phase: `warmup`, `search`, `joint` (weights and alphas on the images of both splits), `retrain` or `transfer`.
        network: the number of the supernet, from 0, in a search that goes from one supernet to the next.
        metrics: numbers by name, for example `held_out/accuracy` (a fraction of 1) or `alpha/zero_one`.
        contributions: the marginal contribution M of each group of alphas (eq. 6) in nats, averaged over the steps of
            the epoch. It is empty if it was not computed, and NaN (null in JSON) for a group that no step removed.
        ablation: the ablation loss L_AB of each group (eq. 7).
        shapley: the Shapley value of each group on held-out images in nats, with the sign of eq. 6; empty if it was not
            computed.
        shapley_errors: the standard error of each Shapley value; 0 for exact values.
        alphas: the alphas after the epoch, [groups][edges][operations of the space]; empty unless recorded.
        gates: the gates that the alphas stand for, in the same shape. They are empty unless recorded, and also where a
            gate is just sigma(alpha).
        parameters: other architecture parameters by name, as nested lists [groups]...; empty unless recorded.
        seconds: the seconds that each part of the epoch took: `data`, `alphas`, `weights`, `recalibration` and
            `evaluation`, which together make up the whole epoch. They are not reproducible.
        peak_memory: the largest memory during the epoch, in bytes. It is not reproducible.
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
        """The stage and the number of the epoch, by which the epochs of a trial are ordered."""
        return stage(self.phase), self.epoch

    def to_dict(self, timing: bool = False) -> dict[str, Any]:
        """Return plain data.

        Args:
            timing: whether seconds and memory are included. Without them, the data have only what the same seed
                reproduces byte for byte.
        """
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
        """The whole record as JSON on one line.

        The line is made only once, although a file of records may be written anew after every epoch.
        """
        return json.dumps(self.to_dict(timing=True))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpochRecord:
        """Make the record from what `to_dict` gave."""
        return cls(
            epoch=int(data["epoch"]),
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
    """Write records, one JSON object per line. The file gets a temporary name first and is then renamed.

    Args:
        path: the file to write.
        records: the records.
        timing: whether seconds and memory are written too.
    """
    lines = (record.line if timing else json.dumps(record.to_dict()) for record in records)
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_jsonl(path: str | Path) -> list[EpochRecord]:
    """Read the records from a file that `write_jsonl` wrote, see `each_record`."""
    return [*each_record(path)]


def each_record(path: str | Path, newest_first: bool = False) -> Iterator[EpochRecord]:
    """Read one record after the other from a file that `write_jsonl` wrote; none if there is no file.

    Args:
        path: the file.
        newest_first: whether to begin at the end of the file.

    Raises:
        UserError: see `parse_jsonl`.
    """
    file = Path(path)
    if file.exists():
        yield from parse_jsonl(file.read_text(encoding="utf-8", errors="replace"), str(path), newest_first)


def parse_jsonl(text: str, where: str, newest_first: bool = False) -> Iterator[EpochRecord]:
    """Read one record after the other from the text of a file. A last line that is cut off is left out.

    Args:
        text: the text of the file.
        where: what error messages call the file.
        newest_first: whether to begin at the end of the text.

    Raises:
        UserError: a line that is not the last one, or a complete line, is not an epoch record.
    """
    lines = [*enumerate(text.split("\n"), start=1)]
    for number, line in reversed(lines) if newest_first else lines:
        if not line.strip():
            continue
        try:
            record = EpochRecord.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number < len(lines):  # else there is no newline behind it: it is being written, or was cut off then
                raise UserError(
                    f"{where}: line {number} is not an epoch record ({type(error).__name__}: {error})"
                ) from error
        else:
            yield record
