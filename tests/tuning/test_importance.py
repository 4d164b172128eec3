"""Importance from a journal of trials whose objective is known to depend on one setting."""

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
from ddarts_tuning.store.backend import Folder
from ddarts_tuning.store.study import Study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sklearn.ensemble import RandomForestRegressor

SPACE = {"search.lr": FloatDistribution(0, 1), "method": CategoricalDistribution(["a", "b"])}


@pytest.fixture
def journal(tmp_path: Path) -> optuna.Study:
    return open_journal(tmp_path / "optuna.log", "toy", {"directions": ["maximize"]})


def add(study: optuna.Study, count: int, *, lr: float | None = None) -> None:
    for k in range(count):
        params = {"search.lr": k / count if lr is None else lr, "method": "ab"[k % 2]}
        value = math.sin(4 * params["search.lr"])
        study.add_trial(create_trial(params=params, distributions=SPACE, value=value))
    study.add_trial(
        create_trial(params={"search.lr": 0.5, "method": "a"}, distributions=SPACE, state=TrialState.PRUNED)
    )


def study_at(path: Path) -> Study:
    return Study(Folder(path), {"name": "toy"})


def test_the_setting_that_matters_comes_first(tmp_path: Path, journal: optuna.Study) -> None:
    add(journal, 24)
    found = importances(study_at(tmp_path))
    assert list(found) == ["search.lr", "method"]
    assert 0.9 < found["search.lr"].mean <= sum(share.mean for share in found.values()) <= 1
    assert found == importances(study_at(tmp_path))


@pytest.mark.parametrize("kind", ["together", "noise"])
def test_what_no_setting_explains_by_itself_is_nobodys_share(tmp_path: Path, journal: optuna.Study, kind: str) -> None:
    """An objective of whether exactly one setting is high, and one that no setting has a part in."""
    numbers = random.Random(0)
    trials = []
    for k in range(120):
        params = {"search.lr": numbers.random(), "method": "ab"[k % 2]}
        value = float((params["search.lr"] > 0.5) != (params["method"] == "a"))
        value = value if kind == "together" else numbers.random()
        trials.append(create_trial(params=params, distributions=SPACE, value=value))
    journal.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importances(study_at(tmp_path))
    assert set(found) == set(SPACE) and sum(share.mean for share in found.values()) < (
        0.2 if kind == "together" else 0.7
    )


def test_the_work_is_bounded_however_many_trials(
    tmp_path: Path, journal: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[float]]] = []

    def counted(settings: list[dict[str, Any]], values: list[float], ranges: Any, trees: int) -> dict[str, Share]:
        seen.append((trees, [trial["search.lr"] for trial in settings]))
        return main_effects(settings, values, ranges, trees)

    monkeypatch.setattr(importance, "main_effects", counted)
    monkeypatch.setattr(importance, "WHOLE_FOREST", 12)
    monkeypatch.setattr(importance, "TRIALS", 20)
    add(journal, 12)
    importances(study_at(tmp_path))
    add(journal, 40)
    assert importances(study_at(tmp_path))
    (few, all_of_few), (many, some_of_many) = seen
    assert (few, len(all_of_few)) == (64, 12) and (many, len(some_of_many)) == (16, 20)
    assert (some_of_many[0], some_of_many[-1]) == (0.0, 39 / 40)


def test_nothing_is_said_without_evidence(tmp_path: Path, journal: optuna.Study) -> None:
    assert importances(study_at(tmp_path / "elsewhere")) == {}
    assert importances(study_at(tmp_path)) == {}
    add(journal, 12, lr=0.0)  # only the method varies, and the objective does not
    assert importances(study_at(tmp_path)) == {}
    elsewhere = tmp_path / "few"
    elsewhere.mkdir()
    few = open_journal(elsewhere / "optuna.log", "toy", {"directions": ["maximize"]})
    add(few, 9)
    assert importances(study_at(elsewhere)) == {}, "of nine trials noise alone has nearly all"
    add(few, 1)
    assert importances(study_at(elsewhere))


@pytest.mark.parametrize("count", [3, 10])
def test_shares_are_those_of_the_trees_on_a_grid(count: int) -> None:
    """Each tree asked at the middle of every box that its thresholds cut, and averaged over all but one setting."""
    numbers = random.Random(count)
    kinds = {
        "choice": CategoricalDistribution(["a", "b", "c"]),
        "rate": FloatDistribution(0.1, 2),
        "width": IntDistribution(2, 5),
    }
    settings = [
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
    kinds = {"a": FloatDistribution(0, 3), "b": FloatDistribution(0, 7)}
    for value in (0.1, 0.3, 0.7, 0.9):
        settings = [{"a": 0.1 * k, "b": (7 * k % 10) / 3} for k in range(10)]
        found = main_effects(settings, [value] * 9 + [value / 3], kinds, 64)
        assert 0 < sum(share.mean for share in found.values()) <= 1 + 1e-9
    assert main_effects(settings, [0.1] * 10, kinds, 64) == {}


def test_a_journal_is_opened_without_a_word(tmp_path: Path, journal: optuna.Study) -> None:
    """Also in a process that took the searcher over instead of making it."""
    optuna.logging.set_verbosity(optuna.logging.INFO)
    open_journal(tmp_path / "optuna.log", "toy", {"directions": ["maximize"]})
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
