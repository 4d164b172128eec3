"""Frames -> interactive charts of the report, as plain plotly descriptions; colours of axes and text are the page's."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ddarts_core.ground.errors import UserError

from .compare import front_label
from .frames import by_epoch, finished, metric_frame
from .palette import COLOURS, LEGEND, dash_of, shape_of
from .ranking import Row, contenders, evenly, pareto_front, sought, value

Chart = dict[str, Any]

#: Trials that stand out of a chart of all trials, by colour and in its legend.
HIGHLIGHTED = 5

#: Lines of other trials that a chart has at most; of more trials, these are evenly chosen by rank.
LINES = 100

#: Dots of a chart with one per trial, chosen in the same way.
POINTS = 300

_GREY = "rgba(128,135,148,0.65)"


def chart(data: Sequence[Mapping[str, Any]], x: str, y: str, **layout: Any) -> Chart:
    """Traces and the layout of two axes, as plain data; long names have several lines in the legend."""
    axis: dict[str, Any] = {"title": {"text": x}}
    if x in ("epoch", "trial"):  # whole numbers only
        axis["dtick"] = max(1, math.ceil(max((max(trace["x"]) for trace in data if trace["x"]), default=1) / 10))
    base = {"xaxis": axis, "yaxis": {"title": {"text": y}}, "hovermode": "closest"}
    named = [{**trace, "name": wrapped(trace["name"])} if "name" in trace else trace for trace in data]
    return {"data": named, "layout": {**base, **layout}}


def wrapped(name: str) -> str:
    """A name in lines that fit into a legend."""
    return "<br>".join(textwrap.wrap(name, LEGEND)) or name


def plain(number: float, digits: int = 5) -> float | None:
    """A number for JSON: NaN and infinities become null, the others are rounded."""
    return None if math.isnan(number) or math.isinf(number) else float(f"{number:.{digits}g}")


def curves(epochs: pd.DataFrame, best: Sequence[str], metric: str = "accuracy") -> Chart | None:
    """Held-out accuracy, or another metric, by epoch: the best trials in colour, others in grey; None without any.

    `best` has the completed trials, best first; those of the records that are not among them rank behind. Of more than
    `LINES` others, so many are drawn, evenly chosen by rank, and the legend says of how many.
    """
    frame = _recorded(epochs, "held_out", metric)
    if frame is None:
        return None
    places = {trial: place for place, trial in enumerate(best[:HIGHLIGHTED])}
    traces: list[dict[str, Any]] = []
    others_named = False
    groups = {str(name): group for name, group in frame.groupby("trial_id")}
    others = [trial for trial in dict.fromkeys([*best, *groups]) if trial in groups and trial not in places]
    drawn = evenly(others, LINES)
    label = "other trials"
    if len(drawn) < len(others):
        label = f"{len(drawn)} of {len(others):,} other trials, evenly by rank"
    for trial in [*drawn, *(trial for trial in reversed(places) if trial in groups)]:
        group = groups[trial]
        place = places.get(trial)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(group) == 1 else "lines",
                "x": group["epoch"].tolist(),
                "y": [plain(v) for v in group["value"]],
                "name": label if place is None else f"#{place + 1}: {trial}",
                "legendgroup": "others" if place is None else trial,
                "showlegend": place is not None or not others_named,
                "legendrank": 1000 if place is None else place,
                "line": {"color": _GREY if place is None else COLOURS[place], "width": 1 if place is None else 2.2},
                "hovertemplate": f"trial {trial}<br>epoch %{{x}}: %{{y:.2%}}<extra></extra>",
            }
        )
        others_named = others_named or place is None
    return chart(traces, "epoch", "", yaxis=_percent_axis(f"held-out {metric.replace('_', ' ')}"))


def methods(epochs: pd.DataFrame, trials: pd.DataFrame, metric: str = "accuracy") -> Chart | None:
    """Mean held-out accuracy of each method with its 95 % interval over trials; None with fewer than two methods."""
    frame = _recorded(epochs, "held_out", metric)
    if frame is None:
        return None
    frame = finished(frame.merge(trials[["study", "trial_id", "method", "state"]]))
    if frame["method"].nunique() < 2:
        return None
    traces = [
        trace
        for index, (method, group) in enumerate(frame.groupby("method", sort=True))
        for trace in _band(group, f"{method} (n = {group['trial_id'].nunique()})", index)
    ]
    return chart(traces, "epoch", "", yaxis=_percent_axis(f"held-out {metric.replace('_', ' ')}"))


def saturation(epochs: pd.DataFrame, trials: pd.DataFrame) -> Chart | None:
    """Share of operations with sigma(alpha) over 0.9 and under 0.1, mean over trials; None when not recorded."""
    traces: list[dict[str, Any]] = []
    for index, (metric, label) in enumerate((("over_0.9", "σ(α) > 0.9"), ("under_0.1", "σ(α) < 0.1"))):
        frame = _recorded(epochs, "saturation", metric)
        if frame is not None:
            rows = finished(frame.merge(trials[["study", "trial_id", "state"]]))
            traces += _band(rows, label, index)
    if not traces:
        return None
    return chart(traces, "epoch", "share of operations", yaxis=_percent_axis("share of operations"))


def contributions(frame: pd.DataFrame, trial_id: str) -> Chart | None:
    """Marginal contribution of each cell of a trial over its epochs; None when not recorded."""
    rows = frame[frame["trial_id"] == trial_id]
    if rows["contribution"].dropna().empty:
        return None
    table = rows.pivot_table(index="cell", columns="epoch", values="contribution", aggfunc="last")
    limit = float(table.abs().max().max()) or 1.0
    heat = {
        "type": "heatmap",
        "x": [int(e) for e in table.columns],
        "y": [int(c) for c in table.index],
        "z": [[plain(v, 4) for v in row] for row in table.to_numpy()],
        "zmin": -limit,
        "zmax": limit,
        "colorscale": [[0, "--low"], [0.5, "--card"], [1, "--high"]],
        "colorbar": {"title": {"text": "M (nats)"}, "thickness": 12},
        "hovertemplate": "cell %{y}, epoch %{x}: %{z:.4g} nats<extra></extra>",
    }
    return chart([heat], "epoch", "cell", yaxis={"title": {"text": "cell"}, "dtick": 1})


def studies(frames: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], metric: str = "accuracy") -> Chart | None:
    """Mean held-out accuracy of several studies, each of (epochs, trials), with 95 % intervals over their trials."""
    traces: list[dict[str, Any]] = []
    for index, (study, (epochs, trials)) in enumerate(frames.items()):
        frame = _recorded(epochs, "held_out", metric)
        if frame is not None:
            rows = finished(frame.merge(trials[["study", "trial_id", "state"]]))
            traces += _band(rows, f"{study} (n = {rows['trial_id'].nunique()})", index)
    return chart(traces, "epoch", "", yaxis=_percent_axis(f"held-out {metric.replace('_', ' ')}")) if traces else None


def pareto(
    ranked: Sequence[Row], cost: str = "parameters", label: str = "parameters", reference: float | None = None
) -> Chart | None:
    """Accuracy against a cost of completed trials, the front joined; None when fewer than two have both.

    Trials beyond a limit are dots and no part of the front. With a reference cost the legend has the front's
    hypervolume (`compare.front_volume`). Beside the front at most `POINTS` trials are shown.
    """
    return fronts({"": ranked}, cost, label, reference)


def fronts(
    studies: Mapping[str, Sequence[Row]],
    cost: str = "parameters",
    label: str = "parameters",
    reference: float | None = None,
) -> Chart | None:
    """`pareto` of several studies over each other, each in its colour; None when no study has two such trials."""
    traces: list[dict[str, Any]] = []
    for index, (study, ranked) in enumerate(studies.items()):
        traces += _front(ranked, cost, label, reference, index, f"{study}, " if study else "")
    metric = sought(row for ranked in studies.values() for row in ranked)
    axis = _close_percent_axis(f"held-out {metric.replace('_', ' ')}")
    return chart(traces, label, "", yaxis=axis) if traces else None


def _front(
    ranked: Sequence[Row], cost: str, label: str, reference: float | None, index: int, of: str
) -> list[dict[str, Any]]:
    """The front and the dots of the study of this number, in two colours if it is alone; empty with fewer than two."""
    colour = COLOURS[index % len(COLOURS)]
    colours = (colour, colour if of else COLOURS[1])
    metric = sought(ranked)
    found = [(value(row, cost), value(row, metric), row) for row in ranked]
    known = [point for point in found if not (math.isnan(point[0]) or math.isnan(point[1]))]
    if len(known) < 2:
        return []
    fair = {id(row) for row in contenders([row for _, _, row in known])}
    places = [i for i, (_, _, row) in enumerate(known) if id(row) in fair]
    points = [(x, y) for x, y, row in known if id(row) in fair]
    front = {places[i] for i in pareto_front(points, [False, True])}
    joined = sorted((known[i][0], known[i][1]) for i in front)
    shown = sorted({*front, *evenly([i for i in range(len(known)) if i not in front], POINTS)})
    known = [known[i] for i in shown]
    line = {
        "type": "scatter",
        "mode": "lines",
        "showlegend": True,
        "name": of + front_label(points, reference, label),
        "x": [x for x, _ in joined],
        "y": [plain(y) for _, y in joined],
        "line": {"shape": "hv", "color": colours[1], "width": 1.5, "dash": dash_of(index)[1]},
        "hoverinfo": "skip",
    }
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": f"{of}trials",
        "x": [x for x, _, _ in known],
        "y": [plain(y) for _, y, _ in known],
        "text": [str(row["trial_id"]) for _, _, row in known],
        "marker": {"size": 9, "color": [colours[i in front] for i in shown], "symbol": shape_of(index)[1]},
        "hovertemplate": f"{of}trial %{{text}}<br>%{{x:,}} {label}, %{{y:.2%}}<extra></extra>",
        "showlegend": False,
    }
    return [line, dots]


def skips(epochs: pd.DataFrame, trials: pd.DataFrame) -> Chart | None:
    """Skip connections of the genotype by epoch, mean over trials; None when not recorded."""
    frame = _recorded(epochs, "discretised", "skip_connections")
    if frame is None:
        return None
    rows = finished(frame.merge(trials[["study", "trial_id", "state"]]))
    axis = {"title": {"text": "skip connections"}, "rangemode": "tozero", "minallowed": 0}
    return chart(_band(rows, "skip connections", 3, ".1f"), "epoch", "skip connections", yaxis=axis)


def _recorded(epochs: pd.DataFrame, split: str, metric: str) -> pd.DataFrame | None:
    """The metric's rows; None when no trial recorded it, which a page says instead of failing."""
    try:
        return metric_frame(epochs, split, metric)
    except UserError:
        return None


