"""A study's folder as plain data: what the sweep wrote, read with tolerance for a sweep that still runs.

Files are written whole, so a damaged `study.json`, `trial.json` or `genotype.json` is an error. Only the last line of
`records.jsonl` may be cut off, because a running trial appends to it; an epoch that was written twice (a resumed trial)
counts once, with its last values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError, unknown_name
from ddarts_core.loops.records import EpochRecord, parse_jsonl, stage
from ddarts_core.studies.study_files import read_study_file, read_trial_file

from . import packed
from .single import is_search, read_search

#: Convention of counting multiply-adds when a trial states several: those of convolutions and linear layers only.
MACS_CONVENTION = "A"

#: Tells, from what `study.json` and each `trial.json` say, the share of the objective's variance that each setting
#: explains by itself, and the ends of its interval.
Importances = Callable[[Mapping[str, Any], Iterable[Mapping[str, Any]]], Mapping[str, tuple[float, float, float]]]


@dataclass(frozen=True)
class Trial:
    """One trial: the content of its `trial.json`, its epochs and its genotype (None until it has one)."""

    info: Mapping[str, Any]
    records: tuple[EpochRecord, ...]
    genotype: AnyGenotype | None

    @property
    def trial_id(self) -> str:
        """Name of the trial and of its folder."""
        return str(self.info["trial_id"])


@dataclass(frozen=True)
class Study:
    """One study: its folder, the content of its `study.json`, and its trials in the order of their numbers."""

    folder: Path
    info: Mapping[str, Any]
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.info["name"])

    @property
    def is_packed(self) -> bool:
        """Whether it is read from one file, which keeps neither other files of the trials nor weights."""
        return self.folder.suffix == packed.SUFFIX

    @property
    def completed(self) -> tuple[Trial, ...]:
        """Trials that ran to their end and left a genotype."""
        return tuple(t for t in self.trials if t.info["state"] == "COMPLETED" and t.genotype is not None)


def read_study(folder: str | Path, alphas: bool = True) -> Study:
    """Read a study's folder, the file it was packed into, or the folder of a finished search, a study of one trial.

    The alphas of all trials take many times the memory of the rest.

    Args:
        folder: the folder of the study or of the search, or the file.
        alphas: whether to read the alphas. If not, those of every record are empty, and `with_alphas` reads the alphas
            of one trial. A file is read with all its alphas.

    Raises:
        UserError: the folder is missing or no study, or one of its files is damaged or of another schema version, or
            its genotypes have operations of a plug-in that is not loaded.
    """
    root = Path(folder)
    if root.suffix == packed.SUFFIX:
        info, parts = packed.unpack(root)
        with plugins.needed(info.get("plugins", ()), f"study {info['name']!r}"):
            return Study(root, info, tuple(Trial(*part) for part in parts))
    if is_search(root):
        info, of_trial, records, genotype = read_search(root, alphas)
        return Study(root, info, (Trial(of_trial, tuple(records), genotype),))
    info = read_info(root)
    with plugins.needed(info.get("plugins", ()), f"study {info['name']!r}"):  # for operations of theirs in a genotype
        trials = [read_trial(path, alphas, metrics_of(info)) for path in trial_folders(root)]
    return Study(root, info, tuple(sorted(trials, key=lambda t: (int(t.info["number"]), t.trial_id))))


def read_info(root: Path) -> dict[str, Any]:
    """The content of a study's `study.json`.

    Raises:
        UserError: the folder is missing or no study, or the file is damaged or of another schema version.
    """
    if not root.is_dir():
        raise UserError(f"no study at {str(root)!r}: the folder does not exist")
    if not (root / "study.json").is_file():
        raise UserError(f"{str(root)!r} is not a study: it has no study.json")
    return read_study_file(root)


def limits_of(study: Study) -> dict[str, float | None]:
    """The limits that a study's networks should keep (`tune.limits`), by name; a value of None is no limit."""
    return dict(_group(_group(study.info, "config"), "tune").get("limits") or {})


