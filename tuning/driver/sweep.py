"""Run a sweep, or go on with one: Ray Tune with Optuna's proposals, a scheduler, and the study's folder.

Only what is in a study's folder counts. Each run of a sweep begins with a Ray that knows nothing of the study. Ray is
told which trials ended, the other trials go on from the checkpoints in their folders, and then new trials are
proposed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddarts_core.data.sets import data_facts, load_train, settings_of
from ddarts_core.data.splits import check_batch, split
from ddarts_core.datasets.facts import DataInfo
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import resolve
from ddarts_core.studies.shell import ddarts
from ddarts_core.tensors.compiler import check_compiler
from ddarts_core.tensors.devices import pick_device

from ..cluster.connection import start_ray
from ..cluster.head import watched
from ..cluster.machines import check_room
from ..cluster.resources import check_smallest, cluster_device, with_readers, with_resources
from ..cluster.sharing import release, share
from ..cluster.versions import own_version
from ..schedulers.time_budget import TimeBudget
from ..searchers.journal import JOURNAL, Journal
from ..settings.config import SweepConfig
from ..settings.space import Space
from ..store import plugins
from ..store.backend import backend_of
from ..store.lease import LostLease
from ..store.mirror import StoreError
from ..store.study import Study, find_study, hold, num_begun, trial_name
from ..tracking import study_run as tracking
from ..tracking.overview import show_study
from ..tracking.patience import PATIENCE
from ..trial.fine_tuning import check_score
from ..trial.trial_record import meaning
from .callback import Session, note_end, settle, track_rest
from .earlier import adopt
from .events import Listener
from .fit import fit
from .images import check_images, settle_images
from .new_study import new_study
from .rebuild import ensure_tracked
from .stops import KEPT, check_there, clear_rest, explained, is_gone

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """The result of a sweep.

    Attributes:
        study: the study, as it is stored.
        trials: the records of the trials (trial.json): the completed trials come first, the best of them at the top.
        interrupted: whether the sweep was stopped before all trials ended.
        untracked: how many trials MLflow does not have in full; `resume_sweep` sends them again.
    """

    study: Study
    trials: list[dict[str, Any]]
    interrupted: bool
    untracked: int

    @property
    def best(self) -> dict[str, Any] | None:
        """The best completed trial."""
        return self.trials[0] if self.trials and self.trials[0]["state"] == "COMPLETED" else None

    @property
    def message(self) -> str:
        """One sentence on how to go on after an interruption; empty without one."""
        if not self.interrupted:
            return ""
        return f"stopped; every trial is kept at its last epoch: go on with `{ddarts('resume', self.study.location)}`"


def run_sweep(
    config: SweepConfig,
    *,
    draw: tracking.Draw | None = None,
    listener: Listener | None = None,
    num_cpus: int | None = None,
    address: str | None = None,
) -> StudyResult:
    """Make the study and run it to its end, or until Ctrl-C.

    Args:
        config: the configuration of the sweep.
        draw: a function that draws the picture of a genotype into a file; None logs no pictures.
        listener: a function that is told of every trial's progress.
        num_cpus: how many cores Ray may use; None means all.
        address: the address of a Ray cluster; None starts Ray on this machine.

    Raises:
        UserError: the space, the data or the tracking store is not usable, no trial fits on the machines, or the study
            exists. Then nothing is written.
    """
    space = config.build_space()
    info, content = _check_data(config)
    if address is None:
        _check_compiler(config, space)
        check_smallest(config, space, info)
    check_address(config.study_location, address)
    config.place.check_free()
    tracking.expect_mlflow()
    config = prepare(config, space, num_cpus, address)
    with hold(new_study(config, content)) as study:
        return run(study, config, space, Session(draw, listener), address)


CORRIGIBLE = ("resources", "max_concurrent", "time_budget_s", "max_failures_alike")
"""Settings of `tune` that say how trials run, and that do not change their results."""


def resume_sweep(
    study_dir: str | Path,
    *,
    corrected: SweepConfig | None = None,
    failed: bool = False,
    draw: tracking.Draw | None = None,
    listener: Listener | None = None,
    num_cpus: int | None = None,
    address: str | None = None,
) -> StudyResult:
    """Go on with a study after a crash, a stop or an outage of MLflow; a study that is finished is only checked.

    Args:
        study_dir: the study's folder or URI.
        corrected: a configuration of the same study, whose settings of `CORRIGIBLE` and `data.root` replace those of
            the study.
        failed: whether to run the trials that failed again, see `run_again`.
        draw: a function that draws the picture of a genotype into a file; None logs no pictures.
        listener: a function that is told of every trial's progress.
        num_cpus: how many cores Ray may use; None means all.
        address: the address of a Ray cluster; None starts Ray on this machine.

    Raises:
        UserError: there is no study, no trial fits on the machines, or another process runs the study. The study then
            stays as it is.
    """
    found = find_study(study_dir)
    check_address(found.location, address)
    plugins.check(found)
    with hold(found) as study:
        study = ensure_tracked(study)
        config = stored_config(study)
        if corrected is not None:
            data = config.data.model_copy(update={"root": corrected.data.root})
            config = config.model_copy(update={"data": data})
        again = failed and bool(_failed(study))
        if study.data["state"] == "FINISHED" and not again:
            untracked = track_rest(study, draw)
            show_study(study, "FINISHED")
            return StudyResult(study, study.ranked(), False, untracked)
        check_images(study, config, address)
        taken = {} if corrected is None else {name: getattr(corrected.tune, name) for name in CORRIGIBLE}
        if study.data["state"] == "FINISHED":  # its time may have been spent: nobody asks for the trials that were left
            taken["num_samples"] = num_begun(study.trials())
        config = config.model_copy(update={"tune": config.tune.model_copy(update=taken)})
        space = config.build_space()
        config = prepare(config, space, num_cpus, address)
        study = settle_images(study, config)
        tune = config.model_dump(mode="json")["tune"]
        study = study.update(config={**study.data["config"], "tune": tune}, state="INTERRUPTED")
        if again:
            run_again(study)
        return run(study, config, space, Session(draw, listener), address)


def run_again(study: Study) -> int:
    """Let the trials of a held study that failed be run again, each from its last intact checkpoint.

    Each trial keeps its number, its parameters and its run in MLflow. Nothing learns from the failure any more.

    Returns:
        How many trials had failed.

    Raises:
        UserError: the trials are members of a population, whose other members went on without them.
    """
    failed = _failed(study)
    if failed:
        (study.path / JOURNAL).unlink(missing_ok=True)  # the next end of a trial makes it again
        study.push(JOURNAL)
    for trial in failed:
        # Only a trial whose parameters contradicted each other has no settings of its own to keep.
        again = meaning(trial["params"], study.data) if trial.get("contradiction") else {"reason": None}
        study.change_trial(trial["number"], state="RUNNING", tracked=False, **again)
    return len(failed)


def _failed(study: Study) -> list[dict[str, Any]]:
    """The trials of a study that failed.

    Raises:
        UserError: there are some, and they are members of a population.
    """
    failed = [trial for trial in study.trials() if trial["state"] == "FAILED"]
    if failed and study.data["config"]["tune"]["scheduler"] == "pbt":
        raise UserError(
            f"study {study.name!r} is a population, which went on without the members that failed: use --new"
        )
    return failed


def stored_config(study: Study) -> SweepConfig:
    """The sweep's configuration as the study stores it, without secrets."""
    groups = {
        key: study.data["config"].get(key, {}) for key in ("space", "tune", "tracking", "transfer", "name", "storage")
    }
    return resolve({**study.data["base"], **groups}, (), SweepConfig, where=str(study.path / "study.json"))


