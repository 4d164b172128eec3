"""`tune.budget`: what a trial's search may take, counted a second time by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.settings.budget import Clock, within
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.settings.space import base_settings
from ddarts_tuning.settings.tune import TuneConfig
from ddarts_tuning.store.study import trial_dir
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin

from ddarts_core.estimates.memory import supernet_size
from ddarts_core.estimates.search_cost import afforded, images_of, search_macs, step_macs
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.study_files import read_json

from .conftest import Make

SPACE = {"search.lr": {"type": "float", "low": 0.01, "high": 0.1}}
SEED = {"type": "int", "low": 0, "high": 3}
SEARCH = {"num_cells": 3, "channels": 2, "steps": 1, "batch_size": 20, "epochs": 4, "warmup_epochs": 2}


def experiment(method: str = "darts", **search: Any) -> ExperimentConfig:
    return resolve({"method": method, "data": {"num_train": 150}, "search": {**SEARCH, **search}})


def sweep(tune: dict[str, Any], **groups: Any) -> Any:
    return resolve_sweep({"space": SPACE, "tune": {"scheduler": "fifo", **tune}, **groups})


def test_steps_by_the_multiply_adds_of_a_forward_pass() -> None:
    """A convolution's two gradients cost what it costs; images have no gradient, and weights none in alpha steps."""
    config = experiment()
    info, images = images_of(config)
    forward, stem, linear = supernet_size(config, info)[1], 8 * 8 * 9 * 6, 10 * 4 * 10
    found = step_macs(config, info)
    assert found.weights == 20 * (3 * forward - stem)
    # Before the first gates alphas have no part: the stem and the two preprocessings of cell 0, and half of cell 1's.
    assert 20 * forward < found.alphas < 20 * (2 * forward - stem) and found.ablated == found.alphas
    assert linear < forward
    assert search_macs(config, info, images) == 6 * 3 * found.weights + 4 * 3 * found.alphas


def test_a_search_has_the_epochs_that_are_paid_for() -> None:
    config = experiment()
    info, images = images_of(config)
    nine = experiment(epochs=6, warmup_epochs=3)
    exact = search_macs(nine, info, images)
    assert afforded(config, exact) == (nine, exact)
    less, cost = afforded(config, exact - 1)
    assert less.search.epochs + less.search.warmup_epochs == 8 and cost < exact
    assert afforded(config, 1)[0].search.epochs == 1 and afforded(config, 1)[0].search.warmup_epochs == 0
    # In a step with the second order there is a search's worth of passes more.
    assert afforded(experiment("darts-second-order"), exact)[0].search.epochs <= 3
    three = experiment("pdarts", epochs=3, warmup_epochs=0, options={"added_cells": [0, 0, 0]})
    with pytest.raises(UserError, match=r"pay for 2 epochs of this search: .*search.epochs 2 must be at least 3"):
        afforded(three, 0.7 * search_macs(three, info, images))


def test_passes_that_a_method_measures_by_are_paid_for() -> None:
    """One step edge to a node: DARTS-PT takes a pass per operation, edge, group and batch; SDARTS-ADV nine a step."""
    plain, deciding, values, attacked = (
        experiment(name, channels=4, epochs=2, warmup_epochs=0)
        for name in ("darts", "darts-pt", "shapley-nas", "sdarts-adv")
    )
    info, images = images_of(plain)
    found = step_macs(plain, info)
    assert found.forward == 20 * supernet_size(plain, info)[1]
    steps = 2 * 3 * (found.weights + found.alphas)
    assert search_macs(plain, info, images) == steps
    assert search_macs(deciding, info, images) == steps + 2 * 2 * 7 * 3 * found.forward
    of_values = step_macs(values, info)
    orders = 10 * (2 * 2 * 7 + 1)
    assert search_macs(values, info, images) == 2 * 3 * of_values.weights + orders * of_values.forward
    # Gradients by the gates alone, as in a step of the alphas.
    assert step_macs(attacked, info).weights == found.weights + 9 * found.alphas


def record(seconds: float, phase: str = "search") -> EpochRecord:
    return EpochRecord(0, phase, {}, seconds={"weights": seconds / 2, "evaluation": seconds / 2})


def test_seconds_are_those_of_the_recorded_epochs() -> None:
    clock = Clock(experiment(), 10.0)
    warm = [record(9, "warmup"), record(9, "warmup")]
    assert not clock.is_spent(warm), "no alpha was trained"
    assert clock.is_spent([*warm, record(0.1)])
    quick = [record(1, "warmup"), record(1, "warmup")]
    assert not clock.is_spent([*quick, record(7.9)]) and clock.is_spent([*quick, record(7.9), record(0.1)])
    assert not clock.is_spent([*quick, record(1), record(50, "retrain")])
    assert not Clock(experiment(), None).is_spent([record(1e9)] * 4)


