"""What figures and charts both draw: the values of one metric, of finished trials, by epoch."""

from __future__ import annotations

import pandas as pd

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import LATER

from .statistics import Estimate, mean_interval


def metric_frame(epochs: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    """Columns study, trial_id, epoch, value of one metric during the search (retraining left out), in order.

    Raises:
        UserError: no trial recorded it; lists what was recorded.
    """
    search = epochs[~epochs["phase"].isin(LATER)]
    rows = search[(search["split"] == split) & (search["metric"] == metric)]
    if rows.empty:
        known = sorted({f"{s}/{m}" for s, m in zip(search["split"], search["metric"], strict=True)})
        choices = f"choose from {', '.join(known)}" if known else "there is no epoch yet"
        raise UserError(f"no trial recorded {split}/{metric}: {choices}")
    kept: pd.DataFrame = rows[["study", "trial_id", "epoch", "value"]].sort_values(["study", "trial_id", "epoch"])
    return kept


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of completed trials (column `state`), or all of them when no trial is complete."""
    complete = rows[rows["state"] == "COMPLETED"]
    return rows if complete.empty else complete


def by_epoch(rows: pd.DataFrame, shares: bool = False) -> dict[int, Estimate]:
    """Mean and interval of column `value` in each epoch, ascending; `shares` says that values are shares of 1."""
    values: dict[int, list[float]] = {}
    for epoch, found in zip(rows["epoch"].tolist(), rows["value"].tolist(), strict=True):
        values.setdefault(epoch, []).append(found)
    found = {epoch: mean_interval(values[epoch]) for epoch in sorted(values)}
    return {epoch: estimate.of_shares() for epoch, estimate in found.items()} if shares else found


def final_values(epochs: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    """The metric's value in the last recorded epoch of each trial.

    Raises:
        UserError: no trial recorded it.
    """
    frame = metric_frame(epochs, split, metric)
    return frame.groupby(["study", "trial_id"], sort=True, as_index=False).last()
