"""Population based training: what may be perturbed, who follows whom, and whether a result can be repeated."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ddarts_tuning.driver.callback import note_end
from ddarts_tuning.driver.extending import extend_sweep
from ddarts_tuning.driver.new_study import create_study, new_study
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.schedulers.legs import Legs
from ddarts_tuning.schedulers.time_budget import TimeBudget
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.settings.population import PERTURBABLE, adopt, draw_population, exchange, perturb
from ddarts_tuning.settings.space import base_settings, trial_config
from ddarts_tuning.settings.tune import ACCURACY, SEARCH_EPOCH
from ddarts_tuning.store import checkpoints
from ddarts_tuning.store.study import Held, find_study, trial_dir
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.trial.member import Member

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import merge
from ddarts_core.loops.records import EpochRecord, read_jsonl, write_jsonl
from ddarts_core.search.search import build_search
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.study_files import read_json, write_json
from tests.tuning.conftest import SETTINGS
from tests.tuning.processes import Driver, epochs_of, results

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

SPACE = {
    "search.lr": {"type": "float", "low": 0.001, "high": 0.3, "log": True},
    "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.5, "step": 0.5},
    "search.weight_decay": {"type": "categorical", "choices": [0.0, 0.0003, 0.003]},
}
POPULATION: dict[str, Any] = {
    "search": {"epochs": 4},
    "space": SPACE,
    "tune": {
        "num_samples": 3,
        "max_concurrent": None,
        "resources": {"cpu": 2.0, "threads": 1},  # one after the other, in one process
        "scheduler": "pbt",
        "exchange_every": 2,
        "exchanged": 0.34,
        "objective": "supernet",
        "points_to_evaluate": [{"search.lr": 0.001}],
    },
}


def settings(**tune: Any) -> dict[str, Any]:
    return {"space": SPACE, "search": {"epochs": 4}, "tune": {"scheduler": "pbt", **tune}}


# --- the configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PERTURBABLE)
def test_every_perturbable_setting_may_be_in_the_space(path: str) -> None:
    space = {path: {"type": "float", "low": 0.1, "high": 0.9}}
    config = resolve_sweep({**settings(), "space": space, "alpha": {"lr_min": 0.0}, "search": {"epochs": 4}})
    assert config.tune.searcher == "random"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"space": {"search.channels": {"type": "int", "low": 2, "high": 4}}},
            r"space\.search\.channels cannot change during a search.* choose from search\.lr, search\.momentum",
        ),
        ({"tune": {"scheduler": "pbt", "searcher": "optuna-tpe"}}, "optuna-tpe cannot propose beside pbt"),
        ({"tune": {"scheduler": "pbt", "num_samples": 1}}, "num_samples must be 2 or more"),
        ({"tune": {"scheduler": "pbt", "exchange_every": 4}}, "exchange_every 4 must be less than the 4 epochs"),
        ({"tune": {"scheduler": "pbt", "max_concurrent": 1}}, "max_concurrent has no place with pbt"),
        (
            {
                "space": {
                    "ablation.weight": {"type": "float", "low": 0.1, "high": 1, "when": {"ablation.loss": ["none"]}}
                }
            },
            r"space\.ablation\.weight\.when has no place",
        ),
    ],
)
def test_what_a_population_cannot_do_is_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_sweep({**settings(), **change})


def test_members_follow_from_the_seed_and_begin_at_the_points() -> None:
    space = resolve_sweep(settings()).build_space()
    members = draw_population(space, 5, 3, [{"search.lr": 0.025}])
    assert members[0]["search.lr"] == 0.025 and members[0].keys() == SPACE.keys()
    assert draw_population(space, 3, 3, [{"search.lr": 0.025}]) == members[:3]
    assert draw_population(space, 5, 4) != draw_population(space, 5, 3)


def test_perturbed_settings_stay_in_the_space_and_move() -> None:
    space = resolve_sweep(settings()).build_space()
    by_path = dict(space.distributions)
    params = draw_population(space, 1, 0)[0]
    seen: dict[str, set[Any]] = {path: set() for path in SPACE}
    for step in range(300):
        params = perturb(space, params, random.Random(step))
        for path, value in params.items():
            assert by_path[path].contains(value), (path, value)
            seen[path].add(value)
    assert seen["search.weight_decay"] == {0.0, 0.0003, 0.003}
    assert seen["search.w_zero_one"] == {0.5, 1.0, 1.5, 2.0, 2.5}
    assert len(seen["search.lr"]) > 100


# --- a whole population ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def population(make_sweep: Make, ray_cluster: None) -> Path:
    result = run_sweep(resolve_sweep(make_sweep("population", **POPULATION).model_dump(mode="json")))
    assert not result.interrupted and not result.untracked
    assert not list(result.study.path.rglob("*.pt")), "nobody goes on from them"
    return result.study.path


def plain(record: EpochRecord) -> dict[str, Any]:
    data = record.to_dict()
    return {**data, "metrics": {name: v for name, v in data["metrics"].items() if not name.startswith("setting/")}}


def test_a_member_that_is_behind_goes_on_from_one_that_is_ahead(population: Path) -> None:
    study = find_study(population)
    trials = study.trials()
    assert [trial["state"] for trial in trials] == ["COMPLETED"] * 3
    events = [(trial["number"], event) for trial in trials for event in trial["lineage"]]
    assert len(events) == 1, "one exchange, of one of three"
    number, event = events[0]
    donor = int(event["from"])
    assert event["epochs"] == 2 and donor != number
    records = {n: read_jsonl(population / "trials" / f"{n:05d}" / "records.jsonl") for n in range(3)}
    accuracy = {n: records[n][1].metrics["held_out/accuracy"] for n in records}
    assert accuracy[number] == min(accuracy.values()) and accuracy[donor] == max(accuracy.values())
    assert event["params"] == trials[number]["params"] != event["before"]
    in_force = [record.metrics["setting/search.lr"] for record in records[number]]
    assert in_force == [event["before"]["search.lr"]] * 2 + [event["params"]["search.lr"]] * 2
    client = tracking.make_client(study.data["tracking_uri"])
    run = client.get_run(trials[number]["run_id"])
    assert f'"from": "{donor:05d}"' in run.data.tags["lineage"]
    history = client.get_metric_history(run.info.run_id, "setting/search.lr")
    assert [metric.value for metric in sorted(history, key=lambda metric: metric.step)] == in_force


def test_the_lineage_tells_how_to_repeat_a_result(population: Path) -> None:
    """By hand: two epochs with the donor's first settings, then two with the perturbed ones, bit for bit."""
    study = find_study(population)
    trial = next(trial for trial in study.trials() if trial["lineage"])
    event = trial["lineage"][0]
    donor = study.trials()[int(event["from"])]
    first = build_search(trial_config(study.data["base"], donor["params"]))
    ahead = [next(first.records()) for _ in range(2)]
    config = trial_config(study.data["base"], event["params"])
    second = build_search(config)
    second.load_state_dict(adopt(first.state_dict(), config, config_hash(config)))
    assert second._sgd.param_groups[0]["weight_decay"] == event["params"]["search.weight_decay"]
    after = list(second.records())
    folders = population / "trials"
    stored = {n: read_jsonl(folders / n / "records.jsonl") for n in (donor["trial_id"], trial["trial_id"])}
    assert [record.to_dict() for record in ahead] == [plain(record) for record in stored[donor["trial_id"]][:2]]
    assert [record.to_dict() for record in after] == [plain(record) for record in stored[trial["trial_id"]][2:4]]
    assert second.discretise().genotype.hash == trial["genotype_hash"]


