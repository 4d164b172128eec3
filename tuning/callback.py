"""The driver's side of every trial: notes its end in the study's folder and in MLflow, and tells the watcher."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from ddarts_core.files import write_atomic
from ddarts_core.redact import hide_secrets

from .alike import Alike
from .checkpoints import passed, superseded, when_written
from .config import ACCURACY
from .events import Kind, Listener, SweepEvent
from .locks import await_workers
from .mirror import Mirror, StoreError, run_folder
from .snapshots import ONCE, Keeper, kept
from .study import Study, find_study, read_json, trial_dir, trial_name, write_json
from .tracking import STATUS, Draw, child_runs, delete_run, end_run
from .trial_record import new_record, resolved
from .trial_run import PATIENCE_S, TrialRun


@dataclass(frozen=True)
class Session:
    """What belongs to this run of a sweep and not to the study."""

    draw: Draw | None = None
    listener: Listener | None = None


class Ends:
    """Brings MLflow runs of trials to their end, one after the other, in a thread: the other trials go on meanwhile."""

    def __init__(self, draw: Draw | None) -> None:
        self._draw = draw
        self._thread = ThreadPoolExecutor(1, "mlflow")
        self._wait_until = 0.0

    def add(self, study: Study, folder: Path) -> None:
        """A trial ended."""
        self._thread.submit(self._end, study, folder)

    def clear(self, mirror: Mirror, paths: Sequence[str]) -> None:
        """Delete what is of no use in the store any more."""
        for path in paths:
            self._thread.submit(mirror.delete_tree, path)

    def close(self) -> None:
        """Wait until all that were added are done, or left to `track_rest`."""
        self._thread.shutdown()

    def _end(self, study: Study, folder: Path) -> None:
        # After one refusal the others would be refused too, each after a wait.
        if time.monotonic() >= self._wait_until and not track_end(study, folder, self._draw):
            self._wait_until = time.monotonic() + PATIENCE_S


@dataclass(frozen=True)
class Active:
    """A study that this process runs."""

    study: Study
    session: Session
    ends: Ends


ACTIVE: dict[str, Active] = {}
"""By the study's location. Ray brings callbacks back from a pickle when a sweep is resumed; these are not picklable."""


@contextlib.contextmanager
def active(study: Study, session: Session) -> Iterator[None]:
    """While Ray runs the trials of a study: the session is told, and MLflow too; both to the last trial."""
    await_workers(study.path)
    ends = Ends(session.draw)
    ACTIVE[study.location] = Active(study, session, ends)
    try:
        yield
    finally:
        ends.close()
        del ACTIVE[study.location]


