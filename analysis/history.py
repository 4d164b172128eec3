"""How a study came to its best objective: each trial's objective and the best so far, as a figure and as a chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddarts_core.ground.errors import UserError

from .canvas import axes, legend
from .charts import POINTS, Chart, chart, objective_axis, plain
from .palette import COLOURS, dash_of, shape_of
from .ranking import Row, contenders, evenly, value


@dataclass(frozen=True)
class Step:
    """A completed trial in the order of the numbers, and the best objective up to it.

    Attributes:
        number: the number of the trial.
        trial_id: the name of the trial.
        objective: the trial's value of the first objective.
        best: the best value of this trial and the earlier ones; NaN while none of them may be best.
    """

    number: int
    trial_id: str
    objective: float
    best: float


def history(trials: Sequence[Row], lowest: bool = False) -> list[Step]:
    """The completed trials that have an objective, in the order of their numbers, each with the best so far.

    A trial beyond a limit of the sweep is a step, but never the best, unless all are beyond (`contenders`).

    Args:
        trials: rows of the table `trials` of one study.
        lowest: whether the objective is to be low.

    Example:
        >>> same = {"state": "COMPLETED", "trial_id": "00000"}
        >>> rows = [same | {"number": number, "objective": found} for number, found in enumerate((2, 5, 3))]
        >>> [step.best for step in history(rows)]
        [2.0, 5.0, 5.0]
    """
    done = [row for row in trials if row["state"] == "COMPLETED" and not math.isnan(value(row, "objective"))]
    fair = {id(row) for row in contenders(done)}
    steps, best = [], math.nan
    for row in sorted(done, key=lambda row: int(row["number"])):
        found = value(row, "objective")
        if id(row) in fair and (math.isnan(best) or (found < best if lowest else found > best)):
            best = found
        steps.append(Step(int(row["number"]), str(row["trial_id"]), found, best))
    return steps


def is_lowest(objectives: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first of a study's objectives [{metric, mode}] is to be low."""
    return bool(objectives) and objectives[0].get("mode") == "min"


def figure(histories: Mapping[str, Sequence[Step]], label: str) -> Figure:
    """Objectives of one or more studies by trial as dots, and the best so far of each as a line.

    Args:
        histories: the result of `history` for each study, by name of the study.
        label: the label of the objective.

    Raises:
        UserError: no completed trial has an objective.
    """
    if not any(histories.values()):
        raise UserError("no completed trial has an objective: there is no history to show yet")
    drawn, ax = axes("trial", label)
    several = len(histories) > 1
    for index, (study, steps) in enumerate(histories.items()):
        colour = COLOURS[index % len(COLOURS)]
        numbers = [step.number for step in steps]
        shape, dash = shape_of(index)[0], dash_of(index)[0]
        objectives = [step.objective for step in steps]
        ax.scatter(numbers, objectives, s=16, color=colour, marker=shape, alpha=0.55, linewidth=0)
        name = f"{study}, best so far" if several else "best so far"
        line = COLOURS[1] if not several else colour
        ax.step(numbers, [step.best for step in steps], dash, where="post", color=line, linewidth=1.5, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax)
    return drawn


def history_chart(histories: Mapping[str, Sequence[Step]], metric: str) -> Chart | None:
    """The history as a chart of the report; None if no study has two completed trials with an objective.

    Of more than `POINTS` trials of a study, so many dots are shown, evenly chosen by number.
    """
    histories = {study: steps for study, steps in histories.items() if steps}
    if not any(len(steps) > 1 for steps in histories.values()):
        return None
    several = len(histories) > 1
    traces: list[dict[str, Any]] = []
    for index, (study, steps) in enumerate(histories.items()):
        colour = COLOURS[index % len(COLOURS)]
        shown = evenly(steps, POINTS)
        of = f"{study}, " if several else ""
        dots = {
            "type": "scatter",
            "mode": "markers",
            "name": f"{of}trials",
            "x": [step.number for step in shown],
            "y": [plain(step.objective) for step in shown],
            "text": [step.trial_id for step in shown],
            "marker": {"size": 7, "color": colour, "symbol": shape_of(index)[1], "opacity": 0.6},
            "hovertemplate": f"{of}trial %{{text}}: %{{y}}<extra></extra>",
            "showlegend": False,
        }
        changes = [step for i, step in enumerate(steps) if i in (0, len(steps) - 1) or step.best != steps[i - 1].best]
        line = {
            "type": "scatter",
            "mode": "lines",
            "name": f"{of}best so far",
            "x": [step.number for step in changes],
            "y": [plain(step.best) for step in changes],
            "line": {
                "shape": "hv",
                "color": colour if several else COLOURS[1],
                "width": 2.2,
                "dash": dash_of(index)[1],
            },
            "hovertemplate": f"{of}best up to trial %{{x}}: %{{y}}<extra></extra>",
            "showlegend": True,
        }
        traces += [dots, line]
    values = [step.objective for steps in histories.values() for step in steps]
    return chart(traces, "trial", "", yaxis=objective_axis([metric], values))
