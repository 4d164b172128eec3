"""Frames -> figures about what a sweep varied: importance, slices, parallel coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ddarts_core.ground.errors import UserError

from .canvas import axes, dress, new_figure
from .palette import COLOURS, shortened

_BLUE = COLOURS[0]

#: Colour of an objective by its place between the lowest and the highest: plain on light and on dark paper alike.
GOODNESS = LinearSegmentedColormap.from_list("goodness", (COLOURS[0], "#85858d", COLOURS[1]))
_COLUMNS = 3

#: Letters that have room on the axis of a panel.
_BESIDE = 34

#: A parameter whose positive values spread more than this is shown on a logarithmic axis.
_WIDE = 50


def proposals(trials: pd.DataFrame) -> pd.DataFrame:
    """Completed trials as rows: `trial_id`, `objective`, and a column per proposed setting that took several values.

    Raises:
        UserError: no completed trial has an objective, or nothing varied.
    """
    done = trials[(trials["state"] == "COMPLETED") & trials["objective"].notna()]
    if done.empty:
        raise UserError("no completed trial has an objective: there is nothing to compare settings by")
    params = [json.loads(text) for text in done["params_json"]]
    paths = sorted({path for proposal in params for path in proposal})
    columns: dict[str, list[Any]] = {path: [proposal.get(path) for proposal in params] for path in paths}
    varied = {path: values for path, values in columns.items() if len({str(v) for v in values if v is not None}) > 1}
    if not varied:
        raise UserError("no proposed setting took more than one value in the completed trials")
    frame: pd.DataFrame = pd.DataFrame(
        {"trial_id": done["trial_id"].tolist(), "objective": done["objective"].tolist(), **varied}
    )
    return frame


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether all values that are there are numbers, truth values excluded."""
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values if v is not None)


def is_logarithmic(values: Sequence[Any], sampled: bool = False) -> bool:
    """Whether numbers stand on a logarithmic axis: they are positive, and `sampled` so or spread very far."""
    known = [v for v in values if v is not None]
    return is_numeric(known) and min(known) > 0 and (sampled or max(known) / min(known) > _WIDE)


def is_whole(values: Sequence[Any]) -> bool:
    """Whether all values that are there are whole numbers, which stand on whole ticks."""
    return is_numeric(values) and all(isinstance(v, int) for v in values if v is not None)


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis between two positive numbers: 1, 2 and 5, or of more than two decades only 1.

    Of more than six decades some are left out. Where no such number lies between, the ends are the ticks.

    Example:
        >>> log_ticks(0.02, 0.1)
        [0.02, 0.05, 0.1]
    """
    steps = (1, 2, 5) if high / low <= 100 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return inside[:: math.ceil(len(inside) / 7)] if len(inside) > 1 else [low, high]


def importance(shares: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Share of the objective's variance that each setting explains by itself, largest on top, and how far it is known.

    `shares` has the share, and the ends of the interval in which it lies for most trees of the forest. The shares need
    not sum to 1: the rest is interactions and noise.

    Raises:
        UserError: there are none.
    """
    if not shares:
        raise UserError("importance needs ten completed trials that differ in a setting and in their objective")
    names = sorted(shares, key=lambda name: shares[name])
    figure, ax = axes("share of the objective's variance explained alone", "", height=0.9 + 0.32 * len(names))
    ends = [around(shares[name]) for name in names]
    bars = {"ecolor": COLOURS[1], "capsize": 3, "elinewidth": 1.2}
    values = [shares[name][0] for name in names]
    ax.barh(names, values, xerr=list(zip(*ends, strict=True)), color=_BLUE, height=0.65, error_kw=bars)
    ax.set_xlim(0, 1)
    ax.grid(False, axis="y")
    return figure


def around(share: tuple[float, float, float]) -> tuple[float, float]:
    """How far the interval of a share reaches below and above it; a mean of few large ones may lie outside of it."""
    return max(0.0, share[0] - share[1]), max(0.0, share[2] - share[0])