class StudyCallback(tune.Callback):
    """One per study.

    Args:
        study: the study's folder or URI.
        num_epochs: epochs of a whole trial, for progress; 0 where the trials' differ.
        num_checkpoints: of a trial that are kept until it ends; None, for a population, keeps those that a member may
            go on from, also of one that ended.
        metric: of the supernet, that progress shows.
    """

    _named: frozenset[str] = frozenset()
    """Checkpoints that members went on from, or would have, when Ray's last state was kept."""

    def __init__(self, study: str, num_epochs: int, num_checkpoints: int | None, metric: str = ACCURACY) -> None:
        self._location = study
        self._num_epochs = num_epochs
        self._num_checkpoints = num_checkpoints
        self._metric = metric
        self._keeper = Keeper()
        self._alike = Alike()

    def setup(self, *args: Any, **info: Any) -> None:
        """A run of the sweep begins: failures before it do not count."""
        self._alike = Alike()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray may have written its state."""
        if trials:
            self._keep_state(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The last state, which a further round of trials goes on from, is sent to the store."""
        if trials and self._location in ACTIVE and ACTIVE[self._location].study.mirror is not None:
            self._keep_state(trials)

    def _keep_state(self, trials: list[Any]) -> None:
        storage = trials[0].storage
        folder = run_folder(self._location) / storage.experiment_dir_name
        mirror = ACTIVE[self._location].study.mirror if self._location in ACTIVE else None
        if mirror is not None:
            for name in (name for name in ONCE if not (folder / name).exists()):
                with contextlib.suppress(FileNotFoundError):
                    write_atomic(folder / name, mirror.read(f"{folder.name}/{name}"))
        if self._keeper.keep(Path(storage.experiment_driver_staging_path), folder):
            if mirror is not None:
                mirror.push_state(kept(folder)[-1])
            if self._num_checkpoints is None:
                self._forget(folder, trials)

    def _forget(self, folder: Path, trials: list[Any]) -> None:
        """Delete a population's checkpoints that no kept state of Ray names any more.

        The only state that is kept now was written after those were noted that are named here: it names them, or later
        ones.
        """
        named = self._named
        self._named = frozenset(str(trial.checkpoint.path) for trial in trials if trial.checkpoint)
        active = ACTIVE.get(self._location)
        if active is not None and active.study.mirror is not None:
            mirror = active.study.mirror
            times = mirror.written(f"{folder.name}/*/checkpoint_*")
            older = passed(times, [name.removeprefix(f"{mirror.root}/") for name in named])
            active.ends.clear(mirror, [mirror.path(name) for name in older])
        else:
            times = {str(found): when_written(found) for found in folder.glob("*/checkpoint_*")}
            for name in passed(times, named):
                shutil.rmtree(name, ignore_errors=True)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got a process."""
        self._tell("started", trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done."""
        self._tell("epoch", trial, epochs=result["epochs"], accuracy=result[self._metric])

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """An epoch's state is written: older ones are of no use."""
        if self._num_checkpoints is None:
            return
        active = ACTIVE.get(self._location)
        if active is not None and active.study.mirror is not None:
            mirror = active.study.mirror
            newest = str(checkpoint.path).removeprefix(f"{mirror.root}/")
            written = mirror.written(f"{newest.rpartition('/')[0]}/checkpoint_*")
            active.ends.clear(
                mirror, [mirror.path(name) for name in superseded(written, newest, self._num_checkpoints)]
            )
        else:
            folders = Path(checkpoint.path).parent.glob("checkpoint_*")
            times = {str(folder): when_written(folder) for folder in folders}
            for name in superseded(times, str(checkpoint.path), self._num_checkpoints):
                shutil.rmtree(name, ignore_errors=True)  # what another process deletes is deleted

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process died and the trial will go on in another, unless nothing can: a full disk, a store that is away."""
        _stop_if_hopeless(trial)
        self._tell("restarted", trial, reason=error_of(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself or was stopped, by the scheduler or because the time is spent."""
        result = trial.last_result or {}
        if "state" in result:
            self._end(trials, trial, str(result["state"]), str(result["reason"]))
        else:
            reason = result.get("reason") or f"stopped by the scheduler after {result.get('epochs', 0)} epochs"
            self._end(trials, trial, "PRUNED", str(reason))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died too often."""
        _stop_if_hopeless(trial)
        self._end(trials, trial, "FAILED", error_of(trial))

    def _end(self, trials: list[Any], trial: Any, state: str, reason: str) -> None:
        active = ACTIVE.get(self._location)  # not with Ray Client, which runs this elsewhere: `track_rest` tracks then
        study = find_study(self._location) if active is None else active.study
        folder = trial_dir(study.path, trial.config["number"])
        result = trial.last_result or {}
        study.pull(f"trials/{folder.name}")
        file = folder / "trial.json"
        record = {**(read_json(file) if file.exists() else _unbegun(study, trial)), "state": state}
        record["reason"] = reason or None
        # A trial that was stopped did not know: Ray has its time, that before a restart included.
        record["seconds"] = record["seconds"] or round(result.get("time_total_s", 0.0), 3)
        write_json(file, record)
        study.push(f"trials/{folder.name}")
        if active is not None:
            active.ends.add(study, folder)
        if self._num_checkpoints is not None:
            _clear(study, folder.name, active)
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
        tune = read_json(study.path / "study.json")["config"]["tune"]
        most, furthest = tune.get("max_failures_alike", 3), max(running, default=0)
        sentence = self._alike.note(reason, epochs, most=most, furthest=furthest)
        if sentence and sum(t["state"] != "RUNNING" for t in study.trials()) < tune["num_samples"]:
            raise RuntimeError(sentence)

    def _tell(self, kind: Kind, trial: Any, **fields: Any) -> None:
        listener = ACTIVE[self._location].session.listener if self._location in ACTIVE else None
        if listener is not None:
            number, params = trial.config["number"], trial.config["params"]
            listener(SweepEvent(kind, trial_name(number), number, params, num_epochs=self._num_epochs, **fields))


def _clear(study: Study, trial_id: str, active: Active | None) -> None:
    """Delete the checkpoints of a trial whose end is noted: whoever goes on with it only reports the end."""
    pattern = f"{study.rounds[-1]['folder']}/{trial_id}_*/checkpoint_*"
    if active is not None and (mirror := study.mirror) is not None:
        active.ends.clear(mirror, [mirror.path(name) for name in mirror.written(pattern)])
    else:
        for found in study.path.glob(pattern):
            shutil.rmtree(found, ignore_errors=True)


def _unbegun(study: Study, trial: Any) -> dict[str, Any]:
    """The record of a trial whose process came to write none."""
    number, params = trial.config["number"], trial.config["params"]
    config, _ = resolved(study.data["base"], params)
    lineage = {"lineage": trial.config["lineage"]} if "lineage" in trial.config else {}
    return {**new_record(number, params, trial.trial_id, config), **lineage}


FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def is_full(text: str) -> bool:
    """Whether an error says that there is no space left: errors of other processes come as text."""
    return any(reason in text for reason in FULL)


def _stop_if_hopeless(trial: Any) -> None:
    text = _error_text(trial)
    if is_full(text):
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {text.splitlines()[-1]}")
    if text and (refusal := re.search(r"the store of \S+ cannot be used: .*", text.splitlines()[-1])):
        raise StoreError(refusal.group())


def _error_text(trial: Any) -> str:
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8", errors="replace").strip() if file and Path(file).exists() else ""


def error_of(trial: Any) -> str:
    """The last line of what a trial's process raised."""
    text = _error_text(trial)
    return hide_secrets(text.splitlines()[-1])[:1000] if text else "the trial's process died"


