"""Run a sweep and go on with one: Ray Tune with Optuna's proposals, a scheduler, and the study's folder.

Ray's own state (`ray/`) says which trials there are and where their checkpoints lie; what a trial has done is in its
folder below `trials/`. A killed sweep goes on from both: a trial that Ray has not noted yet gets the same number again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem

from ddarts_core.config import resolve
from ddarts_core.data import check_batch, data_facts, data_notes, load_train, split
from ddarts_core.datasets import facts
from ddarts_core.devices import pick_device
from ddarts_core.errors import UserError
from ddarts_core.execution import check_compiler
from ddarts_core.shell import ddarts

from . import tracking
from .alike import STOPPED
from .callback import Session, StudyCallback, active, is_full, settle, track_rest
from .cluster import check_room, polite_stops, start_ray
from .config import SweepConfig, TuneConfig
from .events import Listener
from .lease import LostLease
from .mirror import StoreError, is_uri, run_folder, store_error
from .moving import move_state, settle_in
from .new_study import check_folder, exists_already, new_study
from .population import draw_population
from .resources import cluster_device, with_readers, with_resources
from .secret import handed_over
from .snapshots import bring_back, kept
from .space import Space
from .study import Study, find_study, has_study, hold, read_json
from .time_budget import TimeBudget, was_spent


@dataclass(frozen=True)
class StudyResult:
    """What a sweep came to.

    Attributes:
        study: the study, as stored.
        trials: their records (trial.json), completed ones first, best first.
        interrupted: it was stopped before all trials ended.
        untracked: trials that MLflow does not have in full; `resume_sweep` gives them to it.
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


def longest(config: SweepConfig, space: Space) -> tuple[int, int]:
    """The most search epochs (warm-up included) and the most retraining epochs that a trial can have."""

    def most(path: str, default: int) -> int:
        values = dict(space.distributions)[path].corners() if path in space.paths else []
        return int(max([default, *values]))

    search = most("search.epochs", config.search.epochs) + most("search.warmup_epochs", config.search.warmup_epochs)
    retrain = most("retrain.epochs", config.retrain.epochs) if config.tune.objective == "derived" else 0
    return search, retrain


# --- Ray -------------------------------------------------------------------------------------------------------------


def trial_directory(trial: Any) -> str:
    """Ray's name for a trial's folder; a module-level function because Ray pickles it."""
    return f"{trial.config['number']:05d}_{trial.trial_id}"


def _resourceful(config: TuneConfig) -> Any:
    from ray import tune

    from .member import Member
    from .trainable import SearchTrial

    trial = Member if config.scheduler == "pbt" else SearchTrial
    return tune.with_resources(trial, config.fixed_resources.model_dump(include={"cpu", "gpu"}))


@dataclass(frozen=True)
class Members:
    """Parameters of a population's member by its number; a module-level class because Ray pickles it."""

    params: list[dict[str, Any]]

    def __call__(self, spec: Any) -> dict[str, Any]:
        """Of the member that Ray makes a trial of."""
        number: int = spec.config.number
        return self.params[number]


def _proposals(study: Study, config: SweepConfig, space: Space, cluster: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ray's `param_space`, and what proposes in it: a searcher, or for a population nothing."""
    from ray import tune

    from .searcher import Places, StudySearch

    rounds = study.rounds
    fixed = {"study": study.location}
    if config.tune.scheduler == "pbt":
        size, points = config.tune.num_samples, config.tune.points_to_evaluate
        members = Members(draw_population(space, size, config.seed, points))
        return {**fixed, "number": tune.grid_search(list(range(size))), "params": tune.sample_from(members)}, {}
    searcher = StudySearch(space, config.tune, config.seed, f"{study.location}/optuna.log", study.name)
    if len(rounds) > 1:
        before = study.path / rounds[-2]["folder"]
        searcher.go_on(before if study.mirror is None else kept(before)[-1], rounds[-1]["points_to_evaluate"])
    places = Places(searcher, partial(current_tune, study.location), cluster)
    return fixed, {"search_alg": places, "num_samples": rounds[-1]["num_samples"]}


def new_tuner(study: Study, config: SweepConfig, space: Space, address: str | None) -> Any:
    """For the study's last round; its searcher and its scheduler know the rounds before."""
    from ray import tune

    from .schedulers import SCHEDULER_FACTORIES, remember

    search_epochs, retrain_epochs = longest(config, space)
    param_space, proposer = _proposals(study, config, space, cluster=address is not None)
    population = config.tune.scheduler == "pbt"
    scheduler = SCHEDULER_FACTORIES[config.tune.scheduler](config.tune, search_epochs, config.seed, space)
    remember(scheduler, study)
    # Any state of a population may be the one that another goes on from, until Ray has noted a later one.
    num_checkpoints = None if population else 2
    metric = f"held_out/{config.tune.metric}"
    num_epochs = search_epochs + retrain_epochs if config.tune.budget == "epochs" else 0
    callback = StudyCallback(study.location, num_epochs, num_checkpoints, metric)
    # Ray writes its whole state, which grows with the trials, whenever a trial has made so many checkpoints.
    noted = None if population else 10
    return tune.Tuner(
        _resourceful(config.tune),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            **proposer,
            scheduler=TimeBudget(scheduler, partial(current_tune, study.location)),
            reuse_actors=True,
            trial_dirname_creator=trial_directory,
        ),
        run_config=tune.RunConfig(
            name=study.rounds[-1]["folder"],
            **_ray_storage(study),
            callbacks=[callback],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.tune.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=noted, checkpoint_at_end=False),
        ),
    )


