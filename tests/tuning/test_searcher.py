"""Optuna's proposals: what they follow from, what is given, and the journal that is made from the trials' folders."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.driver.rebuild import rebuild_journal
from ddarts_tuning.schedulers.time_budget import TimeBudget
from ddarts_tuning.searchers.journal import JOURNAL, Journal, frozen, open_journal
from ddarts_tuning.searchers.searcher import StudySearch, points_of, propose
from ddarts_tuning.settings.config import EXTRA_PACKAGES, SweepConfig, resolve_sweep
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.settings.tune import ACCURACY, SEARCHERS
from ddarts_tuning.store.study import Held, Study, trial_dir
from ddarts_tuning.trial.trial_record import begin
from optuna.trial import FrozenTrial, TrialState, create_trial

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.studies.study_files import read_json, write_json

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::optuna.exceptions.ExperimentalWarning")

SPACE = {
    "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0},
    "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]},
    "ablation.weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"ablation.loss": ["centered"]}},
}
METRIC = f"derived/{ACCURACY}"


def sweep(seed: int = 0, **tune: Any) -> SweepConfig:
    return resolve_sweep({"seed": seed, "space": SPACE, "tune": tune})


def make_study(path: Path, config: SweepConfig) -> Study:
    objectives = [{"metric": metric, "mode": mode} for metric, mode in config.tune.objectives]
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config)}
    return create_study(path, {**stored, "objectives": objectives, "state": "RUNNING"})


def search(study: Study, config: SweepConfig) -> StudySearch:
    return StudySearch(Held(study), config, config.build_space(), TimeBudget(None))


def end(study: Study, number: int, state: str, value: float | None = None, epochs: int = 0) -> None:
    """What a trial that ended leaves in its folder."""
    folder = trial_dir(study.path, number)
    objectives = None if value is None else {METRIC: value, "parameters": 1000}
    write_json(folder / "trial.json", {**read_json(folder / "trial.json"), "state": state, "objectives": objectives})
    records = [EpochRecord(epoch, "search", {ACCURACY: 0.1 * (epoch + 1)}) for epoch in range(epochs)]
    write_jsonl(folder / "records.jsonl", records)


def params_of(study: Study, number: int) -> dict[str, Any]:
    return dict(read_json(trial_dir(study.path, number) / "trial.json")["params"])


def journal(study: Study, directions: int = 1) -> list[FrozenTrial]:
    names = ["maximize", "minimize"][:directions]
    return open_journal(study.path / JOURNAL, study.name, {"directions": names}).get_trials()


@pytest.mark.parametrize("searcher", sorted(SEARCHERS.keys() - EXTRA_PACKAGES.keys() - {"grid"}))
def test_a_proposal_follows_from_the_seed_the_number_and_the_trials_that_ended(searcher: str, study_path: Path) -> None:
    """In whatever order they ended, by whatever process, and whatever else was proposed before."""
    many = 51 if searcher == "optuna-nsga2" else 12  # NSGA-II has 50 in a generation

    def ended(config: SweepConfig) -> dict[int, FrozenTrial]:
        found = {}
        for number in range(many):
            params, notes = propose(config.build_space(), config.tune, 1, number, [], {})
            record = {"number": number, "trial_id": str(number), "state": "COMPLETED", "params": params, "seconds": 1.0}
            record |= {"objectives": {METRIC: params["search.w_zero_one"]}, "begun": "2026-01-01T00:00:00+00:00"}
            record |= {"searcher": notes}
            found[number] = frozen(record, dict(config.build_space().distributions), config.tune, [])
        return found

    config = sweep(1, searcher=searcher, num_startup_trials=3)
    space, known = config.build_space(), ended(config)

    def draws(known: dict[int, FrozenTrial], seed: int = 1) -> list[dict[str, Any]]:
        return [propose(space, config.tune, seed, number, known.values(), {})[0] for number in range(60, 63)]

    first = draws(known)
    assert draws(ended(config)) == first != draws(known, seed=2)
    assert first[0] != first[1]
    assert (draws({}) == first) == (searcher == "random")


def test_what_was_begun_goes_first_and_no_number_is_drawn_twice(study_path: Path) -> None:
    config = sweep(num_samples=4, points_to_evaluate=[{"search.w_zero_one": 1.0, "ablation.loss": "none"}])
    study = make_study(study_path, config)
    first = search(study, config)
    asked = [first.suggest(str(index)) for index in range(3)]
    assert [each["number"] for each in asked] == [0, 1, 2]
    drawn = [params_of(study, number) for number in range(3)]
    assert drawn[0] == {"search.w_zero_one": 1.0, "ablation.loss": "none"} and drawn[1] != drawn[2]
    end(study, 1, "COMPLETED", 0.5)
    resumed = search(study, config)  # as after a kill: nothing but the folder is left
    asked = [resumed.suggest(str(index)) for index in range(5)]
    assert [each["number"] for each in asked[:3]] == [0, 2, 3] and asked[3:] == ["FINISHED"] * 2
    assert [params_of(study, number) for number in range(3)] == drawn
    assert {each["study"] for each in asked[:3]} == {str(study_path)}
    end(study, 0, "COMPLETED", 0.7)
    assert search(study, sweep(num_samples=9)).suggest("a")["number"] == 2


def test_given_points_belong_to_numbers(study_path: Path) -> None:
    """Those of the file to the first trials, those of an extension to the first of its own."""
    points: list[Any] = [{"search.w_zero_one": value} for value in (0.5, 1.0, 2.0)]
    config = sweep(num_samples=6, points_to_evaluate=points)
    rounds = [{"num_samples": 4, "points_to_evaluate": []}, {"num_samples": 2, "points_to_evaluate": points[2:]}]
    study = make_study(study_path, config).update(rounds=rounds)
    assert points_of(study, config.build_space()) == {0: points[0], 1: points[1], 4: points[2]}


def test_every_end_of_a_trial_has_its_state_in_the_journal(study_path: Path) -> None:
    """Once, under the study's numbers however they end, and again as it was when it is made anew."""
    config = sweep(num_samples=5)
    study = make_study(study_path, config)
    searcher = search(study, config)
    for index in range(5):
        searcher.suggest(str(index))
    end(study, 3, "COMPLETED", 0.9, epochs=2)
    kept = Journal(study)
    states = [trial.state.name for trial in journal(study)]
    assert states == ["RUNNING"] * 3 + ["COMPLETE"], "4 has no number before it ends, or a later one does"
    end(study, 0, "PRUNED", epochs=2)
    kept.add(read_json(trial_dir(study.path, 0) / "trial.json"))
    end(study, 1, "FAILED", epochs=1)
    Journal(study).add(read_json(trial_dir(study.path, 0) / "trial.json"))
    found = journal(study)
    assert [trial.state.name for trial in found] == ["PRUNED", "FAIL", "RUNNING", "COMPLETE"]
    assert [trial.user_attrs["number"] for trial in found] == [trial.number for trial in found] == [0, 1, 2, 3]
    assert found[3].value == 0.9 and found[0].intermediate_values == {1: 0.1, 2: 0.2}
    assert [trial.params for trial in found] == [params_of(study, number) for number in range(4)]
    study_of_optuna = open_journal(study.path / JOURNAL, study.name, {"directions": ["maximize"]})
    assert study_of_optuna.best_trial.number == 3, "a supernet's accuracy is never the objective"
    assert study_of_optuna.metric_names == [METRIC] and study_of_optuna.user_attrs["path"] == str(study.path)
    (study.path / JOURNAL).write_text("damaged\n")
    assert rebuild_journal(study) == 3
    for trial, twin in zip(journal(study), found, strict=True):
        assert (trial.params, trial.values, trial.state) == (twin.params, twin.values, twin.state)
        assert (trial.intermediate_values, trial.distributions) == (twin.intermediate_values, twin.distributions)
        assert trial.datetime_start == twin.datetime_start


