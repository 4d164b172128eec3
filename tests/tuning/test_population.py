"""Population based training: what may be perturbed, who follows whom, and whether a result can be repeated."""

from __future__ import annotations

import json
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.trainable.metadata import _TrainingRunMetadata

from ddarts_core import checkpoint
from ddarts_core.config import config_hash
from ddarts_core.errors import UserError
from ddarts_core.records import EpochRecord, read_jsonl
from ddarts_core.search import build_search
from tests.tuning.processes import Driver, epochs_of, results
from tuning import tracking
from tuning.callback import StudyCallback
from tuning.config import ACCURACY, SEARCH_EPOCH, SweepConfig, resolve_sweep
from tuning.extending import extend_sweep
from tuning.member import Member
from tuning.mirror import Mirror
from tuning.population import PERTURBABLE, adopt, draw_population, perturb
from tuning.schedulers import Population
from tuning.space import trial_config
from tuning.study import find_study
from tuning.sweep import run_sweep
from tuning.trainable import CHECKPOINT

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
    """With all of its checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyCallback, "_forget", lambda *arguments: None)
        result = run_sweep(resolve_sweep(make_sweep("population", **POPULATION).model_dump(mode="json")))
    assert not result.interrupted and not result.untracked
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


# --- what a member goes on from -------------------------------------------------------------------------------------


@pytest.fixture
def reopened(population: Path, tmp_path: Path) -> Iterator[Callable[[int], Member]]:
    """Members of the finished population as Ray makes them that noted nothing of their end."""
    path = tmp_path / population.name
    shutil.copytree(population, path)
    made: list[Member] = []

    def reopen(number: int) -> Member:
        trial = find_study(path).trials()[number]
        settings = {key: trial[key] for key in ("number", "params", "lineage")}
        made.append(Member({"study": str(path), **settings}))
        return made[-1]

    yield reopen
    for member in made:
        member.cleanup()


def checkpoints(population: Path, number: int) -> dict[int, Path]:
    """By epochs."""
    folders = population.glob(f"ray/{number:05d}_*/checkpoint_*")
    return {int(checkpoint.load(folder / CHECKPOINT)["epochs"]): folder for folder in folders}


def test_a_member_does_again_what_ray_has_not_noted(population: Path, reopened: Callable[[int], Member]) -> None:
    """Or an exchange that was not noted would be made without it."""
    member = reopened(1)
    assert find_study(population).trials()[1]["state"] == "COMPLETED"
    report = member.step()
    assert report[SEARCH_EPOCH] == 1 and "state" not in report
    member.load_checkpoint(str(checkpoints(population, 1)[2]))
    assert member.step()[SEARCH_EPOCH] == 3


def test_a_member_whose_last_state_ray_has_noted_only_reports(
    population: Path, reopened: Callable[[int], Member]
) -> None:
    member = reopened(1)
    member.load_checkpoint(str(checkpoints(population, 1)[4]))
    report = member.step()
    assert (report["state"], report[SEARCH_EPOCH], report["done"]) == ("COMPLETED", 4, True)


def test_in_a_store_a_damaged_state_is_followed_by_the_one_before_it(population: Path, tmp_path: Path) -> None:
    mirror = Mirror(f"memory://{uuid.uuid4().hex}/study", tmp_path / "study")
    stored = {epochs: f"ray/00001_x/{folder.name}" for epochs, folder in checkpoints(population, 1).items()}
    for epochs, folder in checkpoints(population, 1).items():
        for file in folder.iterdir():
            mirror.write(f"{stored[epochs]}/{file.name}", b"damaged" if epochs == 2 else file.read_bytes())
    copy = tmp_path / "copy_of_3"
    copy.mkdir()
    (copy / CHECKPOINT).write_bytes(b"damaged")
    member: Any = Member.__new__(Member)
    member._study = SimpleNamespace(mirror=mirror, path=mirror.folder)
    member._restored_from = mirror.path(stored[3])
    assert member._load(copy)["epochs"] == 1
    assert not (mirror.folder / stored[4]).exists() and (mirror.folder / stored[1]).exists()


def noted(epochs: int, saved: int, number: int = 0, accuracy: float = 0.5, **config: Any) -> Trial:
    """A trial as Ray brings it back: its last result, and the one that its last checkpoint belongs to."""
    trial = Trial("member", stub=True, config={"number": number, "params": {}, **config})
    trial.run_metadata.last_result = {SEARCH_EPOCH: epochs, ACCURACY: accuracy}
    result = _TrainingResult(Checkpoint(f"/nowhere/{number}"), {SEARCH_EPOCH: saved, ACCURACY: accuracy})
    trial.run_metadata.checkpoint_manager._latest_checkpoint_result = result
    return trial


@pytest.mark.parametrize(
    ("trial", "waits"),
    [
        (noted(2, 2), True),
        (noted(2, 1), False),  # killed between the result and its checkpoint: an exchange would copy epoch 1
        (noted(1, 1), False),
        (noted(2, 2, exchanged=2), False),  # the exchange is noted: not a second time
        (noted(4, 4, exchanged=2), False),  # nor after the last epoch
    ],
)
def test_who_waits_for_an_exchange_after_a_kill(trial: Trial, waits: bool) -> None:
    config = resolve_sweep(settings(exchange_every=2))
    scheduler = Population(config.tune, 4, 0, config.build_space())
    scheduler.on_trial_add(SimpleNamespace(search_alg=None), trial)
    assert scheduler._waits(trial) is waits


def test_an_exchange_is_noted_as_a_whole() -> None:
    """Settings, lineage and the checkpoint to go on from, in what Ray writes of the trial."""
    config = resolve_sweep(settings(exchange_every=2))
    space = config.build_space()
    scheduler = Population(config.tune, 4, 0, space)
    params = draw_population(space, 3, 0)
    trials = [noted(2, 2, n, accuracy, params=params[n]) for n, accuracy in enumerate((0.5, 0.1, 0.9))]
    for trial in trials:
        scheduler.on_trial_add(SimpleNamespace(search_alg=None), trial)
        trial.status = Trial.PAUSED
        trial.get_json_state()  # Ray keeps the text until it is told of a change
    written: list[Trial] = []
    controller = SimpleNamespace(
        get_live_trials=lambda: trials, get_trials=lambda: trials, _mark_trial_to_checkpoint=written.append
    )
    assert scheduler.choose_trial_to_run(controller) in trials
    assert written == trials
    for number, (trial, donor) in enumerate(zip(trials, (0, 2, 2), strict=True)):
        state, run = trial.get_json_state()
        restored = json.loads(state)["config"]
        assert restored["exchanged"] == 2 and restored["number"] == number
        events = [(event["epochs"], event["from"], event["before"]) for event in restored.get("lineage", [])]
        assert events == ([(2, "00002", params[1])] if number == 1 else [])
        saved = _TrainingRunMetadata.from_json_state(run).checkpoint_manager.latest_checkpoint_result
        assert saved.checkpoint.path == f"/nowhere/{donor}"
