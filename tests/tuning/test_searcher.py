"""Optuna's proposals: what they follow from, what is given, and the journal that is made from the trials' folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.driver.rebuild import rebuild_journal
from ddarts_tuning.schedulers.time_budget import TimeBudget
from ddarts_tuning.searchers.conformance import LAWS
from ddarts_tuning.searchers.journal import JOURNAL, Journal, frozen, open_journal
from ddarts_tuning.searchers.searcher import StudySearch, points_of, propose
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.settings.searchers import SEARCHERS
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.settings.tune import ACCURACY, TuneConfig
from ddarts_tuning.store.study import Held, Study, trial_dir
from ddarts_tuning.trial.trial_record import begin
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ddarts_cli.main import run
from ddarts_core.extension.conformance import laws, unlawful
from ddarts_core.ground import plugins
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


@pytest.mark.parametrize("name", [name for name in SEARCHERS if name != "grid" and not SEARCHERS[name].packages])
@pytest.mark.parametrize(("law", "check"), LAWS["searcher"], ids=[law for law, _ in LAWS["searcher"]])
def test_a_searcher_keeps_the_laws(name: str, law: str, check: Callable[[str], None]) -> None:
    check(name)


def test_the_searcher_of_the_documents(my_searcher: Path, study_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It keeps the laws, proposes in a sweep, and is known only while its plug-in is loaded."""
    assert run(["check-plugin", str(my_searcher)]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines == [f"kept: searcher mutation: {law}" for law, _ in LAWS["searcher"]]
    config = sweep(searcher="mutation")
    study = make_study(study_path, config)
    driver = search(study, config)
    for number in range(4):
        driver.suggest(str(number))
        end(study, number, "COMPLETED", 0.5 if number == 0 else 0.1)
    best, *others = (params_of(study, number) for number in range(4))
    kept = [[path for path in best if params.get(path) == best[path]] for params in others]
    assert any(kept) and any(path not in found for found in kept for path in best)
    plugins.unload(plugins.loaded()[0])
    with pytest.raises(UserError, match=r"tune\.searcher: unknown searcher 'mutation': choose one of .*optuna-tpe"):
        sweep(searcher="mutation")


LAWLESS = """
import itertools
import random

from optuna.samplers import RandomSampler, TPESampler

from ddarts_tuning.settings.searchers import SEARCHERS, Searcher


class Outside(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        drawn = super().sample_independent(study, trial, name, distribution)
        return drawn + 100 if name == "search.epochs" else drawn


class Text(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        return "abc"


class Faulty(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        raise ValueError("a fault of its own")


numbers = itertools.count()


def register(tables):
    tables.add(SEARCHERS, "outside", Searcher("a", lambda seed, tune: Outside(seed)))
    tables.add(SEARCHERS, "text", Searcher("a", lambda seed, tune: Text(seed)))
    tables.add(SEARCHERS, "faulty", Searcher("a", lambda seed, tune: Faulty(seed)))
    tables.add(SEARCHERS, "unseeded", Searcher("b", lambda seed, tune: RandomSampler()))
    tables.add(SEARCHERS, "counting", Searcher("c", lambda seed, tune: RandomSampler(next(numbers))))
    tables.add(SEARCHERS, "none", Searcher("d", lambda seed, tune: seed))
    tables.add(SEARCHERS, "fixed", Searcher("e", lambda seed, tune: RandomSampler(0)))
"""


def test_searchers_that_break_the_laws(tmp_path: Path) -> None:
    path = tmp_path / "my_searcher.py"
    path.write_text(LAWLESS)
    found: dict[str, list[str]] = {}
    for law in laws(plugins.load(str(path)).registry, LAWS):
        if (how := unlawful(law)) is not None:
            found.setdefault(law.entry.removeprefix("searcher "), []).append(how)
    outside = r"UserError: searcher 'outside' proposed search.epochs 1\d\d for trial 0, which is outside of the space"
    assert re.match(outside, found["outside"][0]), found["outside"]
    no_value = "UserError: searcher 'text' proposed for trial 0 what is no value ('abc' is not a valid type."
    assert found["text"][0].startswith(no_value) and found["text"][0].endswith("or choose another with tune.searcher")
    assert found["faulty"] == ["ValueError: a fault of its own"] * 2
    for name in ("unseeded", "counting"):
        second, stopped = found[name]
        assert "of a second study with the same seed" in second and "stopped after 1 trials" in stopped
    assert found["none"][0].endswith("which is no optuna.samplers.BaseSampler")
    assert re.match(
        r"UserError: searcher 'none' builds \d+, which is no sampler of Optuna's: mend it", found["none"][1]
    )
    assert found["fixed"] == ["studies of two seeds have the same trials"]


def test_a_fault_of_a_searcher_that_is_no_plugins_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(RandomSampler, "sample_independent", faulty)
    with pytest.raises(ValueError, match=r"^a fault$") as raised:
        propose(sweep(searcher="random").build_space(), sweep(searcher="random").tune, 1, 0, [], {})
    assert not isinstance(raised.value, UserError)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tables.add(SEARCHERS, 'random', SEARCHERS['grid'])", "there is a searcher 'random' already: choose another"),
        ("tables.add(SEARCHERS, 'mine', print)", "searcher 'mine': give a Searcher, not <built-in function print>"),
        (
            "tables.add(SEARCHERS, 'mine', type(SEARCHERS['grid'])('constant', lambda: 3))",
            "searcher of 'constant': give a function (seed, tune) that builds a sampler of Optuna's, not <function",
        ),
        ("tables.add(SEARCHERS, 'a b', SEARCHERS['grid'])", "the name 'a b' of a searcher should be up to 100 letters"),
    ],
)
def test_what_is_no_searcher(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "my_searcher.py"
    path.write_text(f"from ddarts_tuning.settings.searchers import SEARCHERS\ndef register(tables):\n    {line}\n")
    with pytest.raises(UserError) as refused:
        plugins.load(str(path))
    assert words in str(refused.value) and plugins.loaded() == ()


@pytest.mark.parametrize("searcher", ["optuna-tpe", "optuna-nsga2", "random", "grid"])
def test_proposals_follow_from_the_trials_that_ended(searcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those of the searchers that do not learn, also if their samplers are shown the trials."""
    monkeypatch.setattr(
        "ddarts_tuning.searchers.searcher.SEARCHERS", {searcher: replace(SEARCHERS[searcher], learns=True)}
    )
    config = sweep(1)
    config = config.model_copy(update={"tune": TuneConfig(searcher=searcher, num_startup_trials=3)})
    space = config.build_space()
    ended = []
    for number in range(51 if searcher == "optuna-nsga2" else 12):  # NSGA-II has 50 in a generation
        params, notes = propose(space, config.tune, 1, number, [], {})
        record = {"number": number, "trial_id": str(number), "state": "COMPLETED", "params": params, "seconds": 1.0}
        record |= {"objectives": {METRIC: params["search.w_zero_one"]}, "begun": "2026-01-01T00:00:00+00:00"}
        ended.append(frozen({**record, "searcher": notes}, dict(space.distributions), config.tune, []))
    learnt, without = ([propose(space, config.tune, 1, n, known, {})[0] for n in (60, 61)] for known in (ended, []))
    assert learnt[0] != learnt[1] and (learnt == without) == (not SEARCHERS[searcher].learns)


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


def test_a_journal_that_was_cut_anywhere_is_whole_again(study_path: Path) -> None:
    """By a kill or a full disk, within a line or between two; one trial had its number while it ran."""
    study = make_study(study_path, sweep(num_samples=3))
    for number in range(3):
        begin(study, number, {"search.w_zero_one": 0.5 + number / 2, "ablation.loss": "none"})
    end(study, 1, "COMPLETED", 0.5, epochs=2)
    kept = Journal(study)
    for number, state in ((0, "PRUNED"), (2, "FAILED")):
        end(study, number, state, epochs=2)
        kept.add(read_json(trial_dir(study.path, number) / "trial.json"))

    def known() -> list[Any]:
        found = journal(study)
        return [(t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs) for t in found]

    whole, before = (study.path / JOURNAL).read_bytes(), known()
    assert len(before) == 3 and len(whole) > 1000
    for length in range(0, len(whole), 61):
        (study.path / JOURNAL).write_bytes(whole[:length])
        Journal(study)
        assert known() == before, length


def test_150_trials_and_one_more(study_path: Path) -> None:
    """The one follows from all of them, and has its number in the folder and in the journal."""
    config = sweep(num_samples=150)
    study = make_study(study_path, config)
    for number in range(150):
        begin(study, number, {"search.w_zero_one": 0.5 + number / 100, "ablation.loss": "none"})
        end(study, number, "COMPLETED", number / 150)
    more = search(study, sweep(num_samples=151))
    assert more.suggest("a")["number"] == 150 and more.suggest("b") == "FINISHED"
    assert len(more._ended) == study.num_trials - 1 == 150
    end(study, 150, "COMPLETED", 1.0)
    Journal(study)
    assert [trial.user_attrs["number"] for trial in journal(study)] == [*range(151)]


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