def _ray_storage(study: Study) -> dict[str, Any]:
    """Where Ray writes its state and the checkpoints."""
    if study.mirror is None:
        # Named, because Ray would decode a % in the path, and take what follows a ? for options.
        return {"storage_path": str(study.path), "storage_filesystem": LocalFileSystem()}
    from .ray_storage import ray_filesystem

    return {"storage_path": study.mirror.root, "storage_filesystem": ray_filesystem(study.location)}


def next_tuner(study: Study, config: SweepConfig, space: Space, address: str | None) -> Any:
    """Ray at its last whole state of the study's last round, or anew if there is none."""
    from ray import tune

    folder = study.path / study.rounds[-1]["folder"]
    if not bring_back(folder):
        return new_tuner(study, config, space, address)
    move_state(folder, study.location)
    storage = _ray_storage(study)
    path = f"{storage.pop('storage_path')}/{folder.name}"
    if study.mirror is not None:
        study.mirror.place_state(folder)
    return tune.Tuner.restore(path, trainable=_resourceful(config.tune), resume_unfinished=True, **storage)


# --- running --------------------------------------------------------------------------------------------------------


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
        config: of the sweep.
        draw: draws the picture of a genotype into a file; None logs none.
        listener: is told of every trial's progress.
        num_cpus: cores that Ray may use; None is all.
        address: of a Ray cluster; None starts Ray on this machine.

    Raises:
        UserError: the space, the data or the tracking store is not usable, no trial fits on the machines, or the study
            exists. Then nothing is written.
    """
    space = config.build_space()
    content = _check_data(config)
    if address is None:
        _check_compiler(config, space)
    check_address(config.study_location, address)
    if has_study(config.study_location):
        raise exists_already(config.study_location)
    if not is_uri(config.study_location):
        check_folder(config.study_dir)
    config = prepare(config, space, num_cpus, address)
    with hold(new_study(config)) as study:
        facts.write_facts(study.path, content)
        study.push(facts.FILE)
        return run(study, lambda: new_tuner(study, config, space, address), config.tune, Session(draw, listener))


CORRIGIBLE = ("resources", "max_concurrent", "time_budget_s", "max_failures_alike")
"""Settings of `tune` that say how trials run, not what comes of them."""


def resume_sweep(
    study_dir: str | Path,
    *,
    corrected: SweepConfig | None = None,
    draw: tracking.Draw | None = None,
    listener: Listener | None = None,
    num_cpus: int | None = None,
    address: str | None = None,
) -> StudyResult:
    """Go on with a study after a crash, a stop or an outage of MLflow; a finished one is only checked.

    Ray unpickles its own state in the study's folder: resume only studies that you trust.

    Args:
        study_dir: the study's folder or URI.
        corrected: of the same study: its settings of `CORRIGIBLE` replace the study's.
        draw: draws the picture of a genotype into a file; None logs none.
        listener: is told of every trial's progress.
        num_cpus: cores that Ray may use; None is all.
        address: of a Ray cluster; None starts Ray on this machine.

    Raises:
        UserError: there is no study, no trial fits on the machines, or another process runs the study, which stays as
            it is.
    """
    found = find_study(study_dir)
    check_address(found.location, address)
    with hold(found) as study:
        settle_in(study)
        tracking.check_kept(study)
        config = stored_config(study)
        if study.data["state"] == "FINISHED":
            untracked = track_rest(study, draw)
            tracking.end_study(study, "FINISHED")
            return StudyResult(study, study.ranked(), False, untracked)
        if corrected is not None:
            taken = {name: getattr(corrected.tune, name) for name in CORRIGIBLE}
            config = config.model_copy(update={"tune": config.tune.model_copy(update=taken)})
        space = config.build_space()
        config = prepare(config, space, num_cpus, address)
        tune = config.model_dump(mode="json")["tune"]
        study = study.update(config={**study.data["config"], "tune": tune})
        return run(study, lambda: next_tuner(study, config, space, address), config.tune, Session(draw, listener))


def current_tune(location: str) -> TuneConfig:
    """How trials of a study run now; Ray, which has a state of its own, asks for it wherever it runs."""
    return TuneConfig.model_validate(read_json(run_folder(location) / "study.json")["config"]["tune"])


def stored_config(study: Study) -> SweepConfig:
    """The sweep's configuration as stored, without secrets."""
    groups = {key: study.data["config"][key] for key in ("space", "tune", "tracking", "name", "storage")}
    return resolve({**study.data["base"], **groups}, (), SweepConfig, where=str(study.path / "study.json"))


