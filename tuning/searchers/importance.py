"""Which of the proposed settings mattered: the main effects of fANOVA, from the records of a study's trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..settings.distributions import AnyDistribution, CategoricalDistribution, read_distributions
from ..settings.reread import as_today

if TYPE_CHECKING:
    import numpy as np

SEED = 0
"""The seed of the random forest, so that the same trials give the same numbers."""

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


def importances(study: Mapping[str, Any], trials: Iterable[Mapping[str, Any]]) -> dict[str, Share]:
    """Share of the first objective's variance that each setting explains by itself (`main_effects`), largest first.

    The forest has 64 trees for up to 250 trials, and 16 trees for more. If there are more than 1,000 trials it sees
    1,000 of them, evenly spaced by number, with the first and the last trial. With few trials even noise alone gets
    large shares.

    Settings that only some trials have (`when`) are left out, and so are trials that today's space could not yield. The
    result is empty if nothing can be said: if fewer than ten trials are completed, if no setting took two values, or if
    the objective did not take two values.

    Args:
        study: the contents of study.json.
        trials: the records of the trials (trial.json).
    """
    ended = sorted((trial for trial in trials if trial["state"] == "COMPLETED"), key=lambda trial: int(trial["number"]))
    known = [found for trial in ended if (found := as_today(study, trial)) is not None]
    if len(known) < FEWEST:
        return {}
    if len(known) > TRIALS:
        known = [known[round(place * (len(known) - 1) / (TRIALS - 1))] for place in range(TRIALS)]
    settings = [trial["params"] for trial in known]
    common = set.intersection(*map(set, settings))
    ranges = {
        name: kind
        for name, kind in sorted(read_distributions(study["config"].get("space", {})).items())
        if name in common and len({str(params[name]) for params in settings}) > 1
    }
    metric = study["objectives"][0]["metric"]
    values = [float(trial["objectives"][metric]) for trial in known]
    found = main_effects(settings, values, ranges, 64 if len(known) <= WHOLE_FOREST else 16)
    return dict(sorted(found.items(), key=lambda item: -item[1].mean))


def main_effects(
    settings: Sequence[Mapping[str, Any]], values: Sequence[float], ranges: Mapping[str, AnyDistribution], trees: int
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
    from sklearn.ensemble import RandomForestRegressor

    low, high, columns = [], [], []
    for name, kind in ranges.items():
        column = [trial[name] for trial in settings]
        if isinstance(kind, CategoricalDistribution):
            column = [kind.choices.index(choice) for choice in column]
            bounds = (-0.5, len(kind.choices) - 0.5)
        else:
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