def log_sampled(study: Study) -> frozenset[str]:
    """Dotted paths of the settings that the sweep sampled on a logarithmic scale."""
    space = _group(_group(study.info, "config"), "space")
    return frozenset(path for path, kind in space.items() if isinstance(kind, Mapping) and kind.get("log") is True)


def wall_seconds(trials: Iterable[Mapping[str, Any]]) -> float | None:
    """Seconds in which at least one trial ran, by the trials' `trial.json`.

    Trials that ran side by side count once, and pauses between trials not at all. A trial that was stopped and went on
    counts as if it had run without that pause. None if one of the trials lacks the time at which it began.

    Example:
        >>> begins = ("2026-01-02T03:04:00+00:00", "2026-01-02T03:04:05+00:00")
        >>> wall_seconds({"begun": begun, "seconds": 10.0} for begun in begins)
        15.0
    """
    spans = []
    for trial in trials:
        try:
            start = datetime.fromisoformat(str(trial.get("begun"))).timestamp()
        except ValueError:
            return None
        spans.append((start, start + float(trial["seconds"])))
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def trial_folders(root: Path) -> list[Path]:
    """Folders of a study's trials, by name."""
    return sorted(path.parent for path in root.glob("trials/*/trial.json"))


def with_alphas(study: Study, trial: Trial) -> Trial:
    """A trial of a study that was read without alphas, with its records read again, alphas included.

    Raises:
        UserError: the file of its records is damaged.
    """
    if study.is_packed:
        return trial
    if is_search(study.folder):
        return replace(trial, records=tuple(read_search(study.folder)[2]))
    return replace(trial, records=read_records(study.folder / "trials" / trial.trial_id / "records.jsonl"))


def find_trial(name: str, known: Sequence[str]) -> str:
    """The trial that a name means; leading zeros may be left out: `2` is `00002`.

    Raises:
        UserError: there is no such trial; the message lists those there are.
    """
    same = [trial for trial in known if trial == name] or [
        trial for trial in known if name.isdecimal() and trial.isdecimal() and int(trial) == int(name)
    ]
    if not same:
        raise unknown_name("trial", name, known)
    return same[0]


def metrics_of(info: Mapping[str, Any]) -> list[str]:
    """Metrics of the objectives, by the content of a study's `study.json`."""
    return [str(objective["metric"]) for objective in info["objectives"]]


def read_trial(folder: Path, alphas: bool = True, metrics: Iterable[str] = ()) -> Trial:
    """Read one trial's folder.

    Args:
        folder: the folder of the trial.
        alphas: whether to read the alphas of the records.
        metrics: the metrics of which a completed trial must have a value.

    Raises:
        UserError: one of its files is damaged or of another schema version.
    """
    info = read_trial_file(folder, metrics)
    path = folder / "genotype.json"
    records = read_records(folder / "records.jsonl", alphas)
    return Trial(info, records, AnyGenotype.load(path) if path.is_file() else None)


def read_records(path: Path, alphas: bool = True) -> tuple[EpochRecord, ...]:
    """The epochs of a trial in order, each once. A last line that is cut off is left out; a missing file has no epochs.

    Args:
        path: the file `records.jsonl` of the trial.
        alphas: whether to keep the alphas, the gates and the parameters of each record; if not, they are empty.

    Raises:
        UserError: a line that is not the last one, or a complete line, is not an epoch record.
    """
    if not path.is_file():
        return ()
    return parse_records(path.read_text(encoding="utf-8", errors="replace"), str(path), alphas)


def parse_records(text: str, where: str, alphas: bool = True) -> tuple[EpochRecord, ...]:
    """The epochs in the text of a file, as `read_records` gives them.

    Args:
        text: the text of the file.
        where: what error messages call the file.
        alphas: as for `read_records`.

    Raises:
        UserError: a line that is not the last one, or a complete line, is not an epoch record.
    """
    epochs: dict[tuple[str, int], EpochRecord] = {}
    for record in parse_jsonl(text, where):
        epochs[record.phase, record.epoch] = record if alphas else replace(record, alphas=(), gates=(), parameters={})
    return tuple(sorted(epochs.values(), key=lambda record: record.place))


