"""Does a number predict the truth? Rank correlations, with their intervals. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.loops.records import EpochRecord

from .collect import gates_of
from .study import Study, Trial
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
    rho = round(float(pd.DataFrame(pairs.T).rank().corr().iloc[0, 1]), 12)  # of the ranks, ties at their mean
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
    for study, trial in completed(studies):
        gates = last_gates(trial.records, trial.trial_id)
        if gates is not None and gates.shape == truth.worth.shape:
            found = rank_correlation(gates.ravel().tolist(), truth.worth.ravel().tolist())
            rows.append(place_of(study, trial) | vars(found))
    return _table(rows)


def one_shot_correlations(truth: Truth, studies: Iterable[Study]) -> pd.DataFrame:
    """Of each search with `search.probe` the correlation of one-shot accuracies with the accuracies of the truth.

    Columns as of `gate_correlations`; a pair is a genotype.
    """
    known = truth.architectures["accuracy"]
    rows = []
    for study, trial in completed(studies):
        scored = {int(number): score for number, score in (trial.info.get("one_shot") or {}).items()}
        shared = [number for number in scored if number in known.index]
        if shared:
            found = rank_correlation([scored[number] for number in shared], known[shared].tolist())
            rows.append(place_of(study, trial) | vars(found))
    return _table(rows)


def cell_correlations(truth: Truth, studies: Iterable[Study]) -> dict[str, Correlation]:
    """Does the marginal contribution of a cell say what the network loses without it? By `ablation.removal`.

    A pair is a cell of a search. One side is the mean contribution of the last epoch that measured it, with its sign
    turned: by how much the loss rises without the cell. The other is by how much the accuracy of the trained genotype
    falls when the cell is cut, which is in the truth: the same genotype with skip connections alone in that cell. The
    ablation loss (`L_AB, REMOVAL`) and Shapley values (`shapley, REMOVAL`) are compared in the same way.
    """
    known: dict[Any, float] = truth.architectures["accuracy"].to_dict()
    pairs: dict[str, list[tuple[float, float]]] = {}
    for _, trial in completed(studies):
        number = None if trial.genotype is None else truth.every.number_of(trial.genotype)
        if number is None or number not in known:
            continue
        genotype = truth.every[number]
        cuts = [truth.every.number_of(without_cell(genotype, cell)) for cell in range(genotype.num_cells)]
        losses = [known[number] - known.get(cut, math.nan) for cut in cuts]
        removal = trial.info["config"]["ablation"]["removal"]
        for name, values in _measured(trial).items():
            if len(values) == len(losses):  # groups are cells
                turned = [-value for value in values]
                pairs.setdefault(f"{name}, {removal}", []).extend(zip(turned, losses, strict=True))
    return {name: rank_correlation(*np.transpose(found).tolist()) for name, found in sorted(pairs.items())}


def _measured(trial: Trial) -> dict[str, Sequence[float]]:
    """What the last epoch that measured it says of each cell; all have the sign of eq. 6: below 0 a cell helps."""
    found: dict[str, Sequence[float]] = {}
    for record in trial.records:
        found |= {"contribution": record.contributions} if record.contributions else {}
        found |= {"L_AB": record.ablation} if record.ablation else {}
        found |= {"shapley": record.shapley} if record.shapley else {}
    return found


def without_cell(genotype: Genotype, cell: int) -> Genotype:
    """The genotype with skip connections alone in one cell."""
    edges = tuple(Edge(edge.target, edge.source, "skip_connect") for edge in genotype.cells[cell].edges)
    cut = Cell(edges, genotype.cells[cell].concat)
    return Genotype((*genotype.cells[:cell], cut, *genotype.cells[cell + 1 :]), genotype.reductions)


def completed(studies: Iterable[Study]) -> Iterator[tuple[Study, Trial]]:
    """Every trial that ran to its end, with its study."""
    for study in studies:
        for trial in study.completed:
            yield study, trial


def place_of(study: Study, trial: Trial) -> dict[str, Any]:
    """The search that a row belongs to."""
    place = {"study": study.name, "trial_id": trial.trial_id, "method": trial.info["config"]["method"]}
    return place | {"seed": trial.info["seed"]}


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = ["study", "trial_id", "method", "seed", "rho", "low", "high", "count"]
    table: pd.DataFrame = pd.DataFrame(rows, columns=columns)
    return table


def last_gates(records: Sequence[EpochRecord], trial_id: str) -> np.ndarray | None:
    """Gates at the end of a search, [groups, edges, operations]; None if it recorded no alphas."""
    recorded = [record for record in records if record.alphas]
    if not recorded:
        return None
    return gates_of(recorded[-1], np.asarray(recorded[-1].alphas, dtype=np.float32), trial_id)
