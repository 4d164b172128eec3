"""Importance from a journal of trials whose objective is known to depend on one setting."""

from __future__ import annotations

import math
import random
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from tuning import importance
from tuning.importance import importances
from tuning.searcher import open_journal
from tuning.study import Study

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
    return Study(path, {"name": "toy"})


def test_the_setting_that_matters_comes_first(tmp_path: Path, journal: optuna.Study) -> None:
    add(journal, 24)
    found = importances(study_at(tmp_path))
    assert list(found) == ["search.lr", "method"]
    assert 0.9 < found["search.lr"] <= sum(found.values()) <= 1
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
    assert set(found) == set(SPACE) and sum(found.values()) < (0.2 if kind == "together" else 0.7)


def test_the_work_is_bounded_however_many_trials(
    tmp_path: Path, journal: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[float]]] = []

    class Counted(optuna.importance.FanovaImportanceEvaluator):
        def __init__(self, *, n_trees: int, seed: int) -> None:
            super().__init__(n_trees=n_trees, seed=seed)
            self.n_trees = n_trees

        def evaluate(self, study: optuna.Study, *rest: Any, **others: Any) -> dict[str, float]:
            seen.append((self.n_trees, [trial.params["search.lr"] for trial in study.trials]))
            return super().evaluate(study, *rest, **others)

    monkeypatch.setattr(optuna.importance, "FanovaImportanceEvaluator", Counted)
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
    add(journal, 1)
    assert importances(study_at(tmp_path)) == {}
    add(journal, 3, lr=0.0)  # only the method varies, and the objective does not
    assert importances(study_at(tmp_path)) == {}


def test_a_journal_is_opened_without_a_word(tmp_path: Path, journal: optuna.Study) -> None:
    """Also in a process that took the searcher over instead of making it."""
    optuna.logging.set_verbosity(optuna.logging.INFO)
    open_journal(tmp_path / "optuna.log", "toy", {"directions": ["maximize"]})
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