# --- one flat row per trial -----------------------------------------------------------------------------------------


def trial_row(trial: Trial) -> dict[str, Any]:
    """The trial as one flat row: the columns of table `trials` except `study`; unknown values are None."""
    info, config = trial.info, trial.info["config"]
    cost, derived = info.get("cost") or {}, info.get("derived") or {}
    baseline, transfer = info.get("baseline") or {}, info.get("transfer") or {}
    objectives = info.get("objectives") or {}
    macs = cost.get("macs")
    search = [record for record in trial.records if not stage(record.phase)]
    last = dict(search[-1].metrics) if search else {}
    held_out = [r.metrics["held_out/accuracy"] for r in search if "held_out/accuracy" in r.metrics]
    return {
        "trial_id": trial.trial_id,
        "number": int(info["number"]),
        "state": info["state"],
        "reason": info.get("reason"),
        "seed": _optional(int, info.get("seed")),
        "method": config.get("method"),
        "data_set": _group(config, "data").get("name"),
        "num_cells": _optional(int, _group(config, "search").get("num_cells")),
        "channels": _optional(int, _group(config, "search").get("channels")),
        "search_epochs": _optional(int, _group(config, "search").get("epochs")),
        "w_zero_one": _optional(float, _group(config, "search").get("w_zero_one")),
        "w_ablation": _w_ablation(_group(config, "ablation")),
        "threshold": _optional(float, _group(config, "discretise").get("threshold")),
        "config_hash": info.get("config_hash"),
        "config_json": _json(config),
        "params_json": _json(info.get("params") or {}),
        "objectives_json": _json(objectives),
        "objective": _optional(float, next(iter(objectives.values()), None)),
        "held_out_accuracy": _optional(float, held_out[-1] if held_out else None),
        "recalibration_batches": int(search[-1].metrics.get("held_out/recalibration_batches", 0)) if held_out else None,
        "derived_accuracy": _optional(float, derived.get("held_out/accuracy")),
        "held_out_balanced_accuracy": _optional(float, last.get("held_out/balanced_accuracy")),
        "derived_balanced_accuracy": _optional(float, derived.get("held_out/balanced_accuracy")),
        "baseline_accuracy": _optional(float, baseline.get("held_out/accuracy")),
        "baseline_parameters": _optional(int, baseline.get("parameters")),
        "baseline_macs": _optional(int, baseline.get("macs")),
        "gain": _gain(derived, baseline),
        "transfer_box_ap": _optional(float, transfer.get("held_out/box_ap")),
        "transfer_box_ap50": _optional(float, transfer.get("held_out/box_ap50")),
        "genotype_hash": trial.genotype.hash if trial.genotype else info.get("genotype_hash"),
        "parameters": _optional(int, cost.get("parameters")),
        "macs": _optional(int, macs.get(MACS_CONVENTION) if isinstance(macs, Mapping) else macs),
        "latency_ms": _optional(float, cost.get("latency_ms")),
        "latency_spread_ms": _optional(float, cost.get("latency_spread_ms")),
        "beyond": ",".join(info.get("beyond") or ()),
        "num_epochs": len(search),
        "search_seconds": sum(sum(record.seconds.values()) for record in search),
        "search_macs": _optional(int, cost.get("search_macs")),
        "run_id": info.get("run_id"),
        "seconds": _optional(float, info.get("seconds")),
    }


def _gain(derived: Mapping[str, Any], baseline: Mapping[str, Any]) -> float | None:
    """Held-out accuracy of the derived network less that of the start architecture; None without either."""
    found, start = (group.get("held_out/accuracy") for group in (derived, baseline))
    return None if found is None or start is None else float(found) - float(start)


def _group(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = config.get(name)
    return group if isinstance(group, Mapping) else {}


def _w_ablation(ablation: Mapping[str, Any]) -> float | None:
    """The weight w_AB that the ablation loss has in effect: 0 where the loss is off or only monitored."""
    if ablation.get("loss") in ("none", "monitor"):
        return 0.0
    weight = ablation.get("weight")
    return None if weight is None else float(weight)


def _optional(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
