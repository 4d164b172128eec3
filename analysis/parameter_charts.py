"""Interactive charts about what a sweep varied: importance, slices, parallel coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.colors import to_hex

from ddarts_core.ground.errors import UserError

from .charts import LINES, POINTS, Chart, chart, objective_axis, plain
from .palette import COLOURS
from .parameter_figures import (
    GOODNESS,
    Scale,
    around,
    is_logarithmic,
    is_numeric,
    is_whole,
    log_ticks,
    proposals,
)
from .ranking import Row, evenly, value


def slices(ranked: Sequence[Row], logs: Collection[str] = (), limit: int = 12) -> list[tuple[str, Chart]]:
    """The first objective against each proposed parameter that took several values: (dotted path, chart).

    `ranked` is in order of rank; at most `POINTS` of the trials are shown. `logs` were sampled on a logarithmic scale.
    """
    proposals = [json.loads(row["params_json"]) for row in ranked]
    names = {next(iter(json.loads(row["objectives_json"])), "") for row in ranked}
    heights = objective_axis(names, [value(row, "objective") for row in ranked])
    charts = []
    for path in sorted({path for proposal in proposals for path in proposal}):
        pairs = [
            (proposal[path], value(row, "objective"), str(row["trial_id"]))
            for proposal, row in zip(proposals, ranked, strict=True)
            if path in proposal and not math.isnan(value(row, "objective"))
        ]
        if len({str(x) for x, _, _ in pairs}) < 2:
            continue
        numeric = is_numeric([x for x, _, _ in pairs])
        xs: list[Any] = [x if numeric else str(x) for x, _, _ in pairs]
        shown = evenly(list(zip(xs, pairs, strict=True)), POINTS)
        dots = {
            "type": "scatter",
            "mode": "markers",
            "x": [x for x, _ in shown],
            "y": [plain(y) for _, (_, y, _) in shown],
            "text": [trial for _, (_, _, trial) in shown],
            "marker": {"size": 8, "color": COLOURS[0], "opacity": 0.75},
            "hovertemplate": "trial %{text}<br>%{x}: %{y:.4g}<extra></extra>",
        }
        axis = _setting_axis(path, xs, path in logs)
        charts.append((path, chart([dots], path, "objective", xaxis=axis, yaxis=heights)))
    return charts[:limit]


def _setting_axis(path: str, values: Sequence[Any], sampled: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": path}, "type": "linear" if is_numeric(values) else "category"}
    if is_logarithmic(values, sampled):
        ticks = log_ticks(min(values), max(values))
        return axis | {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:.3g}" for tick in ticks]}
    return axis | ({"dtick": max(1, math.ceil((max(values) - min(values)) / 8))} if is_whole(values) else {})


def importance(shares: Mapping[str, tuple[float, float, float]]) -> Chart | None:
    """Share of the objective's variance that each setting explains by itself, largest on top; None when there is none.

    Each with the interval in which it lies for most trees. The shares need not sum to 1: the rest is interactions and
    noise.
    """
    if not shares:
        return None
    names = sorted(shares, key=lambda name: shares[name])
    below, above = zip(*(around(shares[name]) for name in names), strict=True)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [plain(shares[name][0]) for name in names],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [plain(number) for number in above],
            "arrayminus": [plain(number) for number in below],
            "color": COLOURS[1],
        },
        "customdata": [[plain(end) for end in shares[name][1:]] for name in names],
        "y": names,
        "marker": {"color": COLOURS[0]},
        "hovertemplate": "%{y}: %{x:.1%} (%{customdata[0]:.1%} to %{customdata[1]:.1%})<extra></extra>",
    }
    axis = {"title": {"text": "share of variance"}, "tickformat": ".0%", "range": [0, 1.08]}
    return chart([bars], "", "", xaxis=axis)


def parallel(trials: pd.DataFrame, logs: Collection[str] = ()) -> Chart | None:
    """Settings and objective of completed trials as parallel coordinates; None with fewer than two trials.

    At most `LINES` trials, evenly chosen by objective. `logs` were sampled on a logarithmic scale.
    """
    try:
        frame = proposals(trials)
    except UserError:
        return None
    if len(frame) < 2:
        return None
    paths = [*frame.columns[2:], "objective"]
    scales = [Scale(frame[path].tolist(), path in logs) for path in paths]
    places = list(range(len(paths)))
    frame = frame.loc[sorted(evenly(frame["objective"].sort_values(kind="stable").index.tolist(), LINES))]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": places,
            "y": [plain(scale.height(v)) for scale, v in zip(scales, row, strict=True)],
            "text": [_short(v) for v in row],
            "line": {"color": to_hex(GOODNESS(scales[-1].height(row[-1]))), "width": 1.5},
            "marker": {"size": 5, "color": [plain(scales[-1].height(row[-1]))] * len(paths), "coloraxis": "coloraxis"},
            "hovertemplate": f"trial {trial}: %{{text}}<extra></extra>",
            "showlegend": False,
        }
        for trial, row in zip(frame["trial_id"], frame[paths].itertuples(index=False, name=None), strict=True)
    ]
    marks = [
        {
            "x": place,
            "y": height,
            "text": text,
            "showarrow": False,
            "xanchor": "left",
            "xshift": 4,
            "font": {"size": 10},
        }
        for place, scale in zip(places, scales, strict=True)
        for height, text in scale.marks
    ]
    names = [path.replace(".", ".<br>") for path in paths]
    axis = {"tickvals": places, "ticktext": names, "range": [-0.4, len(paths) - 0.4], "zeroline": False}
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False}
    margin = {"l": 12, "r": 60, "t": 12, "b": 12}  # on the right room for the last label when labels are turned
    ends, texts = zip(*scales[-1].marks, strict=True)
    colours = {
        "cmin": 0,
        "cmax": 1,
        "colorscale": [[place, to_hex(GOODNESS(place))] for place in (0, 0.5, 1.0)],
        "colorbar": {"title": {"text": "objective"}, "thickness": 12, "tickvals": ends, "ticktext": texts},
    }
    return chart(traces, "", "", xaxis=axis, yaxis=hidden, annotations=marks, margin=margin, coloraxis=colours)


def _short(found: Any) -> str:
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return "not set"
    return f"{found:.4g}" if isinstance(found, float) else str(found)
