"""Importance from a journal of trials whose objective is known to depend on one setting."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

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


def test_the_setting_that_matters_comes_first_and_shares_sum_to_one(tmp_path: Path, journal: optuna.Study) -> None:
    add(journal, 24)
    found = importances(study_at(tmp_path))
    assert list(found) == ["search.lr", "method"]
    assert found["search.lr"] > 0.9 and sum(found.values()) == pytest.approx(1)
    assert found == importances(study_at(tmp_path))


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
