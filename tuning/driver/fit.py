"""Let Ray Tune run the trials of a study: searcher, scheduler, callback and budget are put together here."""

from __future__ import annotations

import shutil
from typing import Any

from pyarrow.fs import LocalFileSystem

from ..cluster.connection import polite_stops
from ..schedulers.time_budget import TimeBudget
from ..settings.config import SweepConfig
from ..settings.space import Space
from ..settings.tune import TuneConfig
from ..store import plugins
from ..store.study import Held, Study
from ..tracking.patience import PATIENCE
from ..tracking.secret import handed_over
from .callback import Session, note_end


def longest(config: SweepConfig, space: Space) -> int:
    """The most search epochs that a trial can have, warm-up included."""

    def most(path: str, default: int) -> int:
        values = dict(space.distributions)[path].corners() if path in space.paths else []
        return int(max([default, *values]))

    return most("search.epochs", config.search.epochs) + most("search.warmup_epochs", config.search.warmup_epochs)


def _resourceful(config: TuneConfig) -> Any:
    from ray import tune

    from ..trial.member import Member
    from ..trial.trainable import SearchTrial

    trial = Member if config.scheduler == "pbt" else SearchTrial
    return tune.with_resources(trial, config.fixed_resources.model_dump(include={"cpu", "gpu"}))


SCRATCH = ".ray"
"""Ray's folder in the study's folder while the sweep runs. ddarts reads nothing from it."""


def fit(study: Study, config: SweepConfig, space: Space, session: Session, cluster: bool) -> TimeBudget:
    """Let Ray run the trials of a study that have not ended, and then new trials until there are as many as wanted.

    Ray begins anew each time. It is told what it has to know from the study's folder.

    Returns:
        The budget of time, which tells whether the time is spent.
    """
    from ray import tune

    from ..schedulers.early_stopping import SCHEDULER_FACTORIES, remember
    from ..schedulers.legs import Legs
    from ..searchers.searcher import Places, StudySearch
    from .callback import StudyCallback

    search_epochs = longest(config, space)
    population = config.tune.scheduler == "pbt"
    held, budget = Held(study), TimeBudget(config.tune.time_budget_s)
    scheduler = SCHEDULER_FACTORIES[config.tune.scheduler](config.tune, search_epochs, config.seed)
    for number, epochs in remember(scheduler, study).items():
        note_end(study, number, "PRUNED", f"stopped by the scheduler after {epochs} epochs")
    searcher: Any = StudySearch(held, config, space, budget)
    if population:
        searcher = Legs(held, config, space, search_epochs, budget)
    metric = f"held_out/{config.tune.metric}"
    callback = StudyCallback(held, session, budget, metric, alone=not population)
    scratch = study.path / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        _resourceful(config.tune),
        tune_config=tune.TuneConfig(
            search_alg=Places(searcher, config.tune, cluster), num_samples=-1, scheduler=scheduler, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(scratch),
            storage_filesystem=LocalFileSystem(),  # without it Ray decodes a % in the path, and cuts it at a ?
            callbacks=[callback],
            stop=budget,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.tune.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    budget.is_spent()  # it begins now; a tuner on another machine has its copy already, which goes by the clock there
    try:
        with handed_over(study), plugins.offered(study), polite_stops(session.tell_stop):
            tuner.fit()
    finally:
        PATIENCE.begin(study.location)
        callback.close()
        shutil.rmtree(scratch, ignore_errors=True)
    if callback.hopeless is not None:
        raise RuntimeError(callback.hopeless)
    return budget
