"""How far a study is: its trials by state, the epochs of the trials that run, and when the last trial will end."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddarts_core.loops.records import each_record, stage
from ddarts_core.studies.study_files import TRIAL_STATES

from .study import Study, num_begun, trial_dir


def summary(study: Study) -> dict[str, Any]:
    """The trials by state, the best trial so far and the epochs of the trials that run, as plain data."""
    ranked = study.ranked()
    states = {state: sum(trial["state"] == state for trial in ranked) for state in TRIAL_STATES}
    running = [trial for trial in ranked if trial["state"] == "RUNNING"]
    best = ranked[0] if states["COMPLETED"] else None
    return {
        "name": study.name,
        "path": study.location,
        "created": study.data["created"],
        "state": study.state,
        "objectives": study.data["objectives"],
        "num_samples": study.data["config"]["tune"]["num_samples"],
        "trials": states,
        "best": best and {key: best[key] for key in ("trial_id", "number", "objectives", "params", "cost")},
        "running": [_progress(study, trial) for trial in running],
        "expected_end": _expected_end(study, ranked),
    }


def last_accuracies(study: Study, metric: str) -> dict[str, float]:
    """The supernet's `metric` after the last epoch of the search of each trial that ended without completing."""
    found = {}
    for trial in study.trials():
        if trial["state"] in ("PRUNED", "FAILED"):
            records = each_record(trial_dir(study.path, trial["number"]) / "records.jsonl", newest_first=True)
            of_search = (record.metrics for record in records if not stage(record.phase))
            if (last := next((metrics for metrics in of_search if metric in metrics), None)) is not None:
                found[str(trial["trial_id"])] = last[metric]
    return found


def _progress(study: Study, trial: Mapping[str, Any]) -> dict[str, Any]:
    """The epochs that a trial has done, those that it has in all, and its epochs per minute as far as recorded."""
    seconds = _epoch_seconds(trial_dir(study.path, trial["number"]))
    rate = round(60 * len(seconds) / sum(seconds), 3) if any(seconds) else None
    return {
        "trial_id": trial["trial_id"],
        "epochs": len(seconds),
        "num_epochs": num_epochs(trial["config"], study.data["config"]),
        "epochs_per_minute": rate,
    }


def _expected_end(study: Study, trials: Sequence[Mapping[str, Any]]) -> str | None:
    """When the sweep will end if it goes on as it went, as ISO 8601 in UTC; None unless it runs and a trial has ended.

    The estimate assumes that each trial that is left takes as long as those that have ended, and that as many trials
    run at a time as now. Pauses do not count.
    """
    took = [trial["seconds"] for trial in trials if trial["state"] != "RUNNING"]
    if study.state != "RUNNING" or not took:
        return None
    mean = sum(took) / len(took)
    running = [trial for trial in trials if trial["state"] == "RUNNING"]
    left = mean * max(0, int(study.data["config"]["tune"]["num_samples"]) - num_begun(trials))
    for trial in running:
        left += max(0.0, mean - sum(_epoch_seconds(trial_dir(study.path, trial["number"]))))
    now = datetime.datetime.now(datetime.timezone.utc)
    end: datetime.datetime = now + datetime.timedelta(seconds=left / max(1, len(running)))
    return end.isoformat(timespec="seconds")


def _epoch_seconds(folder: Path) -> list[float]:
    """Wall time of each epoch that a trial has recorded."""
    return [sum(record.seconds.values()) for record in each_record(folder / "records.jsonl")]


def num_epochs(config: Mapping[str, Any], sweep: Mapping[str, Any]) -> int:
    """How many epochs a whole trial has: the warm-up's, the search's, and those of the trainings that it needs."""
    search, objective = config["search"], sweep["tune"]["objective"]
    if search.get("number") is not None:  # a genotype of a truth: nothing is searched
        return int(config["retrain"]["epochs"])
    trained = config["retrain"]["epochs"] if objective != "supernet" else 0
    tuned = sweep["transfer"]["training"]["epochs"] if objective == "transfer" else 0
    return int(search["warmup_epochs"] + search["epochs"] + trained + tuned)