def check_address(location: str, address: str | None) -> None:
    """Check that trials which run at an address can write into a study at a location.

    Raises:
        UserError: the study is in an object store, and the address is that of Ray Client.
    """
    if not backend_of(location).at_once and (address or "").startswith("ray://"):
        raise UserError(f"a study in {location} is run by a process on the cluster: start it there, with auto")


def prepare(config: SweepConfig, space: Space, num_cpus: int | None, address: str | None) -> SweepConfig:
    """Start or join Ray, and check that a trial fits there, before anything is written.

    Returns:
        The configuration with `auto` replaced by what fits the machines that the trials will run on.

    Raises:
        UserError: no cluster answers at the address, or no trial can ever run there.
    """
    cluster = address is not None
    if not cluster:
        config = with_resources(config, space)
        num_cpus = share(config.study_location, config.tune, num_cpus)
    start_ray(num_cpus, address)
    if config.tune.resources == "auto":
        config = with_resources(config, space, cluster_device(config))
    config = with_readers(config)
    check_room(config.tune, cluster)
    return config


def _check_data(config: SweepConfig) -> tuple[DataInfo, dict[str, Any]]:
    """Read the images, and refuse them if they are too few for a batch.

    Returns:
        The facts of the images, and what `data.json` holds.
    """
    info, images = load_train(config.data)
    splits = split(images, config.data, config.seed)
    check_batch("weights", len(splits.weights), config.search.batch_size)
    check_batch("alphas", len(splits.alphas), config.search.batch_size)
    check_score(config.tune.objective, config.transfer, config.retrain, info)
    return info, data_facts(config.data, info, images) | {"settings": settings_of(config.data)}


