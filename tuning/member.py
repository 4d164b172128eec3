"""A trial that is a member of a population: it may go on from the state of another, with other settings.

trial.json then has a `lineage`: after which epoch, whose state, and the settings before and after. records.jsonl stays
the member's own history; the settings in force are among the numbers of every epoch (`setting/PATH`). With the seed,
both tell how to repeat what led to a result.

What counts after a kill is what Ray noted last, of all members at one moment. A member may have done more by then: it
does it again, for an exchange takes place between all members as they were, and none may have run past it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddarts_core import checkpoint
from ddarts_core.config import config_hash
from ddarts_core.errors import UserError
from ddarts_core.records import EpochRecord, read_jsonl

from .population import adopt
from .study import read_json, write_json
from .trainable import CHECKPOINT, ENDED, SearchTrial

MEMBER = "member.json"
"""Beside a checkpoint: whose it is."""


class Member(SearchTrial):
    """A trial whose `params` and `lineage` Ray may have changed, together with the checkpoint that it goes on from."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start a member; its lineage comes from the scheduler."""
        self._lineage: list[dict[str, Any]] = list(config.get("lineage", []))
        self._ended: dict[str, Any] | None = None
        super().setup(config)

    def _open_record(self) -> None:
        file = self._folder / "trial.json"
        before = read_json(file) if file.exists() else {}
        if before.get("state") in ENDED:
            # Whether Ray has noted the state at that end, a checkpoint tells.
            self._ended = self._record = {**before, "ray_trial_id": self.trial_id}
            self._records = read_jsonl(self._folder / "records.jsonl")
        else:
            self._begin(before)

    def _begin(self, before: dict[str, Any]) -> None:
        """Write trial.json for a member that is to go on."""
        if before:
            record = {**before, "params": self._params, "lineage": self._lineage, "state": "RUNNING"}
            write_json(self._folder / "trial.json", record)
        super()._open_record()
        self._taken_over = False

    def _own_fields(self) -> dict[str, Any]:
        return {"lineage": self._lineage}

    def step(self) -> dict[str, Any]:
        """Run one epoch; a member that ended, and whose end Ray has not noted, does it again."""
        if self._ended is not None:
            self._reopen()
        return super().step()

    def _reopen(self) -> None:
        before, self._ended = self._ended, None
        self._records = []
        assert before is not None, "it ended"
        self._begin(before)

    def _build(self) -> None:
        super()._build()
        if not isinstance(self._epochs, map):
            self._epochs = map(self._with_settings, self._epochs)

    def _with_settings(self, record: EpochRecord) -> EpochRecord:
        settings = {f"setting/{path}": value for path, value in self._params.items() if not isinstance(value, str)}
        return replace(record, metrics={**record.metrics, **settings})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write what the next epoch depends on, and whose it is."""
        write_json(Path(checkpoint_dir) / MEMBER, {"number": self._number, "params": self._params})
        super().save_checkpoint(checkpoint_dir)

    def restore(self, checkpoint_path: Any) -> None:
        """Go on from a checkpoint, wherever it lies."""
        self._restored_from = str(checkpoint_path.checkpoint.path)
        super().restore(checkpoint_path)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Go on from a checkpoint of this member, or from that of another."""
        if self._ended is not None:
            state = self._load(Path(checkpoint_dir))
            if self._is_own() and state["epochs"] == len(self._records):
                self._ended = None  # the state at the end: only the report is missing
                return
            self._reopen()
        super().load_checkpoint(checkpoint_dir)
        if not self._is_own():
            self._loaded["search"] = adopt(self._loaded["search"], self._config, config_hash(self._config))

    def _is_own(self) -> bool:
        return bool((self._note["number"], self._note["params"]) == (self._number, self._params))

    def _history(self) -> list[EpochRecord]:
        """The member's own: what another has done before is in that one's records."""
        if self._is_own():
            return super()._history()
        return read_jsonl(self._folder / "records.jsonl")[: self._loaded["epochs"]]

    def _load(self, folder: Path) -> dict[str, Any]:
        """The checkpoint that Ray names, or the last intact one before it; a later one has other settings."""
        error: UserError | None = None
        for candidate in self._up_to(folder):
            try:
                state = checkpoint.load(candidate / CHECKPOINT)
                self._note = read_json(candidate / MEMBER)
            except UserError as damaged:
                error = error or damaged
            else:
                return state
        assert error is not None, "the folder itself is a candidate"
        raise error

    def _up_to(self, folder: Path) -> Iterator[Path]:
        """A checkpoint, then those before it, the latest first; from a store each when it is wanted."""
        yield folder
        mirror = self._study.mirror
        if mirror is None:
            yield from sorted((p for p in folder.parent.glob("checkpoint_*") if p.name < folder.name), reverse=True)
            return
        parent, _, named = self._restored_from.removeprefix(f"{mirror.root}/").rpartition("/")  # `folder` is Ray's copy
        stored = {name.split("/")[-2] for name in mirror.found(parent, lambda name: name.endswith(f"/{CHECKPOINT}"))}
        for name in sorted((name for name in stored if name < named), reverse=True):
            mirror.fetch(f"{parent}/{name}/*")
            yield self._study.path / parent / name
