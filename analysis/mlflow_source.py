"""A study out of MLflow alone, for those who have the tracking store and not the study's folder.

From the runs of a sweep the same tables are built as from its folder. Alphas, which are no metrics, are read from the
file of records that a trial leaves with its run when it ends; what a run lacks is told in a note.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path
from ddarts_core.loops.records import LATER, PHASES, EpochRecord, stage
from ddarts_core.studies.study_files import TRANSFER_OBJECTIVE

from .collect import Collected, write_dataset
from .mlflow_runs import PARENT, Run, read_artifacts, read_runs, study_names
from .study import Trial, parse_records

#: Settings whose value is text even when it looks like a number.
_RECORD_ALPHAS = "search.record_alphas"
_TEXT = frozenset({"name", "storage", "method", "data.name", "data.root", "retrain.recipe"})

#: Numbers of a trial that are logged once, without a prefix, and their types.
_COSTS = {"parameters": int, "macs": int, "search_macs": int, "latency_ms": float, "latency_spread_ms": float}

#: Trials whose files of records are read together: those of a remote store at the same time.
_TOGETHER = 16

#: MLflow stores infinity as the largest float of its databases.
_INFINITE = 1.797e308

Point = tuple[str, int, float]


def collect_from_mlflow(tracking_uri: str, study: str, out: str | Path) -> Collected:
    """Write the Parquet dataset of the newest study of that name that MLflow holds to the folder `out`.

    The alphas of the trials are read and written a few trials at a time, so that they need not fit in memory together.

    Raises:
        UserError: the store cannot be read, or it has no study of that name; lists those it has.
    """
    parent, children = _runs_of(tracking_uri, study)
    with_genotype = [run for run in children if "genotype_hash" in run.tags]
    genotypes = read_artifacts(tracking_uri, with_genotype, "genotype.json")
    trials = {run.run_id: _trial(run, parent, genotypes.get(run.run_id)) for run in children}
    children.sort(key=lambda run: int(trials[run.run_id].info["number"]))
    # Alphas are recorded, and it is only for them that the file is needed.
    wanted = {run.run_id for run in children if run.points and run.params.get(_RECORD_ALPHAS) == "True"}
    alphas_of: set[str] = set()

    def whole() -> Iterator[Trial]:
        for start in range(0, len(children), _TOGETHER):
            some = children[start : start + _TOGETHER]
            records = read_artifacts(tracking_uri, [run for run in some if run.run_id in wanted], "records.jsonl")
            alphas_of.update(records)
            for run in some:
                yield _with_alphas(trials[run.run_id], records.pop(run.run_id, ""))

    collected = write_dataset(Path(out), study, whole())
    notes = [
        *_lacking("genotypes", len(with_genotype), len(genotypes), "genotype.json"),
        *_lacking("alphas", len(wanted), len(alphas_of), "records.jsonl"),
    ]
    return replace(collected, notes=tuple(notes))


def studies_in_mlflow(tracking_uri: str) -> list[str]:
    """Names of the studies of a store.

    Raises:
        UserError: the store cannot be read.
    """
    return study_names(tracking_uri)


def _runs_of(uri: str, study: str) -> tuple[Run, list[Run]]:
    """The run of the newest study of that name, and the newest run of each of its trials."""
    runs = read_runs(uri, study)
    parents = [run for run in runs if PARENT not in run.tags]
    if not parents:
        names = ", ".join(study_names(uri)) or "none"
        raise UserError(f"MLflow holds no study {study!r}: it has {names}")
    parent = max(parents, key=lambda run: run.start or 0)
    children = {
        run.tags["trial_id"]: run
        for run in sorted(runs, key=lambda run: run.start or 0)
        if run.tags.get(PARENT) == parent.run_id and "trial_id" in run.tags
    }
    return parent, list(children.values())


def _lacking(what: str, wanted: int, found: int, name: str) -> Iterator[str]:
    """A sentence on the trials that lack an artifact, if there are any."""
    if found < wanted:
        yield (
            f"{what} of {wanted - found} of {wanted} trials are left out: MLflow has no {name} of them "
            "(a trial leaves it when it ends, unless tracking.log_artifacts is off or the artifact store is elsewhere)"
        )


# --- from a run to a trial ------------------------------------------------------------------------------------------


def _trial(run: Run, parent: Run, genotype: str | None) -> Trial:
    """One trial, without its alphas."""
    config = _config({**run.params, **json.loads(run.tags.get("unused", "{}"))}, run.run_id)
    steps, finals = _split(run)
    warmup = int(config["search"].get("warmup_epochs") or 0)
    second = parent.params.get("tune.second_objective", "None")
    derived, baseline, transfer = (
        {name.removeprefix(f"{group}/"): value for name, value in finals.items() if name.startswith(f"{group}/")}
        for group in ("derived", "baseline", "transfer")
    )
    first = f"held_out/{parent.params.get('tune.metric', 'accuracy')}"
    objective = parent.params.get("tune.objective")
    first = f"derived/{first}" if objective == "derived" else TRANSFER_OBJECTIVE if objective == "transfer" else first
    values = {first: finals.get("final/" + first, finals.get(first))}
    if second != "None":
        values[second] = None if second not in finals else _COSTS[second](finals[second])
    objectives = {name: value for name, value in values.items() if value is not None}
    # Killed with the sweep, a trial waits to be resumed.
    state = run.tags.get("state") or ("FAILED" if run.status == "FAILED" else "RUNNING")
    info = {
        "trial_id": run.tags["trial_id"],
        "number": int(run.tags["trial_id"]),
        "state": state,
        "reason": run.tags.get("reason"),
        "seed": config["seed"],
        "config": config,
        "config_hash": run.tags.get("config_hash"),
        "params": _params(run, config, parent.params),
        "objectives": objectives if state == "COMPLETED" else None,
        "derived": derived or None,
        "baseline": baseline or None,
        "transfer": transfer or None,
        "cost": {name: kind(finals[name]) for name, kind in _COSTS.items() if name in finals} or None,
        "beyond": [name for name in run.tags.get("beyond", "").split(",") if name],
        "genotype_hash": run.tags.get("genotype_hash"),
        "run_id": run.run_id,
        "seconds": finals.get("final/seconds"),
    }
    return Trial(info, _records(steps, warmup), AnyGenotype.from_text(genotype) if genotype else None)


def _with_alphas(trial: Trial, records: str) -> Trial:
    """The trial with the alphas out of the text of its file of records, where that has them."""
    where = f"MLflow run {trial.info['run_id']}"
    whole = {record.place: record for record in parse_records(records, where)}
    found = []
    for record in trial.records:
        own = whole.get(record.place)
        if own is not None:
            record = replace(record, alphas=own.alphas, gates=own.gates, parameters=own.parameters)
        found.append(record)
    return replace(trial, records=tuple(found))


def _config(params: Mapping[str, str], run_id: str) -> dict[str, Any]:
    """The nested configuration of flat texts; not validated, so that other versions' runs can be read."""
    nested: dict[str, Any] = {}
    for path, text in params.items():
        *groups, name = path.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = text if path in _TEXT else _parsed(text)
    if "seed" not in nested or not isinstance(nested.get("search"), dict):
        raise UserError(f"MLflow run {run_id} has no configuration of a search among its parameters")
    return nested


