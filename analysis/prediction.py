"""Does a number predict the truth? Rank correlations, with their intervals. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import spearmanr

from ddarts_core.loops.records import EpochRecord

from .collect import gates_of
from .study import Study
from .truth import Truth, score_names


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, its 95 % interval, and the number of pairs; NaN where there is none.

    The interval is that of Fisher's z with the variance (1 + rho^2 / 2) / (n - 3) (Bonett and Wright 2000).
    """

    rho: float
    low: float
    high: float
    count: int


def rank_correlation(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Correlation:
    """The correlation over the pairs with both values known; None if they are fewer than four, or one side is constant.

    Example:
        >>> rank_correlation([1, 2, 3, 4, 5], [2, 3, 5, 8, 7]).rho
        0.9
    """
    pairs = np.array([first, second], dtype=np.float64)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    count = pairs.shape[1]
    if count < 4 or (pairs == pairs[:, :1]).all(axis=1).any():
        return Correlation(math.nan, math.nan, math.nan, count)
    rho = round(float(spearmanr(*pairs).statistic), 12)
    if abs(rho) == 1:
        return Correlation(rho, rho, rho, count)
    half = float(ndtri(0.5 + level / 2)) * math.sqrt((1 + rho**2 / 2) / (count - 3))
    return Correlation(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half), count)


def free_predictors(truth: Truth) -> dict[str, Correlation]:
    """What is known of a genotype without training it, with its mean accuracy; by name."""
    rows = truth.architectures
    return {
        name: rank_correlation(rows[name].tolist(), rows["accuracy"].tolist()) for name in score_names(truth.trainings)
    }


def gate_correlations(truth: Truth, studies: Iterable[Study]) -> pd.DataFrame:
    """For each search, the correlation of its last gates with the worth of the operations (`Truth.worth`).

    A pair is an operation on an edge of a cell. Columns: study, trial_id, method, seed, rho, low, high, count; searches
    that share gates between cells, or recorded none, are left out.
    """
    rows = []
    for study in studies:
        for trial in study.completed:
            gates = last_gates(trial.records, trial.trial_id)
            if gates is None or gates.shape != truth.worth.shape:
                continue
            found = rank_correlation(gates.ravel().tolist(), truth.worth.ravel().tolist())
            info = trial.info
            place = {"study": study.name, "trial_id": trial.trial_id, "method": info["config"]["method"]}
            rows.append({**place, "seed": info["seed"], **vars(found)})
    table: pd.DataFrame = pd.DataFrame(
        rows, columns=["study", "trial_id", "method", "seed", "rho", "low", "high", "count"]
    )
    return table


def last_gates(records: Sequence[EpochRecord], trial_id: str) -> np.ndarray | None:
    """Gates at the end of a search, [groups, edges, operations]; None if it recorded no alphas."""
    recorded = [record for record in records if record.alphas]
    if not recorded:
        return None
    return gates_of(recorded[-1], np.asarray(recorded[-1].alphas, dtype=np.float32), trial_id)
