"""What a running sweep tells whoever watches it, for instance a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["started", "epoch", "restarted", "finished", "stopping"]


@dataclass(frozen=True)
class SweepEvent:
    """Something that happened to a trial; only `stopping` happens to the whole sweep.

    Attributes:
        kind: `started`, `epoch` (one more epoch is done), `restarted` (the trial's process died or
            raised an error, which is the reason), `finished`, `stopping` (the first Ctrl-C, told from a thread of its
            own; the second ends the process at once).
        trial_id: the trial's folder below `trials/`.
        number: the trial's number; trials are counted from 0 in the order in which they were proposed.
        params: the trial's parameters by dotted path.
        state: the trial's state: RUNNING, COMPLETED, PRUNED or FAILED.
        epochs: how many epochs the trial has done, those of the retraining included.
        searched: how many of these epochs belong to the search.
        num_epochs: how many epochs the whole trial has, if nothing ends it early.
        phase: the phase of the next epoch: warmup, search, joint or retrain; empty if the trial has ended.
        accuracy: the supernet's `tune.metric` on held-out images; None before the first epoch.
        objectives: the trial's objectives by metric; empty unless it is COMPLETED.
        reason: why the trial failed, was stopped or was restarted; empty otherwise.
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
