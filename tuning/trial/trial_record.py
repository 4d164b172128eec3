"""trial.json as it begins. The sweep writes it before the trial's process starts, so that no proposal is ever lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, each_record, stage
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.study_files import SCHEMA_VERSION, write_json

from ..settings.budget import seconds_of, tune_of, within
from ..settings.space import trial_config
from ..settings.tune import ACCURACY, RECALIBRATED, SEARCH_EPOCH
from ..store.study import Study, trial_dir, trial_name, utc_now


def new_record(number: int, params: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a trial before its first epoch.

    If the parameters contradict each other, the record has the reason why the trial fails.

    Args:
        number: the number of the trial.
        params: the drawn parameters, by dotted path.
        data: the contents of study.json.
    """
    return {
        "schema": SCHEMA_VERSION,
        "trial_id": trial_name(number),
        "ray_trial_id": "",
        "number": number,
        "params": dict(params),
        **meaning(params, data),
        "begun": utc_now(),
        "run_id": None,
        "code": None,
        "state": "RUNNING",
        "objectives": None,
        "genotype_hash": None,
        "cost": None,
        "beyond": None,
        "derived": None,
        "baseline": None,
        "transfer": None,
        "seconds": 0.0,
        "searched_epochs": None,
    }


def meaning(params: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that say what the drawn parameters mean in a study, within its budget.

    If the parameters contradict each other, or have no meaning within the budget, the configuration is the study's own,
    and the fields have the reason.

    Args:
        params: the drawn parameters, by dotted path.
        data: the contents of study.json.
    """
    contradiction = search_macs = None
    tune = tune_of(data)
    try:
        config, search_macs = within(trial_config(data["base"], params), tune)
    except UserError as error:
        config, contradiction = trial_config(data["base"], {}), str(error)
    counted = {} if search_macs is None else {"search_macs": search_macs}
    return {
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "seed": config.seed,
        "reason": contradiction,
        "contradiction": contradiction,
        "budget_seconds": seconds_of(tune),
        **counted,
    }


def begin(study: Study, number: int, params: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Write the file of a trial that begins, and return its record.

    Args:
        study: the study, which this process holds.
        number: the number of the trial.
        params: the drawn parameters, by dotted path.
        fields: fields of the record beside those that every trial has.
    """
    record = new_record(number, params, study.data) | fields
    write_json(trial_dir(study.path, number) / "trial.json", record)
    study.push(f"trials/{trial_name(number)}")
    return record


def reports_of(records: Iterable[EpochRecord], metric: str = ACCURACY) -> Iterator[dict[str, float]]:
    """What schedulers compare, after each of a trial's epochs.

    Each report has the last `metric` of the search, and the number of search epochs so far.
    """
    value, searched = 0.0, 0
    for record in records:
        if not stage(record.phase):
            value, searched = record.metrics[metric], searched + 1
        yield {metric: value, SEARCH_EPOCH: searched}


def stored_reports(folder: Path, metric: str) -> list[dict[str, float]]:
    """What schedulers compare, from a trial's records.jsonl."""
    return [*reports_of(each_record(folder / "records.jsonl"), metric)]


def is_recalibrated(folder: Path) -> bool:
    """Whether a trial's epochs were scored by batch normalisation that was recalibrated for their weights."""
    first = next(each_record(folder / "records.jsonl"), None)
    return first is not None and bool(first.metrics.get(RECALIBRATED))