def test_a_journal_numbered_by_the_ends_of_trials_is_made_anew(study_path: Path) -> None:
    """As an older version did; and a trial has its time of end in the journal, whenever it is made."""
    study = make_study(study_path, sweep(num_samples=2))
    for number in (0, 1):
        begin(study, number, {"search.w_zero_one": 1.0, "ablation.loss": "none"})
        end(study, number, "COMPLETED", 0.5)
    file = trial_dir(study.path, 0) / "trial.json"
    write_json(file, {**read_json(file), "ended": "2030-01-02T03:04:05.000000+00:00"})
    old = open_journal(study.path / JOURNAL, study.name, {"directions": ["maximize"]})
    for number in (1, 0):
        old.add_trial(create_trial(value=0.5, user_attrs={"number": number}))
    Journal(study)
    first, second = journal(study)
    assert [first.user_attrs["number"], second.user_attrs["number"]] == [0, 1]
    assert first.datetime_complete.astimezone(timezone.utc) == datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_two_objectives(study_path: Path) -> None:
    config = sweep(num_samples=2, second_objective="parameters")
    study = make_study(study_path, config)
    begin(study, 0, {"search.w_zero_one": 1.0, "ablation.loss": "none"})
    begin(study, 1, {"search.w_zero_one": 2.0, "ablation.loss": "none"})
    end(study, 0, "COMPLETED", 0.9, epochs=1)
    end(study, 1, "PRUNED", epochs=1)
    Journal(study)
    complete, pruned = journal(study, directions=2)
    assert complete.values == [0.9, 1000.0] and pruned.state == TrialState.PRUNED


def test_a_limit_moves_what_is_proposed() -> None:
    """Large w_zero_one is best and twice too large: without the limit it is proposed, with it what is within."""

    def proposals(**limits: Any) -> list[float]:
        config = sweep(1, num_startup_trials=3, limits=limits)
        space, known = config.build_space(), []
        for n in range(20):
            params, notes = propose(space, config.tune, 1, n, [], {})
            record = {"number": n, "trial_id": str(n), "state": "COMPLETED", "params": params, "seconds": 1.0}
            record |= {"objectives": {METRIC: params["search.w_zero_one"]}, "begun": "2026-01-01T00:00:00+00:00"}
            record |= {"cost": {"parameters": 1000 * params["search.w_zero_one"], "macs": 1}, "searcher": notes}
            known.append(frozen(record, dict(space.distributions), config.tune, []))
        drawn = (propose(space, config.tune, 1, 60 + k, known, {})[0] for k in range(8))
        return [params["search.w_zero_one"] for params in drawn]

    free, limited = proposals(), proposals(parameters=1000)
    assert sum(value > 1 for value in free) >= 6 and sum(value > 1 for value in limited) <= 3, (free, limited)
    assert proposals(macs=1) == free, "all are within: at the limit is kept"


def test_a_searcher_whose_package_is_missing_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddarts_tuning.settings.config.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"optuna-botorch needs .*\(botorch, optuna_integration\): pip install botorch"):
        resolve_sweep({"space": SPACE, "tune": {"searcher": "optuna-botorch"}})
