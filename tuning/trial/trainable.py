"""One trial under Ray Tune. One step is one epoch, first of the search, then of the derived network's retraining.

With `tune.objective` transfer, the epochs of the network's fine-tuning on another task follow.

What a trial reports, and to whom:

- At every step: `held_out/accuracy`, the supernet's accuracy (with `tune.metric` balanced_accuracy it is
  `held_out/balanced_accuracy`), and `search_epoch`, the number of search epochs done. The scheduler compares trials by
  these two only. During a retraining they do not change, so no trial is stopped because a retraining is compared with a
  search.
- At the last step only: `state` and `objective/METRIC`. A trial that never reports them was stopped early and is
  PRUNED: its supernet's accuracy is never taken for the accuracy of a derived network.

Some trials would fail again if they were restarted: the loss is no longer finite, the gates make no network, the
settings contradict each other, or the trial does not fit into memory. Such a trial does not crash. It ends with a
result that has the `state` FAILED and a reason. If a trial's process dies, Ray restarts it, and it goes on from its
newest intact checkpoint.

trial.json in a trial's folder says what the trial is, and the checkpoints beside it say what it has done. Ray is told
only the trial's number and its study.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ray import tune

from ddarts_core.data.images import DataInfo, Images
from ddarts_core.data.readers import end_readers
from ddarts_core.data.sets import data_facts, data_info, for_cores, load_train, settings_of
from ddarts_core.data.splits import split
from ddarts_core.datasets import facts
from ddarts_core.estimates.memory import CONTEXT_BYTES
from ddarts_core.estimates.room import check_search, check_training
from ddarts_core.exports.export import Blueprint
from ddarts_core.exports.latency import measure
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.ground.redact import hide_secrets, one_line
from ddarts_core.loops import checkpoint
from ddarts_core.loops.confusion import FILE as CONFUSION
from ddarts_core.loops.confusion import Confusion, write_confusion
from ddarts_core.loops.mistakes import FILE as MISTAKES
from ddarts_core.loops.mistakes import write_mistakes
from ddarts_core.loops.records import EpochRecord, read_jsonl, write_jsonl
from ddarts_core.networks.building import build_network
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.search.one_shot import probed
from ddarts_core.search.search import Search
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import ExperimentConfig, numbered, resolve
from ddarts_core.settings.found import data_of, facts_of
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.limits import beyond
from ddarts_core.studies.study_files import ENDED, TRANSFER_OBJECTIVE, read_json, write_json
from ddarts_core.tensors.devices import pick_device
from ddarts_core.training.retrain import Retrain

from ..cluster.versions import check_version
from ..settings.budget import Clock, seconds_of, tune_of
from ..settings.tune import SEARCH_EPOCH, supernet_metric
from ..store import checkpoints, plugins
from ..store import study as studies
from ..store.locks import join_workers
from ..store.mirror import StoreError
from ..tracking.machine import Machine
from ..tracking.secret import receive
from ..tracking.trial_run import Sender, TrialRun
from .baseline import cost_of_start, of_start
from .fine_tuning import fine_tuning
from .trial_record import reports_of

if TYPE_CHECKING:
    from ddarts_core.transfer.training import Transfer

FAILURES = (UserError, Diverged, ArithmeticError, MemoryError, torch.OutOfMemoryError)
"""Errors that would happen again if the trial were restarted."""


class SearchTrial(tune.Trainable):
    """A trial. Its Ray configuration has `study` (the study's folder or URI) and `number` (that of the trial)."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start a trial, or go on with one; the first step builds the heavy parts."""
        self._number: int = config["number"]
        self._study = studies.trial_study(config["study"], self._number, Path(self.logdir))
        self._version = check_version(self._study.data)
        self._sweep: dict[str, Any] = self._study.data["config"]
        self._metric = supernet_metric(self._sweep["tune"])
        receive(self._study)
        plugins.receive(self._study)
        self._folder = studies.trial_dir(self._study.path, self._number)
        self._search: Search | None = None
        self._retrain: Retrain | None = None
        self._transfer: Transfer | None = None
        self._epochs: Iterator[EpochRecord] = iter(())
        self._loaded: dict[str, Any] = {}
        self._records: list[EpochRecord] = []
        self._genotype: AnyGenotype | None = None
        self._seconds = 0.0
        self._unreported = False
        self._record = read_json(self._folder / "trial.json")
        self._impossible: str | None = self._record["reason"]
        self._params: dict[str, Any] = dict(self._record["params"])
        self._config: ExperimentConfig = resolve(self._record["config"])
        self._tune = tune_of(self._study.data)
        # A trial of an earlier round has the seconds of that round.
        self._clock = Clock(self._config, self._record.get("budget_seconds", seconds_of(self._tune)))
        self._course = Course(self._config)
        self._limit_resources()
        self._presence = join_workers(self._study.path)
        # A process writes its own, and the sweep the end of a trial, before it tells MLflow of the trial.
        new = not self._record["ray_trial_id"] and "ended" not in self._record
        self._go_on()
        wanted = self._sweep["tracking"].get("system_metrics", False)  # earlier studies have no such
        machine = Machine(self._study.data["tracking_uri"], wanted)
        self._sender = Sender(TrialRun(self._study, self._folder, new), machine)
        self._sender.send(self._records)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve another trial in the same process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Leave the trial to the process that goes on with it."""
        self._search = self._retrain = self._transfer = None
        self._epochs = iter(())
        end_readers()
        self._sender.close()
        self._presence.close()

    def _limit_resources(self) -> None:
        resources = self._sweep["tune"]["resources"]
        self._cores = float(resources["cpu"])
        torch.set_num_threads(resources.get("threads") or max(1, int(self._cores)))
        if 0 < resources["gpu"] < 1 and torch.cuda.is_available():
            try:
                self._impossible = _cap_memory(resources["gpu"])
            except RuntimeError as error:  # CUDA's: raised here it would end the process, and the trial without a word
                self._impossible = " ".join(str(error).split())

    def _write(self, **fields: Any) -> None:
        self._record |= {"seconds": round(self._seconds, 3), **fields}
        write_json(self._folder / "trial.json", self._record)

    def _write_records(self) -> None:
        write_jsonl(self._folder / "records.jsonl", self._records, timing=True)

    def _push(self) -> None:
        self._study.push(f"trials/{studies.trial_name(self._number)}")

    # --- epochs -----------------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """Run one epoch."""
        if self._record["state"] in ENDED:
            return self._report(done=True)
        if self._unreported:
            self._unreported = False
            return self._report(done=False)
        self._sender.send(self._records)  # their last checkpoint is written: none of these epochs will be done again
        began = time.monotonic()
        try:
            if self._impossible is not None:
                raise UserError(self._impossible)
            done = self._run_epoch()
        except StoreError:
            raise  # an outage: the trial goes on in another process
        except FAILURES as error:
            self._seconds += time.monotonic() - began
            reason = one_line(hide_secrets(str(error))) or type(error).__name__
            self._end(state="FAILED", reason=reason[:1000])
            return self._report(done=True)
        self._seconds += time.monotonic() - began
        if done:
            self._end(state="COMPLETED")
        else:
            self._save()  # before the records say that the epoch is done: a resumed sweep believes them
            self._write_records()
            self._push()
        return self._report(done)

    def _end(self, **fields: Any) -> None:
        self._write_records()
        self._write(**fields)
        if fields["state"] == "COMPLETED":  # one that failed may be run again, from here
            self._clear()
        self._push()

    def _clear(self) -> None:
        """Delete the checkpoints of a trial that is complete: nobody goes on from them."""
        checkpoints.clear(self._folder)

    def _report(self, done: bool) -> dict[str, Any]:
        """What Ray is told of the trial.

        The last time Ray is told after MLflow, so that the driver does not write to MLflow at the same time.
        """
        if done:
            self._sender.send(self._records)
            self._sender.close()
        reports = [{self._metric: 0.0, SEARCH_EPOCH: 0}, *reports_of(self._records, self._metric)]
        result: dict[str, Any] = {**reports[-1], "epochs": len(self._records), "seconds": round(self._seconds, 3)}
        result["phase"] = self._records[-1].phase if done and self._records else self._phase()
        if not done:
            return result
        if self._record["state"] == "PRUNED":
            return result | {"done": True, "reason": self._record["reason"]}
        objectives = self._record["objectives"] if self._record["state"] == "COMPLETED" else None
        result |= {f"objective/{metric}": value for metric, value in (objectives or {}).items()}
        return result | {"done": True, "state": self._record["state"], "reason": self._record["reason"] or ""}

    def _phase(self) -> str:
        """The phase of the next epoch."""
        if self._transfer is not None:
            return "transfer"
        return "retrain" if self._genotype is not None else self._course.at(len(self._records)).stage.phase

    def _run_epoch(self) -> bool:
        """Run one epoch, record and track it. Returns whether it was the trial's last epoch."""
        self._build()
        record = next(self._epochs)
        bad = sorted(name for name, value in record.metrics.items() if not math.isfinite(value))
        if bad:
            raise Diverged(f"{bad[0]} became {record.metrics[bad[0]]} in epoch {record.epoch} of the {record.phase}")
        self._keep(record)
        if self._transfer is not None:
            return self._end_transfer(self._transfer)
        if self._retrain is not None:
            return self._end_retrain()
        assert self._search is not None
        over = self._search.over or self._clock.is_spent(self._records)
        return over and self._end_search(self._search)

    def _keep(self, record: EpochRecord) -> None:
        self._records.append(record)
        if self._record["run_id"] != self._sender.run_id:
            self._write(run_id=self._sender.run_id)

    def _build(self) -> None:
        """Build the loop that the next epoch belongs to, in the state of the checkpoint if there is one."""
        config = for_cores(self._config, self._cores)
        if self._genotype is None and config.search.number is not None:
            self._take(numbered(config))
        if self._genotype is None and self._search is None:
            info, images = load_train(config.data)
            self._know(info, images)
            check_search(config, info, pick_device(config.search.device))
            self._search = Search(config, info, split(images, config.data, config.seed))
            self._epochs = self._search.records()
            if self._loaded.get("search") is not None:
                # It is this trial's own. A later version may hash settings that there were none of when it was made.
                own = {"config_hash": config_hash(self._config)}
                self._search.load_state_dict(self._loaded.pop("search") | own)
        if self._genotype is not None and self._loaded.get("transfer") is not None:
            info = facts_of(self._info(), config, self._genotype)
            network = build_network(config.retrain, self._genotype, info)
            self._transfer = fine_tuning(self._sweep["transfer"], config, self._genotype, network, info)
            self._transfer.load_state_dict(self._loaded.pop("transfer"))
            self._epochs = self._transfer.records()
        if self._genotype is not None and self._retrain is None and self._transfer is None:
            self._search = None
            end_readers()
            info, images = load_train(data_of(config, self._genotype))
            if data_of(config, self._genotype) == config.data:
                self._know(info, images)
            splits = split(images, config.data, config.seed)
            train = splits.weights.joined(splits.alphas)
            check_training(config, self._genotype, info, pick_device(config.retrain.device))
            self._retrain = Retrain(config.retrain, self._genotype, info, train, None, config.seed)
            self._images, self._held_out = train, splits.held_out
            if config.search.number is not None and "scores" not in self._record:
                self._write(scores=self._retrain.training_free_scores())
            if self._loaded.get("retrain") is not None:
                own = {"identity": self._retrain.state_dict()["identity"]}
                self._retrain.load_state_dict(self._loaded.pop("retrain") | own)
            self._epochs = self._retrain.records()

    def _know(self, info: DataInfo, images: Images) -> None:
        """Keep the facts of the images, unless they must be those of the study.

        Raises:
            UserError: the images have changed since the study, or this trial, was begun.
        """
        today, of_study = data_facts(self._config.data, info, images), facts.read_facts(self._study.path) or {}
        own = settings_of(self._config.data)
        # Of a study of an earlier version the settings are not known; its trials that wrote no facts had those of it.
        same = of_study["settings"] == own if "settings" in of_study else bool(of_study and self._records)
        if facts.read_facts(self._folder) is not None:
            facts.check_unchanged(self._folder, today, f"trial {self._record['trial_id']}")
        elif same and "data.root" not in self._params:
            facts.check_unchanged(self._study.path, today, f"study {self._study.name!r}")
        else:
            facts.write_facts(self._folder, today)

    def _end_search(self, search: Search) -> bool:
        self._take(search.discretise().genotype)
        self._write(searched_epochs=len(self._records))
        if (one_shot := probed(search)) is not None:
            self._write(one_shot=one_shot)
        if self._sweep["tune"]["objective"] != "supernet":
            return False
        baseline = cost_of_start(self._config, search.info) or None
        self._beside_last(baseline)
        self._write(
            baseline=baseline,
            objectives=self._objectives(self._metric, self._records[-1].metrics[self._metric]),
        )
        return True

    def _take(self, genotype: AnyGenotype) -> None:
        """Set the genotype that is trained from now on."""
        write_atomic(self._folder / "genotype.json", genotype.to_json())
        self._genotype = genotype
        self._write(**self._known(genotype))

    def _end_retrain(self) -> bool:
        assert self._retrain is not None
        if self._records[-1].epoch + 1 < self._config.retrain.epochs:
            return False
        found = self._retrain.evaluate(self._held_out, mistakes=True)
        derived = {f"held_out/{name}": value for name, value in found.metrics.items()}
        matrix = Confusion("genotype", self._config.seed, "held_out", found.matrix)
        write_confusion(self._folder / CONFUSION, self._retrain.info.classes, [matrix])
        write_mistakes(self._folder / MISTAKES, self._retrain.info.classes, found.mistakes)
        assert self._genotype is not None
        weights = self._retrain.weights()
        kept = {"weights": weights, "genotype": self._genotype.to_json()}
        checkpoint.save(self._folder / studies.WEIGHTS, kept)
        config = for_cores(self._config, self._cores)
        baseline = of_start(self._study, config, self._retrain.info, self._images, self._held_out) or None
        self._beside_last(baseline)
        if self._sweep["tune"]["objective"] == "derived":
            objectives = self._objectives(f"derived/{self._metric}", derived[self._metric])
            self._write(derived=derived, baseline=baseline, objectives=objectives)
            return True
        self._write(derived=derived, baseline=baseline)
        network = build_network(config.retrain, self._genotype, self._retrain.info)
        network.load_state_dict(weights)
        self._transfer = fine_tuning(self._sweep["transfer"], config, self._genotype, network, self._retrain.info)
        self._retrain = None
        self._epochs = self._transfer.records()
        return False

    def _end_transfer(self, run: Transfer) -> bool:
        if not run.over:
            return False
        scores = {name: v for name, v in self._records[-1].metrics.items() if name.startswith("held_out/")}
        if "held_out/box_ap" not in scores:
            raise UserError("the images that score on the other task have no object: raise transfer.score_fraction")
        self._write(transfer=scores, objectives=self._objectives(TRANSFER_OBJECTIVE, scores["held_out/box_ap"]))
        return True

    def _beside_last(self, baseline: dict[str, float] | None) -> None:
        """Add to the record of the last epoch what the start architecture reaches and costs."""
        beside = {f"baseline/{name}": value for name, value in (baseline or {}).items()}
        last = self._records[-1]
        self._records[-1] = replace(last, metrics={**last.metrics, **beside})

    def _objectives(self, metric: str, value: float) -> dict[str, float]:
        if not math.isfinite(value):
            raise Diverged(f"{metric} became {value}")
        second = self._sweep["tune"]["second_objective"]
        return {metric: value} | ({} if second is None else {second: self._record["cost"][second]})

    def _known(self, genotype: AnyGenotype) -> dict[str, Any]:
        """What a genotype costs, and which limits it exceeds. A latency is measured only once."""
        known = self._record["cost"]
        cost = known if known and self._record["genotype_hash"] == genotype.hash else self._cost(genotype)
        return {"genotype_hash": genotype.hash, "cost": cost, "beyond": beyond(cost, self._tune.limits.model_dump())}

    def _latency(self, genotype: AnyGenotype, info: DataInfo) -> dict[str, float]:
        """Median and spread of the time of a forward pass in ms, if the sweep measures it."""
        wanted = self._tune.latency
        if wanted is None:
            return {}
        found = measure(Blueprint.of(genotype, self._config, info), **wanted.model_dump())
        return {"latency_ms": found.median, "latency_spread_ms": found.spread}

    def _cost(self, genotype: AnyGenotype) -> dict[str, float]:
        """Parameters without the auxiliary head, and multiply-adds of convolutions and linear layers per image.

        With a budget of multiply-adds, the multiply-adds of the search are given too. The latency is given if the sweep
        measures it.
        """
        info = self._info()
        counted = retrain_cost(genotype, self._config, info)
        searched = {name: self._record[name] for name in ("search_macs",) if name in self._record}
        return {
            "parameters": counted.parameters,
            "macs": counted.macs["A"],
            **searched,
            **self._latency(genotype, info),
        }

    def _info(self) -> DataInfo:
        """Facts of the trial's images."""
        return facts.read_info(self._folder) or facts.read_info(self._study.path) or data_info(self._config.data)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write everything that the next epoch depends on."""
        (self._study.path / "study.json").stat()  # of a study that was deleted nothing is made anew
        searching = self._search is not None and self._genotype is None
        checkpoint.save(
            checkpoints.file_of(self._folder, len(self._records)),
            {
                "records": f"[{', '.join(record.line for record in self._records)}]",
                "epochs": len(self._records),
                "seconds": self._seconds,
                "genotype": None if self._genotype is None else self._genotype.to_json(),
                "search": self._search.state_dict() if searching and self._search is not None else None,
                "retrain": None if self._retrain is None else self._retrain.state_dict(),
                "transfer": None if self._transfer is None else self._transfer.state_dict(),
            },
            packed=True,
        )
        checkpoints.forget(self._folder, self._lasting())

    def _lasting(self) -> int | None:
        """The epochs of a checkpoint that another trial may go on from; None if there is none."""
        return None

    def _go_on(self) -> None:
        """Go on from the trial's furthest intact checkpoint, if there is one. A trial that ended only reports."""
        if self._record["state"] in ENDED:
            self._records = read_jsonl(self._folder / "records.jsonl")
            self._seconds = self._record["seconds"]
            return
        state = self._state()
        if state is not None:
            self._loaded = state
            self._seconds = state["seconds"]
            self._genotype = None if state["genotype"] is None else AnyGenotype.from_text(state["genotype"])
        # The process before may have been killed between an epoch's checkpoint and its record: nobody was told of it.
        self._unreported = len(self._records) > len(read_jsonl(self._folder / "records.jsonl"))
        self._write_records()
        # The study says that it runs, also of a trial whose process has not come to its first epoch.
        known = {} if self._genotype is None else self._known(self._genotype)
        self._write(ray_trial_id=self.trial_id, code=self._version, **known)
        self._push()

    def _state(self) -> dict[str, Any] | None:
        """The state to go on from, if there is one. Sets the records that belong to this state."""
        state = next(checkpoints.intact(self._folder), None)
        if state is not None:
            self._records = [EpochRecord.from_dict(data) for data in json.loads(state["records"])]
        return state


def _cap_memory(share: float) -> str | None:
    """Limit this process to its share of the GPU's memory. Returns the reason if the share is too small."""
    # torch counts its own tensors only: CUDA's context must come out of the share too.
    context = CONTEXT_BYTES / torch.cuda.get_device_properties(0).total_memory
    if share <= context:
        return (
            f"tune.resources.gpu {share:g} is less memory than CUDA's own context takes of this GPU: give at least "
            f"{math.ceil(100 * context + 1) / 100:g}"
        )
    torch.cuda.set_per_process_memory_fraction(share - context)
    return None
