"""Frames -> figures about cells: gates over epochs, operations per cell, distances between genotypes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError

from .canvas import axes, dress, new_figure
from .compare import distance
from .palette import colour_of, in_order, label_of

_COLUMNS = 4


def rows_of(frame: pd.DataFrame, trial_id: str, study: str | None, what: str) -> pd.DataFrame:
    """The trial's rows of a frame.

    Raises:
        UserError: it has none.
    """
    rows = frame[frame["trial_id"] == trial_id]
    if study is not None:
        rows = rows[rows["study"] == study]
    if rows.empty:
        raise UserError(f"trial {trial_id!r} has no {what}")
    chosen: pd.DataFrame = rows
    return chosen


def gates(alphas: pd.DataFrame, trial_id: str, cell: int = 0, study: str | None = None) -> Figure:
    """Gate of every operation over the epochs of one trial, a panel for each edge of the cell.

    Raises:
        UserError: the trial recorded no alphas, or has no such cell.
    """
    rows = rows_of(alphas, trial_id, study, "recorded alphas (records from MLflow alone have none)")
    cells = sorted(rows["cell"].unique().tolist())
    if cell not in cells:
        raise UserError(f"trial {trial_id!r} has no alphas of cell {cell}: choose one of {', '.join(map(str, cells))}")
    rows = rows[rows["cell"] == cell]
    edges = list(rows.groupby("edge", sort=True))
    lines = math.ceil(len(edges) / _COLUMNS)
    figure = new_figure(8.0, 1.55 * lines + 0.9)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for ax, (_, edge) in zip(grid.flat, edges, strict=False):
        dress(ax, "epoch", "")
        ax.set_xlabel("")
        ax.tick_params(labelsize=7)
        ax.set_title(f"{edge['source'].iloc[0]} → {edge['target'].iloc[0]}", fontsize=8)
        for op, values in edge.groupby("op", sort=False, observed=True):
            name = str(op)
            gate = values["gate"].to_numpy(dtype=float)
            marker = "o" if len(gate) == 1 else ""
            colour, label = colour_of(name), label_of(name)
            ax.plot(values["epoch"], gate, color=colour, linewidth=1.3, marker=marker, markersize=3, label=label)
        ax.set_ylim(-0.03, 1.03)
    for ax in list(grid.flat)[len(edges) :]:
        ax.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7), fontsize=7.5, frameon=False)
    figure.suptitle(f"trial {trial_id}, cell {cell}: gates of each edge by epoch", fontsize=9)
    return figure


def counts(genotypes: pd.DataFrame, trial_id: str, study: str | None = None) -> pd.DataFrame:
    """Operations of a trial's genotype by cell (rows) and name (columns).

    Raises:
        UserError: the trial has no genotype.
    """
    rows = rows_of(genotypes, trial_id, study, "genotype: only completed trials leave one")
    table: pd.DataFrame = pd.crosstab(rows["cell"].astype(int), rows["op"].astype(str))
    cells = range(int(table.index.max()) + 1)
    whole: pd.DataFrame = table.reindex(index=cells, columns=in_order(list(table.columns)), fill_value=0)
    return whole


def operations(genotypes: pd.DataFrame, trial_id: str, study: str | None = None) -> Figure:
    """Operations in each cell of a trial's genotype, in the colours of the drawings.

    Raises:
        UserError: the trial has no genotype.
    """
    table = counts(genotypes, trial_id, study)
    figure, ax = axes("cell", "operations")
    base = np.zeros(len(table))
    for op in table.columns:
        ax.bar(list(table.index), table[op], bottom=base, color=colour_of(op), width=0.75, label=label_of(op))
        base = base + table[op].to_numpy()
    ax.set_xticks(list(table.index))
    ax.grid(False, axis="x")
    ax.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    skips = int(table["skip_connect"].sum()) if "skip_connect" in table.columns else 0
    ax.set_title(f"trial {trial_id}: {int(base.sum())} operations, {skips} skip connections", fontsize=9)
    return figure


def distances(genotypes: pd.DataFrame, trial_ids: Sequence[str]) -> Figure:
    """Distance between the genotypes of trials (`compare.distance`): 0 for the same operations, 1 for none in common.

    Raises:
        UserError: fewer than two of the trials have a genotype, or their layouts differ.
    """
    rows = genotypes.drop_duplicates("trial_id")
    texts = dict(zip(rows["trial_id"].astype(str), rows["genotype_json"].astype(str), strict=True))
    found = {trial: AnyGenotype.from_text(texts[trial]) for trial in trial_ids if trial in texts}
    if len(found) < 2:
        raise UserError("distances need two completed trials with a genotype")
    table = np.array([[distance(a, b) for b in found.values()] for a in found.values()])
    size = 1.8 + 0.28 * len(found)
    figure, ax = axes("", "", max(size + 0.9, 3.6), max(size, 2.7))
    image = ax.imshow(table, cmap="viridis", vmin=0, vmax=1)
    ax.grid(False)
    ax.set_xticks(range(len(found)), list(found), rotation=90, fontsize=7)
    ax.set_yticks(range(len(found)), list(found), fontsize=7)
    figure.colorbar(image, ax=ax, label="share of operations not in common")
    return figure
