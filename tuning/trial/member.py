"""A trial that is a member of a population: it may go on from the state of another member, with other settings.

A member runs in legs, from one exchange to the next: each leg is one of Ray's trials. Between two legs the member has
no process, and the sweep writes into its trial.json what the exchange did to it. `exchanged` is the number of search
epochs at which the last exchange took place. If the member follows another one, its `lineage` gets a line that says
after which epoch, whose state it took over, and its settings before and after.

records.jsonl stays the member's own history. The settings in force are among the numbers of every epoch
(`setting/PATH`). Together with the seed, the two files tell how to repeat what led to a result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, read_jsonl, stage
from ddarts_core.studies.study_files import ENDED

from ..settings.population import adopt
from ..settings.tune import SEARCH_EPOCH
from ..store import checkpoints
from ..store.study import trial_dir, trial_name
from .trainable import SearchTrial


class Member(SearchTrial):
    """A leg of a member. Its Ray configuration has `until` too: the number of search epochs at the next exchange."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start a leg."""
        self._until: float = config["until"]
        super().setup(config)

    def step(self) -> dict[str, Any]:
        """Run one epoch, unless the leg is over.

        A leg may be over because the process before this one was killed before it could report its end.
        """
        searched = sum(not stage(record.phase) for record in self._records)
        if self._record["state"] not in ENDED and searched >= self._until:
            return self._report(done=False)
        return super().step()

    def _report(self, done: bool) -> dict[str, Any]:
        result = super()._report(done)
        if not done and result[SEARCH_EPOCH] >= self._until:
            self._sender.send(self._records)
            return result | {"done": True, "waits": True}
        return result

    def _build(self) -> None:
        super()._build()
        if not isinstance(self._epochs, map):
            self._epochs = map(self._with_settings, self._epochs)

    def _with_settings(self, record: EpochRecord) -> EpochRecord:
        settings = {f"setting/{path}": value for path, value in self._params.items() if not isinstance(value, str)}
        return replace(record, metrics={**record.metrics, **settings})

    def _lasting(self) -> int | None:
        """The member's state at the last exchange. It is kept, because another member may still go on from it."""
        return int(self._record["exchanged"])

    def _clear(self) -> None:
        """Clears nothing: the sweep does that when the whole population has ended."""

    def _state(self) -> dict[str, Any] | None:
        """The member's furthest state since it last followed another; before it has one, the state of that other."""
        lineage = self._record["lineage"]
        if not lineage:
            return super()._state()
        since = int(lineage[-1]["epochs"])
        if next(checkpoints.intact(self._folder, above=since), None) is not None:
            return super()._state()
        donor = int(lineage[-1]["from"])
        self._study.pull(f"trials/{trial_name(donor)}")
        there = trial_dir(self._study.path, donor)
        state = next(checkpoints.intact(there, above=since - 1, up_to=since), None)
        if state is None:
            raise UserError(
                f"trial {trial_name(self._number)} follows trial {trial_name(donor)} after epoch {since}, whose "
                f"checkpoint {checkpoints.file_of(there, since)} is damaged or gone"
            )
        self._records = read_jsonl(self._folder / "records.jsonl")[:since]
        return {**state, "search": adopt(state["search"], self._config, self._record["config_hash"])}
