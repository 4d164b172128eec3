"""Frames -> matplotlib figures; `save` writes them as PNG, SVG or PDF. Every function leaves its frames unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddarts_core.ground.errors import UserError

from .canvas import axes, dress, legend, new_figure, save
from .compare import front_label
from .frames import by_epoch, final_values, finished, metric_frame
from .palette import COLOURS, dash_of
from .ranking import contenders, pareto_front
from .statistics import Estimate, mean_interval
from .tables import searched

__all__ = [
    "accuracy_curves",
    "contributions_map",
    "decided_against_w_zero_one",
    "loss_against_w_ablation",
    "pareto",
    "saturation",
    "save",
]

#: Trials that are named in a legend; with more the curves are drawn thin, without names.
_NAMED = 8


def accuracy_curves(
    epochs: pd.DataFrame,
    trials: pd.DataFrame,
    *,
    by: Literal["trial", "method"] = "trial",
    split: str = "held_out",
    metric: str = "accuracy",
) -> Figure:
    """A metric over the epochs of the search: one curve per trial, or the mean of each method (D-DARTS Fig. 4).

    The band is the 95 % interval of the mean over the method's seeds; a method with one seed has none. Means are over
    completed trials, so that they do not jump where others were stopped; over all trials while none is complete.

    Raises:
        UserError: no trial recorded the metric.
    """
    frame = metric_frame(epochs, split, metric).merge(trials[["study", "trial_id", "method", "state"]])
    figure, ax = axes("epoch", _axis_label(split, metric))
    if by == "method":
        for index, (method, group) in enumerate(finished(frame).groupby("method", sort=True)):
            estimates = by_epoch(group, "accuracy" in metric)
            seeds = group[["study", "trial_id"]].drop_duplicates().shape[0]
            band(ax, estimates, index, f"{method} (n = {seeds})")
    else:
        many = frame.groupby(["study", "trial_id"]).ngroups > _NAMED
        several = frame["study"].nunique() > 1
        for index, ((study, trial), group) in enumerate(frame.groupby(["study", "trial_id"], sort=True)):
            ax.plot(
                group["epoch"],
                group["value"],
                color=COLOURS[index % len(COLOURS)],
                linewidth=0.8 if many else 1.4,
                alpha=0.6 if many else 1.0,
                marker="o" if len(group) == 1 else "",
                label=None if many else (f"{study} {trial}" if several else str(trial)),
            )
    legend(ax)
    return figure


def contributions_map(contributions: pd.DataFrame, trial_id: str, study: str | None = None) -> Figure:
    """Marginal contribution of each cell over the epochs of one trial (D-DARTS eq. 6).

    M is the loss with the cell minus the loss without it: blue cells (below 0) lower the loss, red ones raise it.

    Raises:
        UserError: the trial has no contributions.
    """
    rows = contributions[contributions["trial_id"] == trial_id].dropna(subset="contribution")
    if study is not None:
        rows = rows[rows["study"] == study]
    if rows.empty:
        raise UserError(f"trial {trial_id!r} recorded no contributions (ablation.loss: none records none)")
    table = rows.pivot_table(index="cell", columns="epoch", values="contribution", aggfunc="last")
    limit = float(table.abs().max().max())
    figure, ax = axes("epoch", "cell")
    image = ax.imshow(
        table.to_numpy(),
        aspect="auto",
        origin="lower",
        cmap="RdBu_r",
        vmin=-limit if limit > 0 else -1,
        vmax=limit if limit > 0 else 1,
        extent=(table.columns[0] - 0.5, table.columns[-1] + 0.5, table.index[0] - 0.5, table.index[-1] + 0.5),
    )
    ax.grid(False)
    ax.set_yticks(list(table.index))
    figure.colorbar(image, ax=ax, label="marginal contribution (nats), below 0 helps")
    ax.set_title(f"trial {trial_id}", fontsize=9)
    return figure


def saturation(epochs: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Share of all operations with sigma(alpha) over 0.9 and under 0.1 by epoch, mean and 95 % interval by method.

    Each of the two has a panel of its own.

    Raises:
        UserError: no trial recorded them.
    """
    figure = new_figure(7.6, 3.4)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, metric, label in zip(panels, ("over_0.9", "under_0.1"), ("share of operations", ""), strict=True):
        dress(ax, "epoch", label)
        ax.set_title(f"σ(α) {metric.replace('_', ' ')}", fontsize=9)
        frame = metric_frame(epochs, "saturation", metric).merge(trials[["study", "trial_id", "method", "state"]])
        for index, (method, group) in enumerate(finished(frame).groupby("method", sort=True)):
            band(ax, by_epoch(group, shares=True), index, str(method))
    ax.set_ylim(-0.02, 1.02)
    legend(ax)
    return figure


def loss_against_w_ablation(epochs: pd.DataFrame, trials: pd.DataFrame, *, split: str = "alpha") -> Figure:
    """Lowest loss of each trial's search against w_ablation, mean and 95 % interval over the trials (D-DARTS Fig. 2).

    As in the paper's figure it is the lowest over the epochs, the same ones as of `ddarts table --epoch lowest`. Each
    form of the loss (`ablation.loss`) has a line of its own, which begins at the trials without the loss.

    Raises:
        UserError: no trial recorded the loss.
    """
    frame = metric_frame(searched(epochs), split, "loss")
    lowest = frame.groupby(["study", "trial_id"], sort=True, as_index=False).min()
    figure, ax = axes("w_ablation", f"lowest {_axis_label(split, 'loss')}")
    without = trials["w_ablation"] == 0
    forms = trials["config_json"].map(lambda config: json.loads(config).get("ablation", {}).get("loss"))
    several = sorted(forms[~without].dropna().unique())
    if len(several) < 2:
        _against(ax, lowest, trials, "w_ablation", COLOURS[0])
        return figure
    for index, form in enumerate(several):
        _against(ax, lowest, trials[without | (forms == form)], "w_ablation", COLOURS[index], form)
    legend(ax)
    return figure


