"""Which of the proposed settings mattered: the main effects of fANOVA, from a study's journal of trials that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..store.study import Study, check_journal

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution

SEED = 0
"""The seed of the random forest, so that the same journal gives the same numbers."""

FEWEST = 10
"""With fewer completed trials than this nothing is said: from three trials of pure noise come shares that sum to
nearly 1."""

TRIALS = 1000
"""The most trials that the forest is given."""

WHOLE_FOREST = 250
"""Up to this number of trials the forest has 64 trees, as Optuna's has. For more trials it has 16 trees, which give
nearly the same shares."""


class Share(NamedTuple):
    """Share of the variance that a setting explains by itself, and the interval in which it lies for 8 of 10 trees.

    Each tree of a forest sees another bootstrap sample of the trials. So the interval is wide if a few other trials
    would have given another share.
    """

    mean: float
    low: float
    high: float


def importances(study: Study) -> dict[str, Share]:
    """Share of the first objective's variance that each setting explains by itself (`main_effects`), largest first.

    The forest has 64 trees for up to 250 trials, and 16 trees for more. If there are more than 1,000 trials it sees
    1,000 of them, evenly spaced by number, with the first and the last trial. With few trials even noise alone gets
    large shares.

    Settings that only some trials have (`when`) are left out. The result is empty if nothing can be said: if there is
    no journal, if fewer than ten trials are completed, if no setting took two values, or if the objective did not take
    two values.

    Raises:
        UserError: the journal is damaged.
    """
    journal = Path(study.path) / "optuna.log"
    if not journal.is_file():
        return {}
    check_journal(journal)
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if study.name not in optuna.get_all_study_names(storage):
        return {}
    stored = optuna.load_study(study_name=study.name, storage=storage)
    trials = stored.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) < FEWEST:
        return {}
    if len(trials) > TRIALS:
        trials = [trials[round(place * (len(trials) - 1) / (TRIALS - 1))] for place in range(TRIALS)]
    common = set.intersection(*(set(trial.params) for trial in trials))
    ranges = {
        name: trials[-1].distributions[name]
        for name in sorted(common)
        if len({str(trial.params[name]) for trial in trials}) > 1
    }
    values = [float((trial.values or [0.0])[0]) for trial in trials]
    found = main_effects([trial.params for trial in trials], values, ranges, 64 if len(trials) <= WHOLE_FOREST else 16)
    return dict(sorted(found.items(), key=lambda item: -item[1].mean))


def main_effects(
    settings: Sequence[Mapping[str, Any]], values: Sequence[float], ranges: Mapping[str, BaseDistribution], trees: int
) -> dict[str, Share]:
    """Share of the variance of a random forest over the settings' ranges that each setting explains by itself.

    Hutter, Hoos and Leyton-Brown (2014), An Efficient Approach for Assessing Hyperparameter Importance: a regression
    tree is constant on boxes of the space, so the mean of its values with one setting fixed is a sum over boxes.
    The shares are means over trees and sum to at most 1; what they leave is what settings explain only together. A tree
    that is constant, such as the tree of a bootstrap sample of one trial, has no variance to share and does not count.
    Optuna's evaluator does count such trees: it divides their rounding errors by each other, which gave sums of 1.9.

    Args:
        settings: the settings of each trial.
        values: the objective of each trial.
        ranges: the distribution of each setting that gets a share. A choice counts by its position.
        trees: how many trees the forest has.

    Returns:
        The shares and their intervals; empty if every tree is constant.
    """
    import numpy as np
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from sklearn.ensemble import RandomForestRegressor

    low, high, columns = [], [], []
    for name, kind in ranges.items():
        column = [trial[name] for trial in settings]
        if isinstance(kind, CategoricalDistribution):
            column = [kind.to_internal_repr(choice) for choice in column]
            bounds = (-0.5, len(kind.choices) - 0.5)
        else:
            assert isinstance(kind, (FloatDistribution, IntDistribution))
            bounds = (kind.low, kind.high)
        low.append(min(bounds[0], *column))  # ranges that were changed between trials hold all of them
        high.append(max(bounds[1], *column))
        columns.append(column)
    if not columns:
        return {}
    forest = RandomForestRegressor(n_estimators=trees, random_state=SEED)
    forest.fit(np.array(columns, dtype=float).T, values)
    corners = np.array(low, dtype=float), np.array(high, dtype=float)
    shares = [share for tree in forest.estimators_ if (share := _shares(tree.tree_, *corners)) is not None]
    if not shares:
        return {}
    low_end, high_end = np.quantile(shares, (0.1, 0.9), axis=0)
    found = zip(np.mean(shares, axis=0).tolist(), low_end.tolist(), high_end.tolist(), strict=True)
    return {name: Share(*share) for name, share in zip(ranges, found, strict=True)}


def _shares(tree: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """Share of each column in the variance of one tree over the box from `low` to `high`; None if it is constant."""
    import numpy as np

    starts, ends, heights = [], [], []
    waiting = [(0, low, high)]
    while waiting:
        node, start, end = waiting.pop()
        column, threshold = tree.feature[node], tree.threshold[node]
        if column < 0:
            starts.append(start)
            ends.append(end)
            heights.append(tree.value[node].item())
            continue
        left, right = end.copy(), start.copy()
        left[column] = right[column] = threshold
        waiting += [(tree.children_left[node], start, left), (tree.children_right[node], right, end)]
    start, end, height = np.array(starts), np.array(ends), np.array(heights)
    sides = (end - start) / (high - low)
    volume = sides.prod(axis=1)
    height = height - volume @ height
    variance = volume @ height**2
    if variance <= 1e-24 * np.max(height**2):
        return None
    shares = []
    for column in range(len(low)):
        edges = np.unique([*start[:, column], *end[:, column]])
        middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / (high - low)[column]
        inside = (start[:, column] <= middles[:, None]) & (middles[:, None] < end[:, column])
        across = np.divide(volume, sides[:, column], out=np.zeros_like(volume), where=sides[:, column] > 0)
        shares.append(widths @ (inside @ (across * height)) ** 2 / variance)
    return np.array(shares)
