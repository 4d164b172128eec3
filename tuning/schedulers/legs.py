"""A population under Ray Tune: its members run in legs, from one exchange to the next.

All members wait for each other after every `tune.exchange_every` search epochs. Then the members that are behind take
over from those that are ahead (population.py), and this exchange is written into the files of all members before a leg
begins. An exchange follows from what is in these files. So a sweep that was killed during an exchange makes the same
exchange again for the members that have not noted it.
"""

from __future__ import annotations

import math
import random
from typing import Any

from ray.tune.search import Searcher

from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.study_files import ENDED

from ..settings.config import SweepConfig
from ..settings.population import draw_population, exchange, perturb
from ..settings.space import Space, trial_config
from ..settings.tune import SEARCH_EPOCH
from ..store.study import Held, trial_dir, trial_name
from ..trial.trial_record import begin, stored_reports
from .time_budget import TimeBudget


class Legs(Searcher):
    """Gives Ray the members of a population, one leg at a time; the member that is furthest behind comes first.

    Args:
        held: the study, which this process holds.
        config: the configuration of the sweep.
        space: the search space, whose settings an exchange changes a little.
        num_epochs: how many search epochs a member has; there is no exchange after the last one.
        budget: the budget of time; once it is spent, Ray is given no leg.
    """

    def __init__(self, held: Held, config: SweepConfig, space: Space, num_epochs: int, budget: TimeBudget) -> None:
        super().__init__()
        self._held = held
        self._config = config
        self._space = space
        self._num_epochs = num_epochs
        self._budget = budget
        self._compared = f"held_out/{config.tune.metric}"
        self._records = {trial["number"]: trial for trial in held.study.trials()}
        drawn = draw_population(space, config.tune.num_samples, config.seed, config.tune.points_to_evaluate)
        for number, params in enumerate(drawn):
            if number not in self._records:
                self._records[number] = begin(held.study, number, params, lineage=[], exchanged=0)
        self._ended = {number for number, record in self._records.items() if record["state"] in ENDED}
        self._accuracies: dict[int, dict[int, float]] = {number: {} for number in self._records}
        for number in self._records:
            for report in stored_reports(trial_dir(held.study.path, number), self._compared):
                self._note(number, report)
        self._running: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next leg; None while all members that do not run wait for others."""
        members = [number for number in self._records if number not in self._ended]
        if self._budget.is_spent() or not members:
            return Searcher.FINISHED
        self._exchange_if_due(members)
        ready = [n for n in members if n not in self._running.values() and self._epochs(n) < self._goal(n)]
        if not ready:
            return None
        number = min(ready, key=lambda number: (self._epochs(number), number))
        self._running[trial_id] = number
        return {"study": self._held.location, "number": number, "until": self._goal(number)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A member has done an epoch."""
        self._note(self._running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A leg is over. The member has ended too, unless it now waits for an exchange."""
        number = self._running.pop(trial_id, None)
        if number is None:
            return
        if result:
            self._note(number, result)
        if error or not (result or {}).get("waits"):
            self._ended.add(number)

    def _note(self, number: int, report: dict[str, Any]) -> None:
        self._accuracies[number][report[SEARCH_EPOCH]] = report[self._compared]

    def _epochs(self, number: int) -> int:
        return max(self._accuracies[number], default=0)

    def _goal(self, number: int) -> float:
        """The number of search epochs at which a member waits for its next exchange; infinite after the last one."""
        tune, last = self._config.tune, int(self._records[number]["exchanged"])
        first = math.ceil(max(tune.grace_period, 1) / tune.exchange_every) * tune.exchange_every
        following = last + tune.exchange_every if last else first
        return following if following < self._num_epochs else math.inf

    def _exchange_if_due(self, members: list[int]) -> None:
        epochs = min(self._goal(number) for number in members)
        if epochs == math.inf or any(self._epochs(number) < epochs for number in members):
            return
        left = [number for number in members if self._records[number]["exchanged"] < epochs]
        # Also those that have ended since, if the exchange was made before a kill: it was made with them.
        there = [n for n in self._records if n in left or self._records[n]["exchanged"] >= epochs]
        accuracies = {number: self._accuracies[number][int(epochs)] for number in there}
        follows = exchange(accuracies, self._config.tune.exchanged, self._config.seed, int(epochs))
        before = {number: self._records[number]["params"] for number in there}
        for number in left:
            self._write(number, int(epochs), before, follows.get(number))

    def _write(self, number: int, epochs: int, before: dict[int, dict[str, Any]], donor: int | None) -> None:
        """Note in a member's file what an exchange does to the member."""
        study = self._held.study
        study.pull(f"trials/{trial_name(number)}")
        fields: dict[str, Any] = {"exchanged": epochs}
        if donor is not None:
            stream = random.Random(f"{self._config.seed}/perturb/{number}/{epochs}")
            params = perturb(self._space, before[donor], stream)
            config = trial_config(study.data["base"], params)
            event = {"epochs": epochs, "from": trial_name(donor), "before": before[number], "params": params}
            fields |= {"params": params, "lineage": [*self._records[number]["lineage"], event]}
            fields |= {"config": config.model_dump(mode="json"), "config_hash": config_hash(config)}
        self._records[number] = study.change_trial(number, **fields)