def check_address(location: str, address: str | None) -> None:
    """Check that a process at this end of an address can write a study.

    Raises:
        UserError: the study is in an object store, and the sweep would run elsewhere.
    """
    if is_uri(location) and (address or "").startswith("ray://"):
        raise UserError(f"a study in {location} is run by a process on the cluster: start it there, with auto")


def prepare(config: SweepConfig, space: Space, num_cpus: int | None, address: str | None) -> SweepConfig:
    """Start or join Ray, and check that a trial fits there, before anything is written.

    Returns:
        The configuration with `auto` replaced by what fits the machines that the trials will run on.

    Raises:
        UserError: no cluster answers, or no trial can ever run there.
    """
    cluster = address is not None
    if not cluster:
        config = with_resources(config, space)
    start_ray(num_cpus, address)
    if config.tune.resources == "auto":
        config = with_resources(config, space, cluster_device(config))
    config = with_readers(config)
    check_room(config.tune, cluster)
    return config


def _check_data(config: SweepConfig) -> dict[str, Any]:
    """Read the images, and refuse those that do not suffice for a batch; the content of `data.json`."""
    info, images = load_train(config.data)
    splits = split(images, config.data, config.seed)
    check_batch("weights", len(splits.weights), config.search.batch_size)
    check_batch("alphas", len(splits.alphas), config.search.batch_size)
    return data_facts(info, images, data_notes(config.data))


def _check_compiler(config: SweepConfig, space: Space) -> None:
    path = "search.compile"
    modes = dict(space.distributions)[path].corners() if path in space.paths else [config.search.compile]
    if any(mode != "none" for mode in modes):
        check_compiler(pick_device(config.search.device).type)


def run(study: Study, make_tuner: Callable[[], Any], config: TuneConfig, session: Session) -> StudyResult:
    """Run the trials of a study that this process holds; whatever stops them leaves it INTERRUPTED.

    Args:
        study: is held.
        make_tuner: gives Ray with what is left to do.
        config: of the sweep.
        session: is told.
    """
    # `auto` is so seldom that it takes a twentieth of the time. A population goes on from what Ray noted last.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "2" if config.scheduler == "pbt" else "auto"
    began = time.monotonic()
    try:
        study = study.update(state="RUNNING")
        tracking.end_study(study, "RUNNING")
        tuner = make_tuner()
        with active(study, session), handed_over(study), polite_stops():
            tuner.fit()
    except BaseException as error:
        _leave(study)
        kept_so_far, go_on = "every trial is kept at its last epoch", ddarts("resume", study.location)
        if is_full(str(error)):
            raise UserError(
                f"no space is left for study {study.location}; {kept_so_far}: make room and go on with `{go_on}`"
            ) from error
        if alike := STOPPED.search(str(error)):
            raise UserError(f"{alike.group()}; {kept_so_far}: mend the cause and go on with `{go_on}`") from error
        if away := store_error(error):
            raise UserError(f"{away}; {kept_so_far}: go on with `{go_on}` when it is back") from error
        raise
    study.pull("trials")
    trials = study.trials()
    whole = len(trials) >= config.num_samples or was_spent(trials, config, time.monotonic() - began)
    if not whole or any(trial["state"] == "RUNNING" for trial in trials):
        _leave(study)
        return StudyResult(replace(study, data={**study.data, "state": "INTERRUPTED"}), study.ranked(), True, 0)
    untracked = track_rest(study, session.draw)
    tracking.end_study(study, "FINISHED")
    *earlier, last = study.rounds
    last = {**last, "num_samples": len(trials) - sum(added["num_samples"] for added in earlier)}
    study = study.update(state="FINISHED", rounds=[*earlier, last])
    return StudyResult(study, study.ranked(), False, untracked)


def _leave(study: Study) -> None:
    """Note that a sweep stopped on the way; trials that ran stay RUNNING in the folder, to be resumed."""
    with contextlib.suppress(OSError, StoreError, LostLease):  # nobody holds the study, which says the same
        study.update(state="INTERRUPTED")
        study.pull("trials")
    tracking.end_study(study, "KILLED")
    settle(study)