def test_a_population_gets_no_new_members(population: Path, make_sweep: Make) -> None:
    settings = make_sweep("population", **POPULATION).model_dump(mode="json")
    with pytest.raises(UserError, match="'population' is a population and gets no new members"):
        extend_sweep(resolve_sweep(settings), 2)
    with pytest.raises(UserError, match=r"exists with another tune\.scheduler"):
        extend_sweep(resolve_sweep({**settings, "tune": {**settings["tune"], "scheduler": "fifo"}}), 2)


def lineages(study: Path) -> list[Any]:
    return [trial["lineage"] for trial in find_study(study).trials()]


@pytest.mark.slow
def test_a_killed_population_makes_the_same_exchanges(population: Path, make_sweep: Make) -> None:
    """Killed when the first member waits for its exchange, and again when the exchange has just taken place."""
    config = make_sweep("killed", **POPULATION)
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: any(epochs_of(path, number) >= 2 for number in range(3)))
    driver.kill()
    assert find_study(path).state == "INTERRUPTED"
    driver = Driver("resume", path)
    driver.wait_for(lambda: any(lineages(path)))
    driver.kill()
    assert Driver("resume", path).finish().startswith("finished 0")
    assert results(path) == results(population)
    assert lineages(path) == lineages(population)


# --- exchanges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracies", "share", "followers", "ahead"),
    [
        ({0: 0.5, 1: 0.1, 2: 0.9}, 0.34, {1}, {2}),  # two of three would be more than half
        ({0: 0.5, 1: 0.1, 2: 0.9, 3: 0.2}, 0.25, {1}, {2}),
        ({0: 0.5, 1: 0.1, 2: 0.9, 3: 0.2}, 0.5, {1, 3}, {0, 2}),
        ({3: 0.5, 1: 0.5, 2: 0.5}, 0.3, {1}, {3}),  # by number
        ({0: 0.5}, 0.5, set(), set()),
    ],
)
def test_who_follows_whom(accuracies: dict[int, float], share: float, followers: set[int], ahead: set[int]) -> None:
    found = {seed: exchange(accuracies, share, seed, 2) for seed in range(20)}
    assert all(follows.keys() == followers for follows in found.values())
    assert {donor for follows in found.values() for donor in follows.values()} == ahead
    backwards = dict(reversed(accuracies.items()))
    assert found == {seed: exchange(backwards, share, seed, 2) for seed in range(20)}


