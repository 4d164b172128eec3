"""Frames -> interactive charts of the report, as plain plotly descriptions; colours of axes and text are the page's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.colors import to_hex

from ddarts_core.errors import UserError

from .compare import front_label
from .figures import COLOURS, by_epoch, finished, metric_frame
from .parameter_figures import Scale, proposals
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
    """Traces and the layout of two axes, as plain data."""
    axis: dict[str, Any] = {"title": {"text": x}}
    if x in ("epoch", "trial"):  # whole numbers only
        axis["dtick"] = max(1, math.ceil(max((max(trace["x"]) for trace in data if trace["x"]), default=1) / 10))
    base = {"xaxis": axis, "yaxis": {"title": {"text": y}}, "hovermode": "closest"}
    return {"data": list(data), "layout": {**base, **layout}}


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
        for trace in _band(group, f"{method} (n = {group['trial_id'].nunique()})", COLOURS[index % len(COLOURS)])
    ]
    return chart(traces, "epoch", "", yaxis=_percent_axis(f"held-out {metric.replace('_', ' ')}"))


def saturation(epochs: pd.DataFrame, trials: pd.DataFrame) -> Chart | None:
    """Share of operations with sigma(alpha) over 0.9 and under 0.1, mean over trials; None when not recorded."""
    traces: list[dict[str, Any]] = []
    for metric, label, colour in (
        ("over_0.9", "σ(α) > 0.9", COLOURS[0]),
        ("under_0.1", "σ(α) < 0.1", COLOURS[1]),
    ):
        frame = _recorded(epochs, "saturation", metric)
        if frame is not None:
            rows = finished(frame.merge(trials[["study", "trial_id", "state"]]))
            traces += _band(rows, label, colour)
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
        "colorscale": [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b2182b"]],
        "colorbar": {"title": {"text": "M (nats)"}, "thickness": 12},
        "hovertemplate": "cell %{y}, epoch %{x}: %{z:.4g} nats<extra></extra>",
    }
    return chart([heat], "epoch", "cell", yaxis={"title": {"text": "cell"}, "dtick": 1})


def pareto(
    ranked: Sequence[Row], cost: str = "parameters", label: str = "parameters", reference: float | None = None
) -> Chart | None:
    """Accuracy against a cost of completed trials, the front joined; None when fewer than two have both.

    Trials beyond a limit are dots and no part of the front. With a reference cost the legend has the front's
    hypervolume (`compare.front_volume`). Beside the front at most `POINTS` trials are shown.
    """
    metric = sought(ranked)
    found = [(value(row, cost), value(row, metric), row) for row in ranked]
    known = [point for point in found if not (math.isnan(point[0]) or math.isnan(point[1]))]
    if len(known) < 2:
        return None
    fair = {id(row) for row in contenders([row for _, _, row in known])}
    places = [i for i, (_, _, row) in enumerate(known) if id(row) in fair]
    points = [(x, y) for x, y, row in known if id(row) in fair]
    front = {places[i] for i in pareto_front(points, [False, True])}
    joined = sorted((known[i][0], known[i][1]) for i in front)
    name = front_label(points, reference, label)
    shown = sorted({*front, *evenly([i for i in range(len(known)) if i not in front], POINTS)})
    known = [known[i] for i in shown]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "x": [x for x, _, _ in known],
        "y": [plain(y) for _, y, _ in known],
        "text": [str(row["trial_id"]) for _, _, row in known],
        "marker": {"size": 9, "color": [COLOURS[1] if i in front else COLOURS[0] for i in shown]},
        "hovertemplate": f"trial %{{text}}<br>%{{x:,}} {label}, %{{y:.2%}}<extra></extra>",
        "showlegend": False,
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "showlegend": True,
        "name": name,
        "x": [x for x, _ in joined],
        "y": [plain(y) for _, y in joined],
        "line": {"shape": "hv", "color": COLOURS[1], "width": 1.5},
        "hoverinfo": "skip",
    }
    return chart([line, dots], label, "", yaxis=_close_percent_axis(f"held-out {metric.replace('_', ' ')}"))


def slices(ranked: Sequence[Row], limit: int = 12) -> list[tuple[str, Chart]]:
    """The first objective against each proposed parameter that took several values: (dotted path, chart).

    `ranked` is in order of rank; at most `POINTS` of the trials are shown.
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
        numeric = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x, _, _ in pairs)
        xs: list[Any] = [x if numeric else str(x) for x, _, _ in pairs]
        positive = numeric and min(xs) > 0 and max(xs) / min(xs) > 50
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
        kind = "log" if positive else "linear" if numeric else "category"
        axis = {"title": {"text": path}, "type": kind}
        charts.append((path, chart([dots], path, "objective", xaxis=axis, yaxis=heights)))
    return charts[:limit]


