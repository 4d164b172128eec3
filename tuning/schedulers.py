"""Which trials are stopped early: Ray's schedulers by the names of `config.SCHEDULERS`.

All compare trials by the supernet's held-out accuracy after the same number of search epochs, scored by batch
normalisation that is recalibrated for the weights (`config` refuses the running statistics, which lag). None sets a
trial's last epoch: a trial ends by itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from ddarts_core.records import EpochRecord, read_jsonl

from .config import ACCURACY, RECALIBRATED, SCHEDULERS, SEARCH_EPOCH, TuneConfig, supernet_metric
from .population import perturb
from .space import Space
from .study import Study, trial_dir, trial_name


def _asha(config: TuneConfig, num_epochs: int, seed: int, space: Space) -> Any:
    return ASHAScheduler(**_halving(config, num_epochs), brackets=1)


def _hyperband(config: TuneConfig, num_epochs: int, seed: int, space: Space) -> Any:
    return HyperBand(seed, **_halving(config, num_epochs), brackets=brackets(config, num_epochs))


def _halving(config: TuneConfig, num_epochs: int) -> dict[str, Any]:
    return {
        "time_attr": SEARCH_EPOCH,
        "metric": f"held_out/{config.metric}",
        "mode": "max",
        "max_t": max(num_epochs, config.grace_period) + 1,  # never reached
        "grace_period": config.grace_period,
        "reduction_factor": config.reduction_factor,
    }


def brackets(config: TuneConfig, num_epochs: int) -> int:
    """As many brackets as there are rungs: the last one stops nobody before the last rung.

    Example:
        >>> brackets(TuneConfig(grace_period=1, reduction_factor=3), num_epochs=27)
        4
    """
    ratio = max(num_epochs, config.grace_period) / config.grace_period
    return int(math.log(ratio) / math.log(config.reduction_factor) + 1e-9) + 1


class HyperBand(ASHAScheduler):
    """Asynchronous HyperBand: ASHA in brackets with later and later first rungs.

    A trial's bracket follows from the seed and the trial's number, so that a resumed sweep puts it into the same.

    Args:
        seed: of the sweep.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._seed = seed

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Put a trial into a bracket; one with fewer rungs gets fewer trials."""
        weights = [math.exp(-place) for place in range(len(self._brackets))]
        draw = random.Random(f"{self._seed}/{trial.config['number']}")
        self._trial_info[trial.trial_id] = draw.choices(self._brackets, weights)[0]


def _median(config: TuneConfig, num_epochs: int, seed: int, space: Space) -> Any:
    """A trial without three others to compare it with goes on.

    Ray's rule would let it wait for those that have not begun: it would lose its process, and the study's time.
    """
    return MedianStoppingRule(
        time_attr=SEARCH_EPOCH,
        metric=f"held_out/{config.metric}",
        mode="max",
        grace_period=config.grace_period,
        min_samples_required=3,
        min_time_slice=math.inf,  # type: ignore[arg-type]  # ray says int; epochs until a trial waits
    )


def _fifo(config: TuneConfig, num_epochs: int, seed: int, space: Space) -> Any:
    return FIFOScheduler()  # type: ignore[no-untyped-call]  # ray


def _pbt(config: TuneConfig, num_epochs: int, seed: int, space: Space) -> Any:
    return Population(config, num_epochs, seed, space)


class Population(PopulationBasedTraining):
    """Population based training in step: all trials wait for each other at every `exchange_every` epochs.

    What is exchanged follows from the trials' accuracies, the seed, their numbers and the epoch, not from who is
    quicker. Ray's own synchronous mode waits for ever for a trial that failed, gives a trial the number of the one that
    it follows, and forgets at a resume what it waits for. Here Ray's configuration of each trial, which Ray notes with
    the checkpoint that the trial goes on from, says which exchange was the last (`exchanged`) and what the trial's
    exchanges did to it (`lineage`): a sweep that was killed repeats an exchange that Ray has not noted, and no other.

    Args:
        config: how often, and how many.
        num_epochs: search epochs of a trial; there is no exchange after the last.
        seed: of the sweep.
        space: settings that are perturbed.
    """

    def __init__(self, config: TuneConfig, num_epochs: int, seed: int, space: Space) -> None:
        super().__init__(
            time_attr=SEARCH_EPOCH,
            metric=f"held_out/{config.metric}",
            mode="max",
            perturbation_interval=config.exchange_every,
            burn_in_period=math.ceil(config.grace_period / config.exchange_every) * config.exchange_every,
            quantile_fraction=config.exchanged,
            custom_explore_fn=dict,  # `_get_new_config` has what it needs
            log_config=False,
            synch=True,
        )
        self._num_epochs = num_epochs
        self._seed = seed
        self._space = space

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one that goes on after its process or the sweep was killed."""
        super().on_trial_add(tune_controller, trial)
        saved, last = trial.latest_checkpoint_result, trial.last_result or {}
        epochs = (saved.metrics or {}).get(SEARCH_EPOCH, 0) if saved else 0
        if epochs and epochs == last.get(SEARCH_EPOCH):
            self._save_trial_state(self._trial_state[trial], epochs, last, trial)
        elif epochs:  # it was killed between an epoch's result and its checkpoint, and will do that epoch again
            self._trial_state[trial].last_train_time = epochs
        following = trial.config.get("exchanged", 0) + self._perturbation_interval
        self._next_perturbation_sync = max(self._next_perturbation_sync, following)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let a trial wait once it has come to the next exchange."""
        epochs = result[SEARCH_EPOCH]
        self._save_trial_state(self._trial_state[trial], epochs, result, trial)
        wait = self._next_perturbation_sync <= epochs < self._num_epochs
        return str(TrialScheduler.PAUSE if wait else TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Exchange when all trials that live have come to it; then the one that is furthest behind."""
        live = [trial for trial in tune_controller.get_live_trials() if not trial.is_finished()]
        for trial in live:
            if trial.status == Trial.PENDING and self._waits(trial):  # it comes from a sweep that was killed
                tune_controller._set_trial_status(trial, Trial.PAUSED)
        if live and all(trial.status == Trial.PAUSED and self._waits(trial) for trial in live):
            self._exchange(tune_controller, live)
            self._next_perturbation_sync += self._perturbation_interval
        return super().choose_trial_to_run(tune_controller)

    def _waits(self, trial: Any) -> bool:
        return bool(self._next_perturbation_sync <= self._trial_state[trial].last_train_time < self._num_epochs)

    def _exchange(self, tune_controller: Any, live: list[Any]) -> None:
        by_number = sorted(self._trial_state.items(), key=lambda item: item[0].config["number"])
        self._trial_state = dict(by_number)  # the order that decides between equal accuracies
        lower, upper = self._quantiles()
        for trial in sorted(live, key=lambda trial: trial in lower):  # the checkpoints of the upper ones first
            self._checkpoint_or_exploit(trial, tune_controller, upper, lower)
        for trial in live:
            trial.set_config({**trial.config, "exchanged": self._next_perturbation_sync})
            trial.run_metadata.invalidate_cache()  # Ray does not, and would note the checkpoint of before
            tune_controller._mark_trial_to_checkpoint(trial)

    def _checkpoint_or_exploit(self, trial: Any, tune_controller: Any, upper: list[Any], lower: list[Any]) -> None:
        """Ray's, which draws from `random` whom to follow."""
        before = random.getstate()
        random.seed(f"{self._seed}/follow/{trial.config['number']}/{self._next_perturbation_sync}")
        try:
            super()._checkpoint_or_exploit(trial, tune_controller, upper, lower)
        finally:
            random.setstate(before)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a trial that goes on from another's state."""
        number, epochs, donor = trial.config["number"], self._next_perturbation_sync, trial_to_clone.config
        params = perturb(self._space, donor["params"], random.Random(f"{self._seed}/perturb/{number}/{epochs}"))
        event = {"epochs": epochs, "from": trial_name(donor["number"]), "before": trial.config["params"]}
        lineage = [*trial.config.get("lineage", []), {**event, "params": params}]
        return {**trial.config, "params": params, "lineage": lineage}, {}