def _params(run: Run, config: Mapping[str, Any], sweep: Mapping[str, str]) -> dict[str, Any]:
    """What was drawn for the trial: the run's tag, cut off only if it is enormous, else what follows from the space."""
    try:
        return dict(json.loads(run.tags["params"]))
    except (KeyError, ValueError):
        return _proposed(config, sweep)


def _proposed(config: Mapping[str, Any], sweep: Mapping[str, str]) -> dict[str, Any]:
    """The values that the sweep proposed: those of its space whose conditions (`when`) hold."""
    prefix, mark = "space.", ".when."
    paths = {name[len(prefix) :].rsplit(".", 1)[0] for name in sweep if name.startswith(prefix) and mark not in name}
    conditions = [name[len(prefix) :].split(mark, 1) for name in sweep if name.startswith(prefix) and mark in name]
    for path, parent in conditions:
        if _value(config, parent) not in _parsed(sweep[f"{prefix}{path}{mark}{parent}"]):
            paths.discard(path)
    return {path: _value(config, path) for path in sorted(paths)}


def _value(config: Mapping[str, Any], path: str) -> Any:
    try:
        return get_path(config, path)
    except (KeyError, TypeError):
        return None


def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _split(run: Run) -> tuple[list[Point], dict[str, float]]:
    """Points of epochs, and the numbers that were logged once, when the trial ended."""
    steps: list[Point] = []
    finals: dict[str, float] = {}
    for (name, step), stored in run.points.items():
        if name.startswith("system/"):  # of the machine, not of the trial: its steps are no epochs
            continue
        value = math.copysign(math.inf, stored) if abs(stored) > _INFINITE else stored
        if name.startswith(("derived/", "baseline/", "transfer/", "final/")) or name in _COSTS:
            finals[name] = value
        else:
            steps.append((name, step, value))
    return steps, finals


def _records(points: Iterable[Point], warmup: int) -> tuple[EpochRecord, ...]:
    epochs: dict[tuple[int, int], dict[str, float]] = {}
    for name, step, value in points:
        phase = next((phase for phase, prefix in LATER.items() if name.startswith(prefix)), "")
        epochs.setdefault((stage(phase), step), {})[name.removeprefix(LATER.get(phase, ""))] = value
    return tuple(_record(number, epoch, epochs[number, epoch], warmup) for number, epoch in sorted(epochs))


_BY_CELL = ("contribution/cell_", "ablation/cell_", "shapley/cell_", "shapley_error/cell_")


def _record(number: int, epoch: int, values: Mapping[str, float], warmup: int) -> EpochRecord:
    cells: dict[str, dict[int, float]] = {}
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name, value in values.items():
        group, mark, cell = name.partition("/cell_")
        if mark and group + mark in _BY_CELL:
            cells.setdefault(group, {})[int(cell)] = value
        elif name.startswith("seconds/"):
            seconds[name.removeprefix("seconds/")] = value
        else:
            metrics[name] = value
    phase, network = [*LATER][number - 1] if number else "warmup" if epoch < warmup else "search", 0
    if "stage/phase" in metrics:  # runs of before have none, and no stages but these
        phase, network = PHASES[int(metrics.pop("stage/phase"))], int(metrics.pop("stage/network"))
    contributions, ablation, shapley, errors = (_dense(cells.get(name.partition("/")[0], {})) for name in _BY_CELL)
    return EpochRecord(
        epoch,
        phase,
        metrics,
        contributions,
        ablation,
        shapley=shapley,
        shapley_errors=errors,
        network=network,
        seconds=seconds,
    )


def _dense(found: Mapping[int, float]) -> tuple[float, ...]:
    """Values by index as a tuple; NaN, which older versions did not log, in the gaps."""
    return tuple(found.get(index, math.nan) for index in range(max(found, default=-1) + 1))
