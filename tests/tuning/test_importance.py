"""Importance from records of trials whose objective is known to depend on one setting."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ddarts_tuning.searchers import importance
from ddarts_tuning.searchers.importance import Share, importances, main_effects
from ddarts_tuning.searchers.journal import open_journal
from ddarts_tuning.settings.distributions import (
    AnyDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from sklearn.ensemble import RandomForestRegressor

SPACE: dict[str, Any] = {
    "search.lr": {"type": "float", "low": 0, "high": 1},
    "method": {"type": "categorical", "choices": ["a", "b"]},
}
STUDY: dict[str, Any] = {"config": {"space": SPACE}, "objectives": [{"metric": "score", "mode": "max"}]}

Trials = list[dict[str, Any]]


def trial(number: int, params: dict[str, Any], value: float) -> dict[str, Any]:
    return {
        **{"trial_id": f"{number:05d}", "number": number, "state": "COMPLETED"},
        **{"params": params, "objectives": {"score": value}},
    }


def toys(count: int, *, lr: float | None = None) -> Trials:
    """Trials whose objective depends on one setting, newest first, and one that was stopped early."""
    rates = [k / count if lr is None else lr for k in range(count)]
    found = [trial(k, {"search.lr": rate, "method": "ab"[k % 2]}, math.sin(4 * rate)) for k, rate in enumerate(rates)]
    stopped = trial(count, {"search.lr": 0.5, "method": "a"}, 0.0) | {"state": "PRUNED", "objectives": None}
    return [stopped, *reversed(found)]


def test_the_setting_that_matters_comes_first() -> None:
    found = importances(STUDY, toys(24))
    assert list(found) == ["search.lr", "method"]
    assert 0.9 < found["search.lr"].mean <= sum(share.mean for share in found.values()) <= 1
    assert found == importances(STUDY, toys(24)[::-1])


def test_trials_count_with_the_values_that_they_have_of_todays_space() -> None:
    """Half of the trials were begun with other names of the methods, and one more could not be had today."""
    trials, other = toys(24), trial(99, {"search.lr": 7.0}, 1e6)
    renamed = [one | {"params": one["params"] | {"method": "old"}} if one["number"] < 12 else one for one in trials]
    earlier = {one["trial_id"]: {"params": one["params"]} for one in trials if one["number"] < 12}
    study = STUDY | {"earlier": earlier | {other["trial_id"]: {"apart": ["search.lr"]}}}
    assert importances(study, [*renamed, other]) == importances(STUDY, trials)


@pytest.mark.parametrize("kind", ["together", "noise"])
def test_what_no_setting_explains_by_itself_is_nobodys_share(kind: str) -> None:
    """An objective of whether exactly one setting is high, and one that no setting has a part in."""
    numbers = random.Random(0)
    trials = []
    for k in range(120):
        params: dict[str, Any] = {"search.lr": numbers.random(), "method": "ab"[k % 2]}
        value = float((params["search.lr"] > 0.5) != (params["method"] == "a"))
        trials.append(trial(k, params, value if kind == "together" else numbers.random()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importances(STUDY, trials)
    assert set(found) == set(SPACE) and sum(share.mean for share in found.values()) < (
        0.2 if kind == "together" else 0.7
    )


def test_the_work_is_bounded_however_many_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[float]]] = []

    def counted(settings: Trials, values: list[float], ranges: Any, trees: int) -> dict[str, Share]:
        seen.append((trees, [trial["search.lr"] for trial in settings]))
        return main_effects(settings, values, ranges, trees)

    monkeypatch.setattr(importance, "main_effects", counted)
    monkeypatch.setattr(importance, "WHOLE_FOREST", 12)
    monkeypatch.setattr(importance, "TRIALS", 20)
    importances(STUDY, toys(12))
    assert importances(STUDY, toys(40))
    (few, all_of_few), (many, some_of_many) = seen
    assert (few, len(all_of_few)) == (64, 12) and (many, len(some_of_many)) == (16, 20)
    assert (some_of_many[0], some_of_many[-1]) == (0.0, 39 / 40)


def test_nothing_is_said_without_evidence() -> None:
    assert importances(STUDY, []) == {}
    assert importances(STUDY, toys(12, lr=0.0)) == {}, "only the method varies, and the objective does not"
    assert importances(STUDY, toys(9)) == {}, "of nine trials noise alone has nearly all"
    assert importances(STUDY, toys(10))
    assert importances({**STUDY, "config": {}}, toys(10)) == {}, "a search by itself has no space"


@pytest.mark.parametrize("count", [3, 10])
def test_shares_are_those_of_the_trees_on_a_grid(count: int) -> None:
    """Each tree asked at the middle of every box that its thresholds cut, and averaged over all but one setting."""
    numbers = random.Random(count)
    kinds: dict[str, AnyDistribution] = {
        "choice": CategoricalDistribution(type="categorical", choices=["a", "b", "c"]),
        "rate": FloatDistribution(type="float", low=0.1, high=2),
        "width": IntDistribution(type="int", low=2, high=5),
    }
    settings: Trials = [
        {"choice": "abc"[numbers.randrange(3)], "rate": numbers.uniform(0.1, 2), "width": numbers.randrange(2, 6)}
        for _ in range(count)
    ]
    values = [numbers.random() for _ in settings]
    rows = [["abc".index(trial["choice"]), trial["rate"], trial["width"]] for trial in settings]
    forest = RandomForestRegressor(n_estimators=16, random_state=0).fit(rows, values)
    expected = []
    for tree in forest.estimators_:
        edges = [
            np.unique([low, high, *tree.tree_.threshold[tree.tree_.feature == column]])
            for column, (low, high) in enumerate([(-0.5, 2.5), (0.1, 2), (2, 5)])
        ]
        middles, widths = ([f(e) for e in edges] for f in (lambda e: (e[1:] + e[:-1]) / 2, np.diff))
        grid = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1)
        heights = tree.predict(grid.reshape(-1, 3)).reshape(grid.shape[:-1])
        if np.ptp(heights) == 0:
            continue
        a, b, c = (width / width.sum() for width in widths)
        mean = np.einsum("ijk,i,j,k", heights, a, b, c)
        spread = np.einsum("ijk,i,j,k", (heights - mean) ** 2, a, b, c)
        one = [
            np.einsum(f"ijk,{x},{y}->{z}", heights, p, q)
            for x, y, z, p, q in (("j", "k", "i", b, c), ("i", "k", "j", a, c), ("i", "j", "k", a, b))
        ]
        expected.append([w @ (m - mean) ** 2 / spread for w, m in zip((a, b, c), one, strict=True)])
    found = main_effects(settings, values, kinds, 16)
    assert [share.mean for share in found.values()] == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-9)
    assert sum(share.mean for share in found.values()) <= 1 + 1e-9
    for share, trees in zip(found.values(), np.transpose(expected), strict=True):
        lowest, *_, highest = statistics.quantiles(trees.tolist(), n=10, method="inclusive")
        assert (share.low, share.high) == pytest.approx((lowest, highest), abs=1e-9)


def test_constant_trees_have_no_share() -> None:
    """Nine of ten objectives are equal, so a third of the trees see only these."""
    kinds: dict[str, AnyDistribution] = {
        name: FloatDistribution(type="float", low=0, high=high) for name, high in (("a", 3), ("b", 7))
    }
    for value in (0.1, 0.3, 0.7, 0.9):
        settings = [{"a": 0.1 * k, "b": (7 * k % 10) / 3} for k in range(10)]
        found = main_effects(settings, [value] * 9 + [value / 3], kinds, 64)
        assert 0 < sum(share.mean for share in found.values()) <= 1 + 1e-9
    assert main_effects(settings, [0.1] * 10, kinds, 64) == {}


def test_a_journal_is_opened_without_a_word(tmp_path: Path) -> None:
    """Also in a process that took the searcher over instead of making it."""
    optuna.logging.set_verbosity(optuna.logging.INFO)
    open_journal(tmp_path / "optuna.log", "toy", {"directions": ["maximize"]})
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