class Stage:
    """A population without Ray: what its members' processes would write is written here.

    Args:
        path: of the study.
    """

    def __init__(self, path: Path) -> None:
        self.config = resolve_sweep(settings(num_samples=3, exchange_every=2, exchanged=0.34))
        stored = {"config": self.config.model_dump(mode="json"), "base": base_settings(self.config)}
        self.study = create_study(path, {**stored, "objectives": [], "state": "RUNNING"})
        self.legs = self.make()

    def make(self) -> Legs:
        """As a run of the sweep begins."""
        return Legs(Held(self.study), self.config, self.config.build_space(), 4, TimeBudget(None))

    def run(self, leg: dict[str, Any], accuracy: float, *, told: bool = True, epochs: int = 2) -> None:
        """A leg of so many epochs; Ray may be killed before it is told of its end."""
        number, trial_id = leg["number"], f"leg of {leg['number']}"
        folder = trial_dir(self.study.path, number)
        records = read_jsonl(folder / "records.jsonl")
        for _ in range(epochs):
            records.append(EpochRecord(len(records), "search", {ACCURACY: accuracy}))
        write_jsonl(folder / "records.jsonl", records)
        if told:
            report = {SEARCH_EPOCH: len(records), ACCURACY: accuracy}
            waits = {"waits": True} if len(records) < 4 else {}
            self.legs.on_trial_complete(trial_id, {**report, **waits})

    def next(self) -> Any:
        """The next leg, which is run under a name of its own."""
        leg = self.legs.suggest("leg")
        if isinstance(leg, dict):
            self.legs._running[f"leg of {leg['number']}"] = self.legs._running.pop("leg")
        return leg

    def trials(self) -> list[dict[str, Any]]:
        return self.study.trials()


def test_members_run_in_legs_and_wait_for_each_other(study_path: Path) -> None:
    stage = Stage(study_path)
    legs = [stage.next() for _ in range(3)]
    assert [(leg["number"], leg["until"]) for leg in legs] == [(0, 2), (1, 2), (2, 2)]
    before = [trial["params"] for trial in stage.trials()]
    for leg, accuracy in zip(legs[:2], (0.5, 0.1), strict=True):
        stage.run(leg, accuracy)
    assert stage.next() is None
    stage.run(legs[2], 0.9)
    legs = [stage.next() for _ in range(3)]
    assert [leg["until"] for leg in legs] == [math.inf] * 3, "no exchange after the last epoch"
    events = [(t["exchanged"], [(e["epochs"], e["from"], e["before"]) for e in t["lineage"]]) for t in stage.trials()]
    assert events == [(2, []), (2, [(2, "00002", before[1])]), (2, [])]
    follower = stage.trials()[1]
    assert follower["params"] == follower["lineage"][0]["params"] != before[1]
    assert follower["config"]["search"]["lr"] == follower["params"]["search.lr"]
    for leg in legs:
        stage.run(leg, 0.9)
    assert stage.next() == "FINISHED"


