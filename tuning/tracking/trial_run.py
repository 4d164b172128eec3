"""MLflow's run of a trial, which follows the trial's folder; whatever MLflow cannot take now is given to it later.

Everything the run holds follows from the folder (trial.json, records.jsonl, genotype.json). So `TrialRun.sync` can be
called by the trial's `Sender` after every checkpoint, by the driver when the trial ends, and by a resumed sweep. It
asks MLflow once which epochs the run has, and sends the others. A point's time follows from the records too, so that a
point which two processes send at the same moment is one row in MLflow's database. Nothing here raises because of
MLflow.

MLflow keeps every value that a point is given. So an epoch is sent only when it will not be done again. If an epoch was
done again nevertheless, and its numbers differ, the run is begun anew when the trial ends.
"""

from __future__ import annotations

import datetime
import json
import math
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.loops.confusion import FILE as CONFUSION
from ddarts_core.loops.mistakes import FILE as MISTAKES
from ddarts_core.loops.records import LATER, PHASES, EpochRecord, read_jsonl
from ddarts_core.settings.idle import idle
from ddarts_core.studies.study_files import read_json

from ..store.locks import alone
from ..store.study import Study
from .machine import Machine
from .study_run import STATUS, TEXT_LIMIT, Draw, attempt, flat_params, log_params, make_client, origin

PATIENCE_S = 30.0
"""Seconds between two attempts to reach a server that refused."""

CLOSE_S = 10.0
"""Seconds that a trial waits at its end for its records to be sent. What a slow server lacks after them is sent by the
sweep."""

_BATCH_LIMIT = 1000


def epoch_metrics(record: EpochRecord) -> dict[str, float]:
    """The numbers of an epoch by MLflow's names, NaN included. Names of a later phase begin with its word in `LATER`.

    An epoch of a search has its phase, a place in `PHASES`, and the number of its network.
    """
    prefix = LATER.get(record.phase, "")
    values = {f"{prefix}{name}": value for name, value in record.metrics.items()}
    values |= {f"contribution/cell_{cell}": value for cell, value in enumerate(record.contributions)}
    values |= {f"ablation/cell_{cell}": value for cell, value in enumerate(record.ablation)}
    values |= {f"shapley/cell_{cell}": value for cell, value in enumerate(record.shapley)}
    values |= {f"shapley_error/cell_{cell}": value for cell, value in enumerate(record.shapley_errors)}
    values |= {f"{prefix}seconds/{part}": value for part, value in record.seconds.items()}
    if record.phase in PHASES:
        values |= {"stage/phase": PHASES.index(record.phase), "stage/network": record.network}
    return {name: float(value) for name, value in values.items()}


