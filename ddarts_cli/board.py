"""What a running sweep shows on a terminal: a line on the whole, and a row for each trial that runs."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddarts_tuning.driver.events import SweepEvent

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


#: Phases whose name in the records is not what a reader calls them.
PHASES = {"warmup": "warm-up", "retrain": "training"}


@dataclass
class Row:
    """A trial that runs, as the board shows it.

    Attributes:
        epochs: the number of epochs that are done.
        num_epochs: the number of epochs that the trial will have.
        phase: what the trial does, in the words of a reader.
        accuracy: the last accuracy that the trial told; None before the first.
        params: the sampled settings by their dotted paths.
    """

    epochs: int = 0
    num_epochs: int = 0
    phase: str = ""
    accuracy: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


class Board:
    """A sweep as its events tell it.

    Args:
        planned: the number of all trials, including those that have ended.
        ended: the states of the trials that ended before this run of the sweep.
        objectives: the metric of each objective, and its mode, `max` or `min`.
        best: the value of the first objective in the best trial so far, and the name of that trial.
        clock: returns a time in seconds; the rate is measured with it.

    Attributes:
        rows: the row of each trial that runs, by the trial's name.
        states: how many trials ended in each state.
        stopping: whether the first Ctrl-C was heard.
    """

    def __init__(
        self,
        planned: int,
        ended: Sequence[str] = (),
        objectives: Sequence[tuple[str, str]] = (),
        best: tuple[float, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.planned = planned
        self.states = Counter(ended)
        self.rows: dict[str, Row] = {}
        self.stopping = False
        self._objective = objectives[0] if objectives else None
        self._best = best
        self._clock = clock
        self._begun: float | None = None
        self._epochs = 0
        self._length = 0

    @property
    def num_ended(self) -> int:
        """Trials that ended, of this run of the sweep and of earlier ones."""
        return sum(self.states.values())

    def take(self, event: SweepEvent) -> None:
        """Take in an event of the sweep, so that the board shows it."""
        if event.kind == "stopping":
            self.stopping = True
            return
        if self._begun is None:
            self._begun = self._clock()
        if event.kind == "finished":
            self.rows.pop(event.trial_id, None)
            self.states[event.state] += 1
            self._compare(event)
            return
        row = self.rows.setdefault(event.trial_id, Row())
        self._epochs += event.kind == "epoch"
        self._length = max(self._length, event.num_epochs)
        row.epochs, row.num_epochs, row.params = event.epochs, event.num_epochs, event.params
        row.phase = PHASES.get(event.phase, event.phase)
        row.accuracy = row.accuracy if event.accuracy is None else event.accuracy

    def _compare(self, event: SweepEvent) -> None:
        if self._objective is None or self._objective[0] not in event.objectives:
            return
        metric, mode = self._objective
        value = event.objectives[metric]
        if self._best is None or (value > self._best[0] if mode == "max" else value < self._best[0]):
            self._best = (value, event.trial_id)

    @property
    def rate(self) -> float | None:
        """Epochs per minute of all trials together since the first event."""
        elapsed = 0.0 if self._begun is None else self._clock() - self._begun
        return 60 * self._epochs / elapsed if self._epochs and elapsed > 0 else None

    @property
    def minutes_left(self) -> float | None:
        """Minutes until the last trial ends; None as long as there is no rate.

        It is assumed that no trial is stopped early, and that the trials to come are as long as the longest so far.
        """
        if not self.rate or not self._length:
            return None
        running = sum(row.num_epochs - row.epochs for row in self.rows.values())
        return (running + self._length * max(0, self.planned - self.num_ended - len(self.rows))) / self.rate

    def headline(self) -> str:
        """The sweep in one line or two."""
        from .sweeping import number

        states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(self.states.items()))
        parts = [f"{self.num_ended}/{self.planned} trials ended{f' ({states})' if states else ''}"]
        if self._best is not None and self._objective is not None:
            parts.append(f"best {number(self._objective[0], self._best[0])} (trial {self._best[1]})")
        if self.rate:
            parts.append(f"{self.rate:.3g} epochs/min")
        if self.minutes_left is not None and not self.stopping:
            parts.append(f"at most {duration(self.minutes_left)} left")
        if self.stopping:
            parts.append("stopping")
        return "; ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line, and below it a table with the settings of each trial under its row."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from .sweeping import number, settings

        yield Text(self.headline())
        for trial_id, row in sorted(self.rows.items()):
            grid = Table.grid(padding=(0, 2))
            grid.add_row(
                f"trial {trial_id}",
                f"{row.phase:<8}",
                f"epoch {row.epochs}/{row.num_epochs}",
                ProgressBar(total=row.num_epochs, completed=row.epochs, width=20),
                "" if row.accuracy is None else f"held out {number('accuracy', row.accuracy)}",
            )
            yield grid
            # Two columns are free: the terminal's own ^C after the last line would begin one that nobody counts.
            yield Text("\n".join(indented(settings(row.params), options.max_width - 2)), style="dim")


def indented(words: str, columns: int) -> list[str]:
    """Words as lines that are indented and end between words."""
    indent = 4 * " "
    return textwrap.wrap(
        words,
        columns,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def duration(minutes: float) -> str:
    """A number of minutes in words.

    Example:
        >>> duration(0.5), duration(75)
        ('1 min', '1 h 15 min')
    """
    hours, rest = divmod(max(1, round(minutes)), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"
