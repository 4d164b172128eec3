"""Optuna behind Ray's interface: seeds, states, the persistent journal, and what a kill leaves of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ddarts_core.errors import UserError
from tuning.config import EXTRA_PACKAGES, SEARCHERS, resolve_sweep
from tuning.searcher import StudySearch, open_journal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::optuna.exceptions.ExperimentalWarning")

SPACE = {
    "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0},
    "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]},
    "ablation.weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"ablation.loss": ["centered"]}},
}
METRIC = "objective/derived/held_out/accuracy"


def make(folder: Path, seed: int = 0, **tune: Any) -> StudySearch:
    config = resolve_sweep({"space": SPACE, "tune": tune})
    return StudySearch(config.build_space(), config.tune, seed, folder / "optuna.log", "study")


def epoch(accuracy: float, epochs: int, **more: Any) -> dict[str, Any]:
    return {"held_out/accuracy": accuracy, "epochs": epochs, **more}


def end(value: float, epochs: int = 2) -> dict[str, Any]:
    return epoch(0.3, epochs, state="COMPLETED", **{METRIC: value})


def journal(folder: Path, directions: int = 1) -> list[optuna.trial.FrozenTrial]:
    names = ["maximize", "minimize"][:directions]
    return open_journal(folder / "optuna.log", "study", {"directions": names}).get_trials()


def test_every_end_of_a_trial_has_its_state(tmp_path: Path) -> None:
    search = make(tmp_path)
    for name in "abcd":
        search.suggest(name)
        search.on_trial_result(name, epoch(0.2, 1))
    search.on_trial_complete("a", end(0.9))
    search.on_trial_complete("b", epoch(0.25, 2))
    search.on_trial_complete("c", epoch(0.2, 1, state="FAILED", reason="loss is nan"))
    search.on_trial_complete("d", None, error=True)
    states = [trial.state for trial in journal(tmp_path)]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    complete, pruned, *_ = journal(tmp_path)
    assert complete.value == 0.9
    assert pruned.intermediate_values == {1: 0.2, 2: 0.25}
    assert complete.user_attrs == {"number": 0, "trial_id": "00000", "ray_trial_id": "a"}


def test_a_supernets_accuracy_is_never_the_objective(tmp_path: Path) -> None:
    """An early-stopped trial with a high supernet accuracy must not beat a finished one."""
    search = make(tmp_path)
    search.suggest("a")
    search.suggest("b")
    search.on_trial_complete("a", end(0.5))
    search.on_trial_complete("b", epoch(0.99, 1))
    study = open_journal(tmp_path / "optuna.log", "study", {"directions": ["maximize"]})
    assert study.best_trial.number == 0


def test_restored_snapshot_repeats_ends_without_counting_twice(tmp_path: Path) -> None:
    search = make(tmp_path)
    search.suggest("a")
    search.save(str(tmp_path / "snapshot"))
    search.on_trial_complete("a", end(0.9))
    ahead = search.suggest("b")

    restored = make(tmp_path)
    restored.restore(str(tmp_path / "snapshot"))
    restored.on_trial_complete("a", end(0.9))
    assert len(journal(tmp_path)) == 1
    assert restored.suggest("c") == ahead
    restored.on_trial_complete("c", end(0.8))
    assert [trial.user_attrs["number"] for trial in journal(tmp_path)] == [0, 1]


@pytest.mark.parametrize("searcher", sorted(SEARCHERS.keys() - EXTRA_PACKAGES.keys() - {"grid"}))
def test_the_seed_decides(tmp_path: Path, searcher: str) -> None:
    def draws(seed: int, folder: Path) -> list[dict[str, Any]]:
        folder.mkdir()
        search = make(folder, seed, searcher=searcher, num_startup_trials=3)
        found = []
        for index in range(6):
            found.append(search.suggest(str(index)))
            search.on_trial_complete(str(index), end(index / 10))
        return found

    first, again, other = (draws(seed, tmp_path / name) for seed, name in ((1, "a"), (1, "b"), (2, "c")))
    assert first == again != other
    assert [draw["number"] for draw in first] == list(range(6))


def test_two_objectives_and_first_points(tmp_path: Path) -> None:
    point = {"search.w_zero_one": 1.0, "ablation.loss": "none"}
    search = make(tmp_path, second_objective="parameters", points_to_evaluate=[point])
    assert search.suggest("a") == {"number": 0, "params": point}
    search.on_trial_result("a", epoch(0.2, 1))
    search.on_trial_complete("a", {**end(0.9), "objective/parameters": 1000})
    search.suggest("b")
    search.on_trial_complete("b", epoch(0.3, 1))
    complete, pruned = journal(tmp_path, directions=2)
    assert complete.values == [0.9, 1000.0]
    assert pruned.state == TrialState.PRUNED


def test_a_searcher_whose_package_is_missing_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.config.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"optuna-botorch needs .*\(botorch, optuna_integration\): pip install botorch"):
        resolve_sweep({"space": SPACE, "tune": {"searcher": "optuna-botorch"}})