def final_metrics(trial: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a trial that ended: of its objectives, derived network, start architecture, cost and time."""
    values: dict[str, Any] = {
        f"{group}/{name}": value
        for group in ("derived", "baseline", "transfer")
        for name, value in (trial.get(group) or {}).items()
    }
    values |= {name: value for name, value in (trial["objectives"] or {}).items() if name not in values}
    values |= trial["cost"] or {}
    values = {("final/" + name if name.startswith("held_out/") else name): value for name, value in values.items()}
    values["final/seconds"] = trial["seconds"]
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


class TrialRun:
    """The MLflow run of one trial, kept in step with the trial's folder.

    Args:
        study: the study, which names the store, the experiment and the study's own run.
        folder: the trial's folder.
        new: whether no process has worked on the trial before, so that MLflow cannot have a run of it.
    """

    def __init__(self, study: Study, folder: Path, new: bool = False) -> None:
        self._study = study
        self._folder = folder
        self._new = new
        self._client: Any = None
        self._logged: set[tuple[int, int]] | None = None
        self._has: Container[str] | None = None  # the metrics of the run, if it was opened just now
        self._begun = 0.0
        self.run_id: str | None = None

    def sync(self, records: Iterable[EpochRecord] | None = None) -> bool:
        """Send what MLflow lacks of these records (None: of all). Returns whether it has them now.

        Two processes take turns: for instance that of a trial which is stopped, and the driver that ends the trial.
        """

        def call() -> None:
            with alone(self._folder):
                self._sync(read_jsonl(self._folder / "records.jsonl") if records is None else records)

        done = attempt(call, f"records of trial {self._folder.name}")
        if not done:
            # A batch may have been stored although its answer was lost: ask again what the run has.
            self._logged = None
            self._client = None
        return done

    def finish(self, draw: Draw | None, artifacts: bool) -> bool:
        """End the run: send all records, final numbers, artifacts, status. Returns whether MLflow has all of it now."""
        return (
            attempt(self._drop_outdated, f"records of trial {self._folder.name}")
            and self.sync()
            and attempt(
                lambda: self._finish(draw if artifacts else None, artifacts), f"end of trial {self._folder.name}"
            )
        )

    def _drop_outdated(self) -> None:
        """Delete the run if it has an epoch that the records lack, or another loss of an epoch than the records.

        Then a checkpoint was lost, and the epochs after it were done again, on a device that repeats nothing bit for
        bit.
        """
        with alone(self._folder):
            run_id = self._open()
            logged = self._losses(run_id)
            records = read_jsonl(self._folder / "records.jsonl")
            losses = {record.place: record.metrics.get("train/loss", math.nan) for record in records}
            if all(math.isclose(loss, losses.get(key, math.nan), rel_tol=1e-12) for key, loss in logged.items()):
                self._logged = set(logged)
            else:
                self._client.delete_run(run_id)
                self.run_id = self._logged = None

    def _sync(self, records: Iterable[EpochRecord]) -> None:
        run_id = self._open()
        if self._logged is None:
            self._logged = set(self._losses(run_id))
        for keys, metrics in self._batches(records, self._logged):
            self._client.log_batch(run_id, metrics=metrics)
            self._logged |= keys

    def _batches(
        self, records: Iterable[EpochRecord], logged: set[tuple[int, int]]
    ) -> Iterator[tuple[set[tuple[int, int]], list[Any]]]:
        """The numbers that are not logged yet, in as few batches of whole epochs as MLflow allows."""
        from mlflow.entities import Metric

        stamp = self._begun
        keys: set[tuple[int, int]] = set()
        batch: list[Metric] = []
        for record in records:
            stamp += 1000 * sum(record.seconds.values())
            key = record.place
            if key in logged:
                continue
            metrics = [Metric(name, value, int(stamp), record.epoch) for name, value in epoch_metrics(record).items()]
            if len(batch) + len(metrics) > _BATCH_LIMIT:
                yield keys, batch
                keys, batch = set(), []
            keys.add(key)
            batch += metrics
        if keys:
            yield keys, batch

    def _open(self) -> str:
        """Find the run that an earlier process left, or make one."""
        if self._client is None:
            self._client = make_client(self._study.data["tracking_uri"])
        if self.run_id is not None:
            return self.run_id
        trial = read_json(self._folder / "trial.json")
        begun = datetime.datetime.fromisoformat(trial["begun"])
        self._begun = 1000 * begun.timestamp()
        experiment, parent = self._study.data["experiment_id"], self._study.data["parent_run_id"]
        query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.trial_id = '{trial['trial_id']}'"
        found = [] if self._new else self._client.search_runs([experiment], query, max_results=1)
        self._new = False  # an answer may be lost
        self._has = found[0].data.metrics if found else ()
        unused = idle(trial["config"])
        params = {path: text for path, text in flat_params(trial["config"]).items() if path not in unused}
        if found:
            run_id = str(found[0].info.run_id)
            if found[0].data.tags.get("ray_trial_id") != trial["ray_trial_id"]:
                self._client.set_tag(run_id, "ray_trial_id", trial["ray_trial_id"])
            if trial["state"] == "RUNNING" and found[0].info.status != "RUNNING":
                self._client.update_run(run_id, "RUNNING")
                for tag in {"state", "reason"} & set(found[0].data.tags):  # of a failure, if it is run again
                    self._client.delete_tag(run_id, tag)
            # The process that made it may have been killed on the way.
            params = {name: value for name, value in params.items() if name not in found[0].data.params}
        else:
            run = self._client.create_run(
                experiment, run_name=f"trial-{trial['trial_id']}", tags=self._tags(trial, str(parent))
            )
            run_id = str(run.info.run_id)
        log_params(self._client, run_id, params)
        self.run_id = run_id
        return run_id

    def _tags(self, trial: Mapping[str, Any], parent: str) -> dict[str, str]:
        versions = {f"version.{name}": version for name, version in self._study.data["versions"].items()}
        flat, unused = flat_params(trial["config"]), idle(trial["config"])
        return {
            "mlflow.parentRunId": parent,
            "trial_id": trial["trial_id"],
            "ray_trial_id": trial["ray_trial_id"],
            "study": self._study.name,
            "seed": str(trial["seed"]),
            # What the trial did not use is no parameter of its run, and is part of its configuration all the same.
            "unused": json.dumps({path: text for path, text in flat.items() if path in unused}),
            "method": trial["config"]["method"],
            "config_hash": trial["config_hash"],
            "params": json.dumps(trial["params"]),
            "git_commit": str(self._study.data["git_commit"]),
            **origin(self._study.data),
            **versions,
        }

    def _losses(self, run_id: str) -> dict[tuple[int, int], float]:
        """The loss of each epoch that the run has, by stage and epoch."""
        losses: dict[tuple[int, int], float] = {}
        has, self._has = self._has, None
        for number, name in enumerate(f"{prefix}train/loss" for prefix in ("", *LATER.values())):
            if has is None or name in has:
                history = self._client.get_metric_history(run_id, name)
                losses |= {(number, metric.step): float(metric.value) for metric in history}
        return losses

    def _finish(self, draw: Draw | None, artifacts: bool) -> None:
        from mlflow.entities import Metric, RunTag

        run_id = self._open()
        trial = read_json(self._folder / "trial.json")
        have = set(self._client.get_run(run_id).data.metrics)
        stamp = int(time.time() * 1000)
        metrics = [Metric(name, value, stamp, 0) for name, value in final_metrics(trial).items() if name not in have]
        tags = {"state": trial["state"], "reason": trial["reason"], "genotype_hash": trial["genotype_hash"]}
        tags["beyond"] = ",".join(trial.get("beyond") or ())
        tags["lineage"] = json.dumps(trial["lineage"])[:TEXT_LIMIT] if trial.get("lineage") else None
        self._client.log_batch(
            run_id, metrics=metrics, tags=[RunTag(name, str(value)) for name, value in tags.items() if value]
        )
        if artifacts:
            self._log_artifacts(run_id, draw)
        self._client.set_terminated(run_id, STATUS[trial["state"]])

    def _log_artifacts(self, run_id: str, draw: Draw | None) -> None:
        """Log files as artifacts: records, genotype, drawing, confusion matrix, mistakes.

        The records have alphas, which MLflow's metrics cannot hold.
        """
        genotype, picture = self._folder / "genotype.json", self._folder / "genotype.png"
        scored = [self._folder / name for name in (CONFUSION, MISTAKES)]
        if draw is not None and genotype.exists():
            draw(AnyGenotype.load(genotype), picture)
        for file in (self._folder / "records.jsonl", genotype, picture, *scored):
            if file.exists():
                self._client.log_artifact(run_id, str(file))


class Sender:
    """Sends a trial's records from a thread of its own, so that no epoch waits for MLflow.

    Only one item waits to be sent, the trial's records so far: a newer item replaces an older one, and `TrialRun.sync`
    sends whatever the run lacks. So during an outage no memory is needed beside that of the records. What a process did
    not send before it was killed is sent by the process that goes on with the trial.

    Args:
        run: the run of the trial, which nobody else uses until `close`.
        machine: the trial's machine, which is measured meanwhile; None measures nothing.
    """

    def __init__(self, run: TrialRun, machine: Machine | None = None) -> None:
        self._run = run
        self._machine = machine
        self._change = threading.Condition()
        self._waiting: tuple[EpochRecord, ...] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The run's identifier, once MLflow has it."""
        return self._run.run_id

    def send(self, records: Iterable[EpochRecord]) -> None:
        """Send these records soon."""
        with self._change:
            self._waiting = tuple(records)
            self._change.notify()

    def close(self) -> None:
        """Send what waits, in one attempt, and end; after `CLOSE_S` seconds the trial's place is free in any case."""
        with self._change:
            closed, self._closing = self._closing, True
            self._change.notify()
        if not closed:
            self._thread.join(CLOSE_S)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closing or self._waiting is not None)
                records, self._waiting, closing = self._waiting, None, self._closing
            sent = records is None or self._run.sync(records)
            if self._machine is not None:
                self._machine.end() if closing else self._machine.watch(self.run_id)
            if closing:
                return
            if not sent:
                with self._change:
                    self._waiting = self._waiting or records
                    self._change.wait_for(lambda: self._closing, timeout=PATIENCE_S)