def decided_against_w_zero_one(epochs: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Share of operations over 0.9 and under 0.1 in the last epoch against w_zero_one (D-DARTS Fig. 3).

    Raises:
        UserError: no trial recorded them.
    """
    figure, ax = axes("w_zero_one", "share of operations")
    for index, metric in enumerate(("over_0.9", "under_0.1")):
        values = final_values(epochs, "saturation", metric)
        label = f"σ(α) {metric.replace('_', ' ')}"
        _against(ax, values, trials, "w_zero_one", COLOURS[index], label, shares=True)
    ax.set_ylim(-0.02, 1.02)
    legend(ax)
    return figure


def pareto(
    trials: pd.DataFrame, *, x: str = "parameters", y: str = "derived_accuracy", reference: float | None = None
) -> Figure:
    """Accuracy against cost of the completed trials; the front (more accuracy, less cost) is joined.

    Trials beyond a limit of the sweep are no part of the front. With a reference cost the legend has its hypervolume
    (`compare.front_volume`).

    Raises:
        UserError: a column that is not there, or no completed trial has both values.
    """
    for column in (x, y):
        if column not in trials.columns or not pd.api.types.is_numeric_dtype(trials[column]):
            numeric = sorted(trials.select_dtypes("number").columns)
            raise UserError(f"unknown metric {column!r} of trials: choose one of {', '.join(numeric)}")
    rows = trials[trials["state"] == "COMPLETED"].dropna(subset=[x, y])
    if rows.empty:
        raise UserError(f"no completed trial has both {x} and {y}")
    figure, ax = axes(_LABELS.get(x, x), _LABELS.get(y, y))
    fair = pd.DataFrame(contenders(rows.to_dict("records")))
    points = list(zip(fair[x].astype(float), fair[y].astype(float), strict=True))
    front = sorted(points[i] for i in pareto_front(points, [False, True]))
    ax.step(
        *zip(*front, strict=True),
        where="post",
        color=COLOURS[1],
        linewidth=1.2,
        label=front_label(points, reference, _LABELS.get(x, x)),
    )
    for index, (study, group) in enumerate(rows.groupby("study", sort=True)):
        colour = (COLOURS[0], *COLOURS[2:])[index % (len(COLOURS) - 1)]
        ax.scatter(group[x], group[y], s=22, color=colour, edgecolor="white", linewidth=0.5, zorder=3, label=str(study))
    legend(ax)
    return figure


_LABELS = {
    "parameters": "parameters",
    "macs": "multiply-adds",
    "derived_accuracy": "accuracy of the derived network (held out)",
    "held_out_accuracy": "accuracy of the supernet (held out)",
    "derived_balanced_accuracy": "balanced accuracy of the derived network (held out)",
    "held_out_balanced_accuracy": "balanced accuracy of the supernet (held out)",
    "seconds": "wall time (s)",
}


def _axis_label(split: str, metric: str) -> str:
    names = {"held_out": "held-out", "train": "training", "alpha": "alpha-split", "validation": "validation"}
    return f"{names.get(split, split)} {metric.replace('_', ' ')}{' (nats)' if metric == 'loss' else ''}"


# --- curves -----------------------------------------------------------------------------------------------------------


def band(ax: Axes, estimates: Mapping[int, Estimate] | Mapping[float, Estimate], index: int, label: str) -> None:
    """Means of the series of this number joined by a line, and their interval where there is one."""
    colour = COLOURS[index % len(COLOURS)]
    xs = sorted(estimates)
    chosen: Sequence[Estimate] = [estimates[x] for x in xs]  # type: ignore[index]  # xs are its keys
    ax.plot(xs, [e.mean for e in chosen], dash_of(index)[0], color=colour, linewidth=1.5, label=label)
    if any(not math.isnan(e.low) for e in chosen):
        ax.fill_between(xs, [e.low for e in chosen], [e.high for e in chosen], color=colour, alpha=0.18, linewidth=0)


def _against(
    ax: Axes,
    values: pd.DataFrame,
    trials: pd.DataFrame,
    weight: str,
    colour: str,
    label: str | None = None,
    *,
    shares: bool = False,
) -> None:
    """One value per completed trial against a setting: each as a dot, means of equal settings with error bars.

    All trials while none is complete: a pruned one's last epoch is an early one, which does not mix with the others'.
    """
    frame = finished(values.merge(trials[["study", "trial_id", "state", weight]])).dropna(subset=[weight])
    ax.scatter(frame[weight], frame["value"], s=12, color=colour, alpha=0.45, linewidth=0, zorder=2)
    estimates = {float(w): mean_interval(group["value"].tolist()) for w, group in frame.groupby(weight)}
    if shares:
        estimates = {w: estimate.of_shares() for w, estimate in estimates.items()}
    repeated = {w: e for w, e in estimates.items() if e.count > 1}
    shown = repeated or estimates
    xs: Iterable[float] = sorted(shown)
    ax.errorbar(
        list(xs),
        [shown[x].mean for x in xs],
        yerr=[[_apart(shown[x].mean, shown[x].low) for x in xs], [_apart(shown[x].high, shown[x].mean) for x in xs]],
        color=colour,
        marker="o",
        markersize=4,
        linewidth=1.2,
        capsize=3,
        label=label,
        zorder=3,
    )


def _apart(high: float, low: float) -> float:
    return 0.0 if math.isnan(high) or math.isnan(low) else high - low
