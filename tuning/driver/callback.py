"""The driver's side of every trial: it notes the end in the study's folder and in MLflow, and tells the watcher."""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from ddarts_core.ground import plugins
from ddarts_core.ground.redact import hide_secrets, one_line
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import resolve
from ddarts_core.studies.study_files import read_json

from ..cluster import versions
from ..cluster.versions import OtherVersion
from ..schedulers.time_budget import TimeBudget
from ..searchers.journal import Journal
from ..settings.tune import SEARCH_EPOCH
from ..store.mirror import StoreError
from ..store.progress import num_epochs
from ..store.study import WEIGHTS, Held, Study, keep_best_weights, num_begun, trial_dir, trial_name, utc_now
from ..tracking.overview import EVERY_S, tell
from ..tracking.study_run import STATUS, Draw, child_runs, delete_run, end_run
from ..tracking.trial_run import PATIENCE_S, TrialRun
from ..trial.trial_record import stored_reports
from .alike import Alike
from .events import Kind, Listener, SweepEvent
from .stops import check_there, is_full


@dataclass(frozen=True)
class Session:
    """What belongs to this run of a sweep and not to the study. A copy in another process is empty: nobody watches."""

    draw: Draw | None = None
    listener: Listener | None = None

    def tell_stop(self) -> None:
        """Tell the listener that the sweep was asked to stop."""
        if self.listener is not None:
            self.listener(SweepEvent("stopping", "", -1, {}))

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, ()


class Ends:
    """Ends the MLflow runs of trials, one after the other, in a thread of its own: other trials go on meanwhile."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread: ThreadPoolExecutor | None = None  # Ray pickles the callback before a trial ends
        self._wait_until = self._tell_at = 0.0

    def add(self, study: Study, number: int) -> None:
        """Let the thread end the MLflow run of a trial that ended."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "mlflow")
        self._thread.submit(self._end, study, number)

    def close(self) -> None:
        """Wait until the runs of all trials that were added are ended, or left to `track_rest`."""
        if self._thread is not None:
            self._thread.shutdown()

    def _end(self, study: Study, number: int) -> None:
        # After one refusal the others would be refused too, each after a wait.
        if time.monotonic() < self._wait_until:
            return
        if not track_end(study, number, self._session.draw):
            self._wait_until = time.monotonic() + PATIENCE_S
        elif time.monotonic() >= self._tell_at:
            tell(study)
            self._tell_at = time.monotonic() + EVERY_S