@pytest.mark.parametrize("noted", [[], [1], [0, 1], [0, 2]])
def test_an_exchange_that_was_half_noted_is_made_as_it_was(noted: list[int], study_path: Path, tmp_path: Path) -> None:
    """Killed after the files of some members were written; one that failed since counts as it did."""
    calm = Stage(tmp_path / "calm")
    stage = Stage(study_path)
    for each in (calm, stage):
        for leg, accuracy in zip([each.next() for _ in range(3)], (0.5, 0.1, 0.9), strict=True):
            each.run(leg, accuracy)
    calm.next()
    after = {trial["number"]: trial for trial in calm.trials()}
    for number in noted:
        write_json(trial_dir(study_path, number) / "trial.json", after[number])
    stage.legs = stage.make()
    assert stage.next()["number"] == 0
    assert [
        (trial["params"], trial["lineage"], trial["exchanged"], trial["config_hash"]) for trial in stage.trials()
    ] == [(t["params"], t["lineage"], t["exchanged"], t["config_hash"]) for t in after.values()]


def test_a_member_that_failed_is_not_waited_for(study_path: Path) -> None:
    stage = Stage(study_path)
    legs = [stage.next() for _ in range(3)]
    stage.legs.on_trial_complete("leg of 1", error=True)
    note_end(stage.study, 1, "FAILED", "its process died", alone=False)
    stage.run(legs[0], 0.5)
    stage.run(legs[2], 0.9)
    assert {stage.next()["number"], stage.next()["number"]} == {0, 2}
    lineages = [trial["lineage"] for trial in stage.trials()]
    assert lineages[1:] == [[], []] and lineages[0][0]["from"] == "00002"


# --- what a member goes on from -------------------------------------------------------------------------------------


@pytest.fixture
def member(study_path: Path) -> Iterator[Callable[..., Any]]:
    """Members of a population of two, of which the second follows the first after two epochs, with real checkpoints."""
    tune = {**POPULATION["tune"], "num_samples": 2}
    own = {**POPULATION, "tune": tune, "name": study_path.name, "storage": str(study_path.parent)}
    config = resolve_sweep(merge({**SETTINGS, "space": {}}, own))
    study = new_study(config)
    Legs(Held(study), config, config.build_space(), 4, TimeBudget(None))
    made: list[Any] = []

    def make(number: int, until: float) -> Any:
        made.append(Member({"study": str(study_path), "number": number, "until": until}))
        return made[-1]

    for number in range(2):
        first = make(number, 2)
        while not (last := first.step()).get("waits"):
            continue
        assert make(number, 2).step() == last, "its process died before it could report: it does not run past the end"
    for number, follows in ((0, []), (1, [{"epochs": 2, "from": "00000", "before": {}, "params": {}}])):
        file = trial_dir(study_path, number) / "trial.json"
        write_json(file, {**read_json(file), "exchanged": 2, "lineage": follows})
    assert study.trials()[0]["state"] == "RUNNING"
    yield make
    for each in made:
        each.cleanup()


def losses(study: Path, number: int) -> list[float]:
    records = read_jsonl(trial_dir(study, number) / "records.jsonl")
    return [record.metrics["train/loss"] for record in records]


def test_a_member_goes_on_from_the_one_that_it_follows_until_it_has_a_state_of_its_own(
    member: Callable[..., Any], study_path: Path
) -> None:
    own = losses(study_path, 1)
    follower = member(1, math.inf)
    assert losses(study_path, 1) == own, "its history stays its own"
    donor = next(checkpoints.intact(trial_dir(study_path, 0), up_to=2))
    assert torch.equal(follower._loaded["search"]["sgd"]["state"][0]["momentum_buffer"], momentum(donor))
    follower.step()
    again = member(1, math.inf)  # its process died
    assert again._loaded["epochs"] == 3 and losses(study_path, 1)[:2] == own
    donor_again = member(0, math.inf)
    donor_again.step()
    donor_again.step()
    kept = checkpoints.found(trial_dir(study_path, 0))
    assert 2 in kept, "the state at the exchange stays as long as the population runs"


def momentum(state: dict[str, Any]) -> Any:
    return state["search"]["sgd"]["state"][0]["momentum_buffer"]


def test_a_member_whose_donor_is_damaged_does_not_go_on_from_something_else(
    member: Callable[..., Any], study_path: Path
) -> None:
    checkpoints.file_of(trial_dir(study_path, 0), 2).write_bytes(b"damaged")
    with pytest.raises(
        UserError, match=r"trial 00001 follows trial 00000 after epoch 2, whose checkpoint .* is damaged"
    ):
        Member({"study": str(study_path), "number": 1, "until": math.inf})