@pytest.mark.parametrize(
    ("tune", "groups", "words"),
    [
        ({"budget_amount": 5}, {}, "no place with tune.budget epochs"),
        ({"budget": "seconds"}, {}, "needs tune.budget_amount"),
        ({"budget": "seconds", "budget_amount": 5, "scheduler": "asha"}, {}, "use scheduler fifo"),
        (
            {"budget": "seconds", "budget_amount": 5},
            {"method": "pdarts"},
            "progressive goes from one network or decision",
        ),
        ({"budget": "seconds", "budget_amount": 5}, {"ablation": {"shapley_permutations": 9}}, "the last epoch"),
        (
            {"budget": "multiply-adds", "budget_amount": 5},
            {"space": {"search.epochs": {"type": "int", "low": 1, "high": 3}}},
            "search.epochs has no place in the space",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(tune: dict[str, Any], groups: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sweep(tune, **groups)


def test_epochs_are_todays_budget() -> None:
    config = sweep({})
    assert within(config, config.tune) == (config, None)
    assert config_hash(config) == config_hash(sweep({"budget": "epochs", "budget_amount": None}))
    assert config_hash(sweep({"budget": "seconds", "budget_amount": 9})) != config_hash(config)
    trial = experiment("dots")
    with pytest.raises(UserError, match="operations-then-pairs goes from one network"):
        within(trial, TuneConfig(budget="seconds", budget_amount=5))


class NoSender:
    """In the place of MLflow's thread."""

    run_id = None

    def __init__(self, *arguments: Any) -> None:
        self.send = self.close = lambda *records: None


def test_a_trial_ends_within_its_budget_in_whichever_process(
    make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddarts_tuning.trial.trainable.Sender", NoSender)
    search = {"epochs": 5, "warmup_epochs": 1, "batch_size": 50}
    tune = {"objective": "supernet", "budget": "seconds", "budget_amount": 1e-6, "second_objective": "latency_ms"}
    tune |= {"limits": {"parameters": 1, "latency_ms": 1e9}, "latency": {"batch": 2, "passes": 5}}
    config = make_sweep("budget", storage=str(tmp_path), search=search, tune=tune, space={"seed": SEED})
    stored = {"config": config.model_dump(mode="json"), "base": base_settings(config), "tracking_uri": "", "state": ""}
    study = create_study(config.study_location, {**stored, "objectives": []})
    begin(study, 0, {"seed": 3})
    first = SearchTrial({"study": str(study.path), "number": 0})
    assert not first.step().get("done"), "it is in its warm-up"
    second = SearchTrial({"study": str(study.path), "number": 0})
    assert second.step()["state"] == "COMPLETED" and len(second._records) == 2
    assert read_json(trial_dir(study.path, 0) / "trial.json")["searched_epochs"] == 2, (
        "of the six that it could have had"
    )

    trial = resolve({**study.data["base"], "seed": 3})
    amount = search_macs(trial, *images_of(trial)) / 2
    counted = {**study.data["config"]["tune"], "budget": "multiply-adds", "budget_amount": amount}
    study = study.update(config={**study.data["config"], "tune": counted})
    begin(study, 1, {"seed": 3})
    third = SearchTrial({"study": str(study.path), "number": 1})
    expected, cost = within(trial, TuneConfig.model_validate(counted))
    report = {}
    while not report.get("done"):
        report = third.step()
    found = read_json(trial_dir(study.path, 1) / "trial.json")
    assert found["state"] == "COMPLETED" and found["cost"]["search_macs"] == cost <= amount
    assert found["beyond"] == ["parameters"] and found["cost"]["latency_ms"] > 0 <= found["cost"]["latency_spread_ms"]
    assert found["objectives"]["latency_ms"] == found["cost"]["latency_ms"]
    fourth = SearchTrial({"study": str(study.path), "number": 1})
    fourth._genotype = Genotype.load(trial_dir(study.path, 1) / "genotype.json")
    assert fourth._known(fourth._genotype)["cost"] == found["cost"], "a latency is measured once"
    assert found["config"]["search"] == expected.model_dump(mode="json")["search"] != trial.model_dump()["search"]
    assert len(third._records) == found["config"]["search"]["epochs"] + found["config"]["search"]["warmup_epochs"]
