"""The part of a report in which searches are judged by a truth (`regret`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from ddarts_core.ground.errors import UserError

from . import page
from .charts import Chart, chart
from .palette import COLOURS, dash_of, shape_of
from .regret import judge, tables, truth_words
from .study import Study, with_alphas
from .truth import Truth, is_truth, truth_of

_CAPTIONS = {
    "regret": (
        "What searches found",
        "The genotypes of the truth in the order of their accuracy, and on them what each method found. The best is on "
        "the left.",
    ),
    "simulated": (
        "Simulated searches",
        "Mean regret of the best genotype so far by the number of trainings that were looked up, over many runs.",
    ),
}


def judged(studies: Sequence[Study], ids: Iterator[int]) -> Iterator[str]:
    """The HTML in which each truth among the studies judges the searches of the others; nothing without a truth.

    If a search had other images than the truth, the page names that search with the reason, and no search is judged.

    Args:
        studies: all studies of the page.
        ids: gives each chart a number of its own on the page.
    """
    for study in studies:
        if not is_truth(study):
            continue
        truth = truth_of(study)
        others = [_read_again(other) for other in studies if not is_truth(other)]
        yield f"<h2>Judged by {escape(study.name)}</h2>"
        try:
            found = judge(truth, others)
        except UserError as error:
            yield f'<p class="note">{escape(str(error))}.</p>'
            found = judge(truth, [])
        yield f"<p>{escape(truth_words(found['truth']))}</p>"
        for head, rows in tables(found):
            yield page.table(head, rows, numeric=range(1, len(head)))
        drawn = {"regret": regret_chart(truth, found), "simulated": simulation_chart(found)}
        parts = [page.chart(spec, *_CAPTIONS[name], f"c{next(ids)}") for name, spec in drawn.items()]
        yield f'<div class="grid">{"".join(parts)}</div>'


def _read_again(study: Study) -> Study:
    """The study with the alphas of its completed trials, which reports leave out."""
    trials = tuple(with_alphas(study, trial) if trial in study.completed else trial for trial in study.trials)
    return Study(study.folder, study.info, trials)


def regret_chart(truth: Truth, found: Mapping[str, Any]) -> Chart:
    """Accuracies of the truth in descending order, and the genotypes that each method found."""
    rows = truth.architectures.sort_values("rank")
    places = list(range(1, len(rows) + 1))
    order = dict(zip(rows.index.tolist(), places, strict=True))
    line = {"type": "scatter", "mode": "lines", "x": places, "y": rows["accuracy"].tolist(), "name": "all genotypes"}
    traces = [{**line, "line": {"color": "rgba(128,135,148,0.65)"}}]
    searches = pd.DataFrame(found["searches"])
    for index, (method, of_method) in enumerate(searches.groupby("method") if len(searches) else ()):
        known = of_method.dropna(subset="regret")
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [order[int(number)] for number in known["number"]],
                "y": known["accuracy"].tolist(),
                "name": str(method),
                "marker": {
                    "color": COLOURS[index % len(COLOURS)],
                    "symbol": shape_of(index)[1],
                    "size": 8,
                },
            }
        )
    return chart(traces, "rank of the genotype in the truth", "accuracy (held out)")


def simulation_chart(found: Mapping[str, Any]) -> Chart:
    """Mean regret by the number of trainings, one curve per simulated search."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": list(range(1, len(curve) + 1)),
            "y": [100 * one["mean"] for one in curve],
            "name": name,
            "line": {"color": COLOURS[index % len(COLOURS)], "dash": dash_of(index)[1]},
        }
        for index, (name, curve) in enumerate(found["simulated"].items())
    ]
    return chart(traces, "trainings", "regret, points")