def track_end(study: Study, folder: Path, draw: Draw | None) -> bool:
    """Bring the MLflow run of a trial that ended to its end and note that it is; whether it is."""
    run = TrialRun(study, folder)
    tracked = run.finish(draw, artifacts=study.data["config"]["tracking"]["log_artifacts"])
    write_json(folder / "trial.json", {**read_json(folder / "trial.json"), "run_id": run.run_id, "tracked": tracked})
    study.push(f"trials/{folder.name}")
    return tracked


def track_rest(study: Study, draw: Draw | None) -> int:
    """Give MLflow the trials that it could not take when they ended; how many it still could not.

    A run that is still RUNNING there then belongs to a trial that is, or to nobody.
    """
    waiting = [t for t in study.trials() if t["state"] != "RUNNING" and not t.get("tracked")]
    missing = 0
    for trial in waiting:
        # After one refusal the others would be refused too, each after a wait.
        missing += 1 if missing or not track_end(study, trial_dir(study.path, trial["number"]), draw) else 0
    if not missing:
        settle(study)
    return missing


def settle(study: Study) -> None:
    """End the runs that are RUNNING in MLflow although their process is gone, and delete those that no trial knows."""
    trials = {trial["trial_id"]: trial for trial in study.trials()}
    for run_id, trial_id in child_runs(study, "RUNNING"):
        trial = trials.get(trial_id)
        if trial is None or trial["run_id"] not in (None, run_id):
            delete_run(study.data["tracking_uri"], run_id)
        else:
            end_run(study, run_id, "KILLED" if trial["state"] == "RUNNING" else STATUS[trial["state"]])