def slices(trials: pd.DataFrame, logs: Collection[str] = ()) -> Figure:
    """The first objective against every setting that the sweep varied, a panel for each; `logs` were sampled so.

    Raises:
        UserError: no completed trial has an objective, or nothing varied.
    """
    frame = proposals(trials)
    paths = list(frame.columns[2:])
    lines = math.ceil(len(paths) / _COLUMNS)
    turned = [path for path in paths if _are_turned(frame[path].dropna().tolist())]
    figure = new_figure(2.9 * min(len(paths), _COLUMNS), (3.4 if turned else 2.5) * lines)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(lines, min(len(paths), _COLUMNS), sharey=True, squeeze=False)
    for ax, path in zip(grid.flat, paths, strict=False):
        rows = frame[frame[path].notna()]
        values = rows[path].tolist()
        dress(ax, path, "objective" if ax in grid[:, 0] else "")
        xs = values if is_numeric(values) else [shortened(str(v)) for v in values]
        ax.scatter(xs, rows["objective"], s=14, color=_BLUE, alpha=0.7)
        if path in turned:
            ax.tick_params(axis="x", labelrotation=90, labelsize=min(8, 130 / len({*xs})))
        if is_logarithmic(values, path in logs):
            ax.set_xscale("log")
            ticks = log_ticks(min(values), max(values))
            ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            ax.xaxis.set_minor_locator(NullLocator())
        elif is_whole(values):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in list(grid.flat)[len(paths) :]:
        ax.set_visible(False)
    return figure


def _are_turned(values: Sequence[Any]) -> bool:
    """Whether the names that stand on an axis are too many or too long to stand beside each other."""
    return not is_numeric(values) and sum(len(shortened(name)) + 2 for name in {str(v) for v in values}) > _BESIDE


def parallel(trials: pd.DataFrame, logs: Collection[str] = ()) -> Figure:
    """A line per completed trial through its settings to its objective, coloured by the objective.

    `logs` are the settings that were sampled on a logarithmic scale.

    Raises:
        UserError: no completed trial has an objective, or nothing varied.
    """
    frame = proposals(trials)
    paths = [*frame.columns[2:], "objective"]
    scales = [Scale(frame[path].tolist(), path in logs) for path in paths]
    figure = new_figure(1.5 * len(paths) + 1.2, 3.8)
    figure.set_layout_engine("constrained")
    ax = figure.add_subplot()
    for row in frame[paths].itertuples(index=False):
        heights = [scale.height(v) for scale, v in zip(scales, row, strict=True)]
        ax.plot(range(len(paths)), heights, color=GOODNESS(heights[-1]), linewidth=1.2, alpha=0.8)
    for place, scale in enumerate(scales):
        ax.axvline(place, color="#9aa1ab", linewidth=0.8, zorder=0)
        for height, text in scale.marks:
            ax.annotate(text, (place, height), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    ax.set_xticks(range(len(paths)), [path.replace(".", ".\n") for path in paths], fontsize=8)
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(paths) - 1 + 0.5)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), GOODNESS), ax=ax, label="objective", pad=0.01)
    bar.set_ticks([height for height, _ in scales[-1].marks], labels=[text for _, text in scales[-1].marks])
    bar.ax.tick_params(labelsize=7)
    return figure


class Scale:
    """Positions from 0 to 1 of a setting's values, and the marks that name them; a missing value lies below.

    They are logarithmic where the setting was `sampled` so, or where it spreads very far.
    """

    def __init__(self, values: Sequence[Any], sampled: bool = False) -> None:
        known = [v for v in values if not _missing(v)]
        self._numeric = is_numeric(known)
        self._log = is_logarithmic(known, sampled)
        self._names = sorted({str(v) for v in known})
        if self._numeric:
            self._low, self._high = self._place(min(known)), self._place(max(known))
            ends = (min(known), max(known))
            self.marks = [(self.height(v), f"{v:.3g}") for v in dict.fromkeys(ends)]
        else:
            self.marks = [(self.height(name), name) for name in self._names]

    def height(self, value: Any) -> float:
        """The height at which a value is drawn."""
        if _missing(value):
            return -0.12
        if not self._numeric:
            return self._names.index(str(value)) / max(1, len(self._names) - 1)
        return (self._place(value) - self._low) / (self._high - self._low) if self._high > self._low else 0.5

    def _place(self, value: float) -> float:
        return math.log(value) if self._log else float(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))