def skips(epochs: pd.DataFrame, trials: pd.DataFrame) -> Chart | None:
    """Skip connections of the genotype by epoch, mean over trials; None when not recorded."""
    frame = _recorded(epochs, "discretised", "skip_connections")
    if frame is None:
        return None
    rows = finished(frame.merge(trials[["study", "trial_id", "state"]]))
    axis = {"title": {"text": "skip connections"}, "rangemode": "tozero", "minallowed": 0}
    return chart(_band(rows, "skip connections", COLOURS[3], ".1f"), "epoch", "skip connections", yaxis=axis)


def importance(shares: Mapping[str, float]) -> Chart | None:
    """Share of the objective's variance that each setting explains by itself, largest on top; None when there is none.

    The shares need not sum to 1: the rest is interactions and noise.
    """
    if not shares:
        return None
    names = sorted(shares, key=lambda name: shares[name])
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [plain(shares[name]) for name in names],
        "y": names,
        "marker": {"color": COLOURS[0]},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    axis = {"title": {"text": "share of variance"}, "tickformat": ".0%", "range": [0, 1.08]}
    return chart([bars], "", "", xaxis=axis)


def parallel(trials: pd.DataFrame) -> Chart | None:
    """Settings and objective of completed trials as parallel coordinates; None with fewer than two trials.

    At most `LINES` trials, evenly chosen by objective.
    """
    try:
        frame = proposals(trials)
    except UserError:
        return None
    if len(frame) < 2:
        return None
    paths = [*frame.columns[2:], "objective"]
    scales = [Scale(frame[path].tolist()) for path in paths]
    places = list(range(len(paths)))
    frame = frame.loc[sorted(evenly(frame["objective"].sort_values(kind="stable").index.tolist(), LINES))]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": places,
            "y": [plain(scale.height(v)) for scale, v in zip(scales, row, strict=True)],
            "text": [_short(v) for v in row],
            "line": {"color": _viridis(scales[-1].height(row[-1])), "width": 1.5},
            "marker": {"size": 5},
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
    return chart(traces, "", "", xaxis=axis, yaxis=hidden, annotations=marks, margin=margin)


def _viridis(height: float) -> str:
    return to_hex(mpl.colormaps["viridis"](0.2 + 0.8 * height))  # the darkest end would be lost on a dark page


def _short(found: Any) -> str:
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return "not set"
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def _recorded(epochs: pd.DataFrame, split: str, metric: str) -> pd.DataFrame | None:
    """The metric's rows; None when no trial recorded it, which a page says instead of failing."""
    try:
        return metric_frame(epochs, split, metric)
    except UserError:
        return None


def objective_axis(names: Iterable[str], values: Iterable[float]) -> dict[str, Any]:
    """Of the first objective, the same for all charts of these trials: within 0 and 1 if it is an accuracy.

    `names` are the metrics that the trials give for it, `values` theirs; NaN is none.
    """
    found = [number for number in values if not math.isnan(number)]
    if not found or not all("accuracy" in name for name in names):
        return {"title": {"text": "objective"}}
    margin = max(0.08 * (max(found) - min(found)), 0.002)
    return _close_percent_axis("objective") | {"range": [min(found) - margin, max(found) + margin]}


def _close_percent_axis(title: str) -> dict[str, Any]:
    """For trials that are close together, as the best ones are."""
    return _percent_axis(title) | {"tickformat": ".1%"}


def _percent_axis(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "tickformat": ".0%", "minallowed": 0, "maxallowed": 1}


def _band(rows: pd.DataFrame, label: str, colour: str, number: str = ".2%") -> list[dict[str, Any]]:
    """A mean line and, where several trials give one, its 95 % interval."""
    estimates = list(by_epoch(rows).items())
    xs = [e for e, _ in estimates]
    line = {
        "type": "scatter",
        "mode": "lines+markers" if len(xs) == 1 else "lines",
        "name": label,
        "x": xs,
        "y": [plain(estimate.mean) for _, estimate in estimates],
        "line": {"color": colour, "width": 2.2},
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
