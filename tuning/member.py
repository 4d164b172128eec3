"""A trial that is a member of a population: it may go on from the state of another, with other settings.

trial.json then has a `lineage`: after which epoch, whose state, and the settings before and after. records.jsonl stays
the member's own history; the settings in force are among the numbers of every epoch (`setting/PATH`). With the seed,
both tell how to repeat what led to a result.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ddarts_core import checkpoint
from ddarts_core.config import config_hash
from ddarts_core.errors import UserError
from ddarts_core.records import EpochRecord, read_jsonl, write_jsonl

from .population import adopt
from .study import read_json, trial_name, write_json
from .trainable import CHECKPOINT, ENDED, SearchTrial

MEMBER = "member.json"
"""Beside a checkpoint: whose it is."""


class Member(SearchTrial):
    """A trial whose `params` Ray may have changed, together with the checkpoint that it goes on from."""

    def _open_record(self) -> None:
        file = self._folder / "trial.json"
        before = read_json(file) if file.exists() else {}
        self._before: dict[str, Any] = before.get("params", self._params)
        if before.get("state") in ENDED:
            self._params = self._before
        elif before:
            write_json(file, {**before, "params": self._params})
        super()._open_record()
        self._record["lineage"] = before.get("lineage", [])
        self._write()

    def _build(self) -> None:
        super()._build()
        if not isinstance(self._epochs, map):
            self._epochs = map(self._with_settings, self._epochs)

    def _with_settings(self, record: EpochRecord) -> EpochRecord:
        settings = {f"setting/{path}": value for path, value in self._params.items() if not isinstance(value, str)}
        return replace(record, metrics={**record.metrics, **settings})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write what the next epoch depends on, and whose it is."""
        note = {"number": self._number, "params": self._params, "lineage": self._record["lineage"]}
        write_json(Path(checkpoint_dir) / MEMBER, note)
        super().save_checkpoint(checkpoint_dir)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Go on from a checkpoint of this member, or from that of another."""
        file = self._folder / "records.jsonl"
        own = read_jsonl(file) if file.exists() else []
        super().load_checkpoint(checkpoint_dir)
        if not self._loaded:
            return
        note, epochs = self._note, self._loaded["epochs"]
        lineage = note["lineage"]
        if (note["number"], note["params"]) != (self._number, self._params):
            earlier = [event for event in self._record["lineage"] if event["epochs"] < epochs]
            known = [event for event in self._record["lineage"] if event["epochs"] == epochs]
            event = {
                "epochs": epochs,
                "from": trial_name(note["number"]),
                "before": known[0]["before"] if known else self._before,
                "params": self._params,
            }
            lineage = [*earlier, event]
            self._records = own[:epochs]
            write_jsonl(file, self._records, timing=True)
            self._loaded["search"] = adopt(self._loaded["search"], self._config, config_hash(self._config))
        self._write(lineage=lineage)

    def _load(self, folder: Path) -> dict[str, Any]:
        """The checkpoint that Ray names, or the last intact one before it; a later one has other settings."""
        error: UserError | None = None
        for candidate in sorted({folder, *folder.parent.glob("checkpoint_*")}, reverse=True):
            if candidate.name > folder.name:
                continue
            try:
                state = checkpoint.load(candidate / CHECKPOINT)
                self._note = read_json(candidate / MEMBER)
            except UserError as damaged:
                error = error or damaged
            else:
                return state
        assert error is not None, "the folder itself is a candidate"
        raise error