class StudyCallback(tune.Callback):
    """Ray's callback; each run of a sweep has one.

    Args:
        held: the study, which this process holds.
        session: draws genotypes, and is told of every trial's progress.
        budget: the budget of time, which is told which trials run.
        metric: the supernet's metric that progress shows.
        alone: whether a trial's checkpoints are of no use to other trials.
    """

    def __init__(self, held: Held, session: Session, budget: TimeBudget, metric: str, alone: bool) -> None:
        self._held = held
        self._session = session
        self._budget = budget
        self._metric = metric
        self._alone = alone
        self._ends = Ends(session)
        self._started: set[int] = set()
        self._journal: Journal | None = None
        self._alike = Alike()
        #: Why the sweep was stopped, if trials failed alike.
        self.hopeless: str | None = None

    def close(self) -> None:
        """Wait until MLflow has taken what it takes of the trials that ended."""
        self._ends.close()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got a process."""
        self._budget.note(trial.trial_id, running=True)
        if trial.config["number"] not in self._started:
            self._started.add(trial.config["number"])
            self._tell("started", trial, **self._done_before(trial.config["number"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has done an epoch."""
        check_there(self._held.study)
        done, searched = result["epochs"], int(result[SEARCH_EPOCH])
        accuracy, phase = result[self._metric], result["phase"]
        self._tell("epoch", trial, epochs=done, searched=searched, accuracy=accuracy, phase=phase)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died or raised an error; the trial goes on in another one.

        If no trial can go on, because the disk is full or the store does not answer, the sweep stops.
        """
        self._budget.note(trial.trial_id, running=False)
        check_there(self._held.study)
        _stop_if_hopeless(trial)
        self._tell("restarted", trial, **self._done_before(trial.config["number"]), reason=error_of(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself or was stopped, by the scheduler or because the time is spent."""
        self._budget.note(trial.trial_id, running=False)
        result = trial.last_result or {}
        if result.get("waits"):
            return  # a leg of a member of a population
        if "state" in result:
            self._end(trials, trial, str(result["state"]), str(result["reason"]))
        elif self._budget.stopped(trial.trial_id):
            self._end(trials, trial, "PRUNED", self._budget.reason)
        else:
            self._end(trials, trial, "PRUNED", f"stopped by the scheduler after {result.get('epochs', 0)} epochs")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died or raised an error too often: the trial failed."""
        self._budget.note(trial.trial_id, running=False)
        _stop_if_hopeless(trial)
        self._end(trials, trial, "FAILED", error_of(trial))

    def _end(self, trials: list[Any], trial: Any, state: str, reason: str) -> None:
        study = self._held.study
        result = trial.last_result or {}
        record = note_end(study, trial.config["number"], state, reason, result.get("seconds"), self._alone)
        if self._journal is None:
            self._journal = Journal(study)
        self._journal.add(record)
        self._ends.add(study, record["number"])
        self._tell(
            "finished",
            trial,
            state=state,
            reason=reason,
            epochs=result.get("epochs", 0),
            accuracy=result.get(self._metric),
            objectives=record["objectives"] or {},
        )
        if state == "FAILED":
            self._stop_if_alike(study, reason, result.get("epochs", 0), trials)
        else:
            self._alike.clear()

    def _stop_if_alike(self, study: Study, reason: str, epochs: int, trials: list[Any]) -> None:
        """Stop the sweep if too many trials failed for one reason, and any is left to be saved."""
        running = [(t.last_result or {}).get("epochs", 0) for t in trials if t.status == Trial.RUNNING]
        tune = study.data["config"]["tune"]
        most, furthest = tune.get("max_failures_alike", 3), max(running, default=0)
        sentence = self._alike.note(reason, epochs, most=most, furthest=furthest)
        begun = study.trials()
        if sentence and num_begun(begun) - sum(t["state"] == "RUNNING" for t in begun) < tune["num_samples"]:
            # An error would be taken for one of the trial; this leaves the others at their last epoch.
            self.hopeless = sentence
            signal.raise_signal(signal.SIGINT)

    def _done_before(self, number: int) -> dict[str, Any]:
        """What an event says of a trial whose process begins: its recorded epochs, and the phase of the next epoch."""
        folder = trial_dir(self._held.study.path, number)
        reports = stored_reports(folder, self._metric)
        course = Course(resolve(read_json(folder / "trial.json")["config"]))
        searching = len(reports) < course.num_epochs
        return {
            "epochs": len(reports),
            "searched": int(reports[-1][SEARCH_EPOCH]) if reports else 0,
            "accuracy": reports[-1][self._metric] if reports else None,
            "phase": course.at(len(reports)).stage.phase if searching else "retrain",
        }

    def _tell(self, kind: Kind, trial: Any, **fields: Any) -> None:
        if self._session.listener is not None:
            study, number = self._held.study, trial.config["number"]
            record = read_json(trial_dir(study.path, number) / "trial.json")
            length = num_epochs(record["config"], study.data["config"])
            self._session.listener(
                SweepEvent(kind, trial_name(number), number, record["params"], num_epochs=length, **fields)
            )


def note_end(
    study: Study, number: int, state: str, reason: str, seconds: float | None = None, alone: bool = True
) -> dict[str, Any]:
    """Write a trial's end into its file, and return its record.

    Args:
        study: the study, which this process holds.
        number: the number of the trial, which has no process any more.
        state: the state that the trial ends in.
        reason: the reason of this state; empty if there is none.
        seconds: how long the trial took, if its process did not write it.
        alone: whether the trial's checkpoints are of no use to other trials.
    """
    study.pull(f"trials/{trial_name(number)}")
    took = {"seconds": seconds} if seconds else {}
    record = study.change_trial(number, state=state, reason=reason or None, ended=utc_now(), **took)
    if alone and state != "FAILED":
        study.clear_checkpoints(number)
    if (
        state == "COMPLETED" and (trial_dir(study.path, number) / WEIGHTS).exists()
    ):  # looked for in the folders of all trials only then
        keep_best_weights(study)
    return record


def _stop_if_hopeless(trial: Any) -> None:
    text = _error_text(trial)
    if is_full(text):
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {text.splitlines()[-1]}")
    for kind, said in ((StoreError, r"the store of \S+ cannot be used: .*"), (OtherVersion, versions.SAID)):
        if text and (refusal := re.search(said, text.splitlines()[-1])):
            raise kind(refusal.group())


def _error_text(trial: Any) -> str:
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8", errors="replace").strip() if file and Path(file).exists() else ""


def error_of(trial: Any) -> str:
    """Why a trial's process failed last: what it raised and where in a plug-in, on one line, or that it died."""
    lines = re.split(r"^Failure # .*$", _error_text(trial), flags=re.MULTILINE)[-1].strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return hide_secrets(": ".join(["the trial's process died", *lines[-1:]]))[:1000]
    below = lines[frames[-1] + 1 :]  # the frame's line of code, which is indented, and then what was raised
    raised = one_line(hide_secrets(" ".join(itertools.dropwhile(lambda line: line[:1].isspace(), below))))
    places = re.findall(rf'{plugins.FOLDERS}[^/"]+/(.+)", line (\d+)', "\n".join(lines))
    return f"{raised[:900]}{f' ({places[-1][0]}, line {places[-1][1]})' if places else ''}"[:1000]


def track_end(study: Study, number: int, draw: Draw | None) -> bool:
    """End the MLflow run of a trial that ended, and note it in the trial's file. Returns whether MLflow has it all."""
    run = TrialRun(study, trial_dir(study.path, number))
    tracked = run.finish(draw, artifacts=study.data["config"]["tracking"]["log_artifacts"])
    study.change_trial(number, run_id=run.run_id, tracked=tracked)
    return tracked


def track_rest(study: Study, draw: Draw | None) -> int:
    """Give MLflow the trials that it could not take when they ended. Returns how many it still could not take.

    If it took all, a run that is still RUNNING there belongs to a trial that is RUNNING too, or to no trial.
    """
    waiting = [t for t in study.trials() if t["state"] != "RUNNING" and not t.get("tracked")]
    missing = 0
    for trial in waiting:
        # After one refusal the others would be refused too, each after a wait.
        missing += 1 if missing or not track_end(study, trial["number"], draw) else 0
    if not missing:
        settle(study)
    return missing


def settle(study: Study) -> None:
    """End the runs that are RUNNING in MLflow although their process is gone; delete runs that belong to no trial."""
    trials = {trial["trial_id"]: trial for trial in study.trials()}
    for run_id, trial_id in child_runs(study, "RUNNING"):
        trial = trials.get(trial_id)
        if trial is None or trial["run_id"] not in (None, run_id):
            delete_run(study.data["tracking_uri"], run_id)
        else:
            end_run(study, run_id, "KILLED" if trial["state"] == "RUNNING" else STATUS[trial["state"]])
