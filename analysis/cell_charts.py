"""Interactive charts about the cells of one trial: gates over epochs, operations per cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ddarts_core.ground.errors import UserError

from .cell_figures import counts
from .charts import Chart, chart
from .palette import colour_of, label_of
from .ranking import evenly

#: Epochs that a map of gates shows at most; of more, evenly spaced ones, the first and the last among them.
SHOWN_EPOCHS = 60

#: Gates of all cells and epochs together that a map holds at most: of larger networks fewer epochs are shown.
SHOWN_GATES = 50_000


def gates(alphas: pd.DataFrame) -> Chart | None:
    """Gates of a trial's operations over epochs: a row per operation of each edge, a menu for the cell.

    None when no alphas were recorded.
    """
    if alphas.empty:
        return None
    epochs = sorted(alphas["epoch"].unique().tolist())
    per_epoch = math.ceil(len(alphas) / len(epochs))
    kept = evenly(epochs, max(2, min(SHOWN_EPOCHS, SHOWN_GATES // per_epoch)))
    cells = sorted(alphas["cell"].unique().tolist())
    rows = alphas[alphas["epoch"].isin(kept)]
    grids = [_grid(rows[rows["cell"] == cell], kept) for cell in cells]
    labels, first = grids[0]
    heat = {
        "type": "heatmap",
        "x": kept,
        "y": labels,
        "z": first,
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": "gate"}, "thickness": 12},
        "hovertemplate": "%{y}, epoch %{x}: gate %{z:.2f}<extra></extra>",
    }
    menu = {
        "buttons": [
            {"label": f"cell {cell}", "method": "restyle", "args": [{"z": [values], "y": [names]}]}
            for cell, (names, values) in zip(cells, grids, strict=True)
        ],
        "x": 0,
        "xanchor": "left",
        "y": 1.01,
        "yanchor": "bottom",
    }
    axis = {"autorange": "reversed", "tickfont": {"size": 9}, "type": "category"}
    return chart([heat], "epoch", "", yaxis=axis, updatemenus=[menu])


def _grid(rows: pd.DataFrame, epochs: list[int]) -> tuple[list[str], list[list[float | None]]]:
    """Names and gates of one cell's operations, by edge."""
    names: list[str] = []
    values: list[list[float | None]] = []
    for (_, source, target), edge in rows.groupby(["edge", "source", "target"], sort=True, observed=True):
        for op, found in edge.groupby("op", sort=False, observed=True):
            by_epoch = dict(zip(found["epoch"].tolist(), found["gate"].tolist(), strict=True))
            names.append(f"{source}→{target} {label_of(str(op))}")
            values.append([_rounded(by_epoch.get(epoch)) for epoch in epochs])
    return names, values


def _rounded(gate: float | None) -> float | None:
    return None if gate is None or np.isnan(gate) else round(gate, 2)


def operations(genotypes: pd.DataFrame, trial_id: str) -> Chart | None:
    """Operations in each cell of the trial's genotype as stacked bars; None when it has none."""
    try:
        table = counts(genotypes, trial_id)
    except UserError:
        return None
    bars: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": label_of(op),
            "x": [int(cell) for cell in table.index],
            "y": [int(number) for number in table[op]],
            "marker": {"color": colour_of(op)},
            "hovertemplate": f"cell %{{x}}: %{{y}} × {label_of(op)}<extra></extra>",
        }
        for op in table.columns
    ]
    axis = {"title": {"text": "cell"}, "dtick": 1}
    return chart(bars, "cell", "operations", barmode="stack", xaxis=axis)