def objective_axis(names: Iterable[str], values: Iterable[float]) -> dict[str, Any]:
    """The axis of the first objective, the same in all charts of these trials. It lies within 0 and 1 for an accuracy.

    `names` are the metrics that the trials give for it, `values` theirs; NaN is none.
    """
    found = [number for number in values if not math.isnan(number)]
    if not found or not all("accuracy" in name for name in names):
        return {"title": {"text": "objective"}}
    margin = max(0.08 * (max(found) - min(found)), 0.002)
    return _close_percent_axis("objective") | {"range": [min(found) - margin, max(found) + margin]}


def _close_percent_axis(title: str) -> dict[str, Any]:
    """An axis for trials that are close together, as the best ones are."""
    return _percent_axis(title) | {"tickformat": ".1%"}


def _percent_axis(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "tickformat": ".0%", "minallowed": 0, "maxallowed": 1}


def _band(rows: pd.DataFrame, label: str, index: int, number: str = ".2%") -> list[dict[str, Any]]:
    """The mean line of the series of this number and, where several trials give one, its 95 % interval."""
    colour = COLOURS[index % len(COLOURS)]
    estimates = list(by_epoch(rows, shares=number.endswith("%")).items())
    xs = [e for e, _ in estimates]
    line = {
        "type": "scatter",
        "mode": "lines+markers" if len(xs) == 1 else "lines",
        "name": label,
        "x": xs,
        "y": [plain(estimate.mean) for _, estimate in estimates],
        "line": {"color": colour, "width": 2.2, "dash": dash_of(index)[1]},
        "hovertemplate": f"{label}<br>epoch %{{x}}: %{{y:{number}}}<extra></extra>",
    }
    known = [(e, estimate) for e, estimate in estimates if not math.isnan(estimate.low)]
    if not known:
        return [line]
    area = {
        "type": "scatter",
        "mode": "lines",
        "x": [e for e, _ in known] + [e for e, _ in reversed(known)],
        "y": [plain(estimate.high) for _, estimate in known] + [plain(estimate.low) for _, estimate in reversed(known)],
        "fill": "toself",
        "fillcolor": _transparent(colour),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [area, line]


def _transparent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