def _check_compiler(config: SweepConfig, space: Space) -> None:
    for group, settings in (("search", config.search), ("retrain", config.retrain)):
        path = f"{group}.compile"
        modes = dict(space.distributions)[path].corners() if path in space.paths else [settings.compile]
        if any(mode != "none" for mode in modes):
            check_compiler(pick_device(settings.device, f"{group}.device").type, path)


def run(study: Study, config: SweepConfig, space: Space, session: Session, address: str | None) -> StudyResult:
    """Run the trials of a study that this process holds; whatever stops them leaves it INTERRUPTED.

    Args:
        study: the study, which this process holds.
        config: the configuration of the sweep.
        space: the checked search space.
        session: draws genotypes, and is told of every trial's progress.
        address: the address of a Ray cluster; None stands for this machine.
    """
    # Ray writes its state, which grows with the trials, for a resume that nobody asks for.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"
    try:
        try:
            study = study.update(state="RUNNING", place=study.location, code=own_version())
            show_study(study, "RUNNING")
            adopt(study)
            _say_lost(study)
            with watched(address, lambda: _lost(study, address)):
                budget = fit(study, config, space, session, cluster=address is not None)
            check_there(study)
        except BaseException as error:
            _leave(study)
            if (sentence := explained(study, error)) is not None:
                raise sentence from error
            raise
        return _end(study, config, budget, session.draw)
    finally:
        PATIENCE.end()
        release()


def _say_lost(study: Study) -> None:
    trials = study.trials()
    there = {trial["number"] for trial in trials}
    if lost := [trial_name(number) for number in range(num_begun(trials)) if number not in there]:
        _log.warning("study %r goes on without what it has lost: trial.json of %s", study.name, ", ".join(lost))


def _end(study: Study, config: SweepConfig, budget: TimeBudget, draw: tracking.Draw | None) -> StudyResult:
    """End a study all of whose trials have ended; if some have not, leave the study to be resumed."""
    study.pull("trials")
    trials = study.trials()
    if budget.is_spent():
        for trial in (trial for trial in trials if trial["state"] == "RUNNING"):
            note_end(study, trial["number"], "PRUNED", budget.reason)
    elif num_begun(trials) < config.tune.num_samples or any(trial["state"] == "RUNNING" for trial in trials):
        _leave(study)
        return StudyResult(replace(study, data={**study.data, "state": "INTERRUPTED"}), study.ranked(), True, 0)
    for trial in trials if config.tune.scheduler == "pbt" else ():
        study.clear_checkpoints(trial["number"])
    Journal(study)  # of trials that ended outside of Ray, or while there was no room for it
    untracked = track_rest(study, draw)
    show_study(study, "FINISHED")
    *earlier, last = study.rounds
    last = {**last, "num_samples": num_begun(trials) - sum(added["num_samples"] for added in earlier)}
    study = study.update(state="FINISHED", rounds=[*earlier, last])
    study.push("optuna.log")
    return StudyResult(study, study.ranked(), False, untracked)


def _leave(study: Study) -> None:
    """Note that a sweep stopped before its end; the trials that ran stay RUNNING in the folder, to be resumed."""
    if is_gone(study):
        clear_rest(study)
        return
    with contextlib.suppress(OSError, StoreError, LostLease):  # nobody holds the study, which says the same
        study.update(state="INTERRUPTED")
        study.pull("trials")
    show_study(study, "KILLED")
    settle(study)


def _lost(study: Study, address: str | None) -> str:
    """Leave a study whose cluster has no head any more. Returns what to say of it."""
    PATIENCE.begin(study.location)
    _leave(study)
    return (
        f"the head of the Ray cluster at {address!r} no longer answers; {KEPT}: go on with "
        f"`{ddarts('resume', study.location, '--address', str(address))}` when it is back, or without --address here"
    )
