"""What a running sweep tells whoever watches it, for instance a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["started", "epoch", "restarted", "finished", "stopping"]


@dataclass(frozen=True)
class SweepEvent:
    """Something that happened to a trial; `stopping` is of the whole sweep.

    Attributes:
        kind: `started`, `epoch` (one more epoch is done), `restarted` (its process died), `finished`,
            `stopping` (the first Ctrl-C, told from a thread of its own; the second ends the process at once).
        trial_id: the trial's folder below `trials/`.
        number: from 0, in the order of proposal.
        params: by dotted path.
        state: RUNNING, COMPLETED, PRUNED or FAILED.
        epochs: epochs done, retraining included.
        searched: those of them that were of the search.
        num_epochs: epochs of the whole trial, if nothing ends it early.
        phase: of the epoch that comes next: warmup, search, joint or retrain; empty of a trial that ended.
        accuracy: the supernet's on held-out images, by `tune.metric`; None before the first epoch.
        objectives: by metric; empty unless COMPLETED.
        reason: why it failed or was stopped; empty otherwise.
    """

    kind: Kind
    trial_id: str
    number: int
    params: Mapping[str, Any]
    state: str = "RUNNING"
    epochs: int = 0
    searched: int = 0
    num_epochs: int = 0
    phase: str = ""
    accuracy: float | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


Listener = Callable[[SweepEvent], object]