SCHEDULER_FACTORIES: Mapping[str, Callable[[TuneConfig, int, int, Space], Any]] = MappingProxyType(
    {"asha": _asha, "hyperband": _hyperband, "median": _median, "fifo": _fifo, "pbt": _pbt}
)
assert SCHEDULER_FACTORIES.keys() == SCHEDULERS.keys()


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier round, as far as schedulers look at one; Ray pickles it with the scheduler."""

    trial_id: str
    config: dict[str, int] = field(compare=False)


def remember(scheduler: Any, study: Study) -> None:
    """Let a scheduler compare the trials of a study's last round with those of the rounds before.

    It is told what those reported, one trial after the other; what it would do with them is without effect. It is not
    told of trials that were scored by running statistics, which ddarts once did: they lag, and would rank too low.
    """
    earlier = sum(added["num_samples"] for added in study.rounds[:-1])
    # The median rule refuses reports of a trial that it would have stopped, and notes without a decision what ends.
    tell: Any = scheduler.on_trial_complete if isinstance(scheduler, MedianStoppingRule) else scheduler.on_trial_result
    metric = supernet_metric(study.data["config"]["tune"])
    for number in range(earlier):
        records = read_jsonl(trial_dir(study.path, number) / "records.jsonl")
        reports = list(reports_of(records, metric))
        if reports and records[0].metrics.get(RECALIBRATED):
            trial = Earlier(f"earlier_{number}", {"number": number})
            scheduler.on_trial_add(None, trial)
            for report in reports[:-1]:
                tell(None, trial, report)
            scheduler.on_trial_complete(None, trial, reports[-1])


def reports_of(records: Iterable[EpochRecord], metric: str = ACCURACY) -> Iterator[dict[str, float]]:
    """What schedulers compare, after each of a trial's epochs: the search's last `metric`, and its epochs so far."""
    value, searched = 0.0, 0
    for record in records:
        if record.phase != "retrain":
            value, searched = record.metrics[metric], searched + 1
        yield {metric: value, SEARCH_EPOCH: searched}
