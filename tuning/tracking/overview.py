"""What a study's run in MLflow shows at a glance: what is sought, the best so far, its curve over time, and the data.

All of it follows from the study's folder, and is written again as trials end. Only a point of a curve is sent once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ddarts_core.datasets import facts
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import ENDED, TRIAL_STATES

from ..store.study import Study, best_of, end_of
from .study_run import TEXT_LIMIT, attempt, end_run, make_client

EVERY_S = 10.0
"""Seconds between two overviews while trials end, since each overview reads the files of all trials."""

Point = tuple[int, int, dict[str, float]]
"""A point of the curves: how many trials have ended, the time in ms, and numbers by metric."""


def show_study(study: Study, status: str) -> bool:
    """Bring the study's run up to date: overview, settings, data, status. Returns whether MLflow took all of it.

    Args:
        study: the study, as its folder has it.
        status: the status of the run in MLflow's words.
    """
    told = [tell(study, status), attempt(lambda: _log_inputs(study), "settings of the study")]
    return end_run(study, study.data["parent_run_id"], status) and all(told)


def tell(study: Study, status: str = "RUNNING") -> bool:
    """Write the description and the points of the curves that MLflow lacks. Returns whether MLflow took them."""

    def call() -> None:
        from mlflow.entities import Metric

        client, run_id = make_client(study.data["tracking_uri"]), study.data["parent_run_id"]
        trials = study.trials()
        client.set_tag(run_id, "mlflow.note.content", note(study, trials, status)[:TEXT_LIMIT])
        told = {metric.step for metric in client.get_metric_history(run_id, "trials/ended")}
        metrics = [
            Metric(name, value, stamp, ended)
            for ended, stamp, found in curve(study, trials)
            if ended not in told
            for name, value in found.items()
        ]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])

    return attempt(call, "overview of the study")


def _log_inputs(study: Study) -> None:
    """Log the resolved configuration as an artifact, and the data set as an input; a repetition changes nothing."""
    from mlflow.entities import DatasetInput, InputTag

    client, run_id = make_client(study.data["tracking_uri"]), study.data["parent_run_id"]
    config = study.data["config"]
    if (data := data_set(study)) is not None:
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "search")])])
    if config["tracking"]["log_artifacts"]:
        client.log_text(run_id, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), "config.yaml")


def data_set(study: Study) -> Any:
    """MLflow's entity for the data set of a study; None if the study has no facts of its data (data.json).

    The digest is made from what the study knows of its data: name, settings, counts of the classes, mean and deviation.
    """
    from mlflow.entities import Dataset

    content, settings = facts.read_facts(study.path), study.data["config"]["data"]
    if content is None:
        return None
    known = json.dumps([content, settings["num_train"], settings["split"]], sort_keys=True)
    shape = [-1, content["channels"], content["image_size"], content["image_size"]]
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}
    return Dataset(
        name=content["name"],
        digest=hashlib.sha256(known.encode()).hexdigest()[:8],
        source_type="local",
        source=json.dumps({"uri": settings["root"]}),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps([tensor]), "targets": None}}),
        profile=json.dumps({"num_rows": sum(content["train_counts"]), "num_classes": content["num_classes"]}),
    )


def note(study: Study, trials: Sequence[Mapping[str, Any]], status: str) -> str:
    """The description of a study's run, in Markdown.

    Args:
        study: the study to describe.
        trials: the records of the study's trials.
        status: the status of the run in MLflow's words.
    """
    config = study.data["config"]
    tune = config["tune"]
    sought = " and ".join(f"`{metric}` ({mode})" for metric, mode in study.objectives)
    lines = [
        f"Sought: {sought}, by {tune['searcher']} with scheduler {tune['scheduler']}; method {config['method']} on "
        f"{config['data']['name']}, seed {config['seed']}.",
        "",
        "| setting | values |",
        "|---|---|",
        *(f"| `{path}` | {values(entry)} |" for path, entry in sorted(config["space"].items())),
        "",
    ]
    counts = {state: sum(trial["state"] == state for trial in trials) for state in TRIAL_STATES}
    words = {"RUNNING": "running" if status == "RUNNING" else "stopped"}
    parts = [f"{count} {words.get(state, state.lower())}" for state, count in counts.items() if count]
    lines += [f"{tune['num_samples']} trials are planned: {', '.join(parts) or 'none is begun'}.", ""]
    best = best_of(trials, study.objectives)
    if best is not None:
        found = ", ".join(f"{name} {value:.6g}" for name, value in best["objectives"].items())
        params = ", ".join(f"`{path}` = {value}" for path, value in best["params"].items())
        lines += [f"Best so far, by `{study.objectives[0][0]}`: **trial {best['trial_id']}**, {found}; {params}.", ""]
    place = study.location
    commands = [ddarts("status", place), ddarts("report", place), ddarts("export", place)]
    if status == "KILLED":
        commands = [ddarts("resume", place), *commands]
    return "\n".join([*lines, *(f"    {command}" for command in commands), ""])


def values(entry: Mapping[str, Any]) -> str:
    """The values that a setting of a space may have, in words.

    Example:
        >>> values({"type": "float", "low": 0.1, "high": 1.0, "log": True, "step": None})
        '0.1 to 1.0, log'
    """
    when = "".join(f", if `{path}` is {' or '.join(map(str, of))}" for path, of in (entry.get("when") or {}).items())
    if "choices" in entry:
        return ", ".join(map(str, entry["choices"])) + when
    log = ", log" if entry.get("log") else ""
    step = f", in steps of {entry['step']}" if entry.get("step") not in (None, 1) else ""
    return f"{entry['low']} to {entry['high']}{log}{step}{when}"


def curve(study: Study, trials: Sequence[Mapping[str, Any]]) -> list[Point]:
    """A point for each trial that ended, in the order of their ends.

    It has the number of trials by state, and the best objective so far.
    """
    metric = study.objectives[0][0]
    ended = sorted((end_of(trial), trial["number"], trial) for trial in trials if trial["state"] in ENDED)
    counts = dict.fromkeys(ENDED, 0)
    best: Mapping[str, Any] | None = None
    points = []
    for count, (end, _, trial) in enumerate(ended, start=1):
        counts[trial["state"]] += 1
        best = best_of([*([] if best is None else [best]), trial], study.objectives)
        found = {f"trials/{state.lower()}": float(number) for state, number in counts.items()}
        if best is not None:
            found[f"best/{metric}"] = float(best["objectives"][metric])
        points.append((count, int(1000 * end.timestamp()), {"trials/ended": float(count), **found}))
    return points
