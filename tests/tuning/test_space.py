"""The search space: what it draws, and every mistake as one sentence before anything starts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.settings.distributions import IntDistribution
from ddarts_tuning.settings.space import Space, base_settings, trial_config

from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import resolve

FLOAT: dict[str, Any] = {"type": "float", "low": 0.01, "high": 0.1}
CONDITIONAL: dict[str, Any] = {
    "ablation.weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"ablation.loss": ["centered", "relative"]}},
    "ablation.loss": {"type": "categorical", "choices": ["none", "centered", "relative"]},
    "search.num_cells": {"type": "int", "low": 3, "high": 9, "step": 3},
}


def space_of(space: dict[str, Any], **settings: Any) -> Space:
    return resolve_sweep({"space": space, **settings}, where="f.yaml").build_space()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"search.w_zeroone": FLOAT}, ("search.w_zeroone", "did you mean 'search.w_zero_one'?")),
        ({"completely.else": FLOAT}, ("unknown setting 'completely.else'", "choose one of")),
        ({"name": {"type": "categorical", "choices": ["a"]}}, ("space.name", "the same for all trials")),
        ({"search.lr": {**FLOAT, "low": 0.5}}, ("space.search.lr", "low 0.5 must not exceed high 0.1")),
        ({"search.lr": {**FLOAT, "low": 0.0, "log": True}}, ("log: true needs a positive low",)),
        ({"search.lr": {**FLOAT, "log": True, "step": 0.01}}, ("log: true and step cannot be used together",)),
        ({"search.lr": {**FLOAT, "high": 20}}, ("space.search.lr", "20", "less than or equal to 10")),
        ({"search.lr": {**FLOAT, "low": "small"}}, ("should be a number, not the text 'small'",)),
        ({"search.lr": {**FLOAT, "lo": 1}}, ("unknown setting", "lo")),
        ({"search.lr": {"type": "normal"}}, ("choose one of categorical, float, int",)),
        ({"search.lr": 0.1}, ("choose one of categorical, float, int",)),
        ({"search.num_cells": {"type": "int", "low": 2, "high": 3}}, ("space.search.num_cells: 2", "too few")),
        ({"search.num_cells": {"type": "float", "low": 3, "high": 4.5}}, ("space.search.num_cells: 4.5",)),
        ({"data.name": {"type": "categorical", "choices": []}}, ("choices",)),
        ({"search.order": {"type": "categorical", "choices": ["first", "third"]}}, ("'third' is refused", "first")),
        ({"method": {"type": "categorical", "choices": ["ddarts", "fair"]}}, ("unknown method 'fair'", "fairdarts")),
        ({"search.lr": {**FLOAT, "when": {"ablation.los": ["none"]}}}, ("did you mean 'ablation.loss'?",)),
        (
            {
                "ablation.loss": {"type": "categorical", "choices": ["none", "paper"]},
                "ablation.weight": {**FLOAT, "when": {"ablation.loss": ["centered"]}},
            },
            ("ablation.loss never takes 'centered'",),
        ),
        (
            {
                "search.lr": {**FLOAT, "when": {"alpha.lr": [0.05]}},
                "alpha.lr": {**FLOAT, "when": {"search.lr": [0.05]}},
            },
            ("in a circle",),
        ),
        ({}, ("needs a `space`", "f.yaml")),
        ({"search.warmup_epochs": {"type": "float", "low": 1, "high": 3}}, ("1.5 is refused", "valid integer")),
        ({"search.warmup_epochs": {"type": "float", "low": 1, "high": 3, "step": 0.25}}, ("1.25 is refused",)),
        ({"data.name": {"type": "categorical", "choices": ["digits", "foo"]}}, ("'foo' is refused", "fashion_mnist")),
        ({"search": {"lr": FLOAT}}, ("f.yaml: space: 'search' is a group", "as one key, like search.lr")),
        ({"search.lr": {**FLOAT, "low": 2}}, ("f.yaml: space.search.lr: low 2 must",)),
        ({"search.order": {"type": "categorical", "choices": [[1]]}}, ("space.search.order.choices.0: should be a",)),
        (
            {"retrain.num_cells": {"type": "int", "low": 7, "high": 9}},
            (
                "num_cells: 7",
                "8: Algorithm 1 only adds cells",
            ),
        ),
        ({"search.lr": {"type": "float", "low": 1}}, ("f.yaml: space.search.lr.high: field required",)),
    ],
)
def test_mistakes_are_told_in_one_sentence(space: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        space_of(space)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "settings",
    [
        {"space": {"search.lr": FLOAT}, "retrain": {"validation_fraction": 0.2}},
        {"space": {"retrain.validation_fraction": FLOAT}},
    ],
)
def test_a_sweep_chooses_no_epoch_of_its_trainings(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"retrain\.validation_fraction has no place in a sweep"):
        resolve_sweep(settings)


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ({"limits": {"latency_ms": 3}}, r"tune\.limits\.latency_ms needs tune\.latency, how it is measured"),
        ({"second_objective": "latency_ms"}, r"tune\.second_objective latency_ms needs tune\.latency"),
        ({"latency": {"device": "cuda"}}, r"tune\.latency\.device cuda, but trials get no GPU"),
        ({"latency": {"device": "cuda", "runtime": "onnxruntime"}}, "onnxruntime is measured on the CPU"),
    ],
)
def test_a_latency_that_counts_is_measured_where_it_can_be(tune: dict[str, Any], words: str) -> None:
    space = {"alpha.lr": {"type": "float", "low": 0.1, "high": 0.2}}
    with pytest.raises(UserError, match=words):
        resolve_sweep({"space": space, "tune": tune})


def test_points_must_lie_in_the_space() -> None:
    for point, words in (({"search.lr": 1.0}, "lies outside"), ({"alpha.lr": 0.01}, "not in the space")):
        with pytest.raises(UserError, match=words):
            resolve_sweep({"space": {"search.lr": FLOAT}, "tune": {"points_to_evaluate": [point]}})


def test_a_bound_is_overridden_by_its_path() -> None:
    config = resolve_sweep({"space": {"search.lr": FLOAT}}, ["space.search.lr.low=0.05"])
    assert config.build_space().distributions[0][1].corners() == [0.05, 0.1]
    with pytest.raises(UserError, match=r"unknown setting 'tune\.resources\.mem'; choose one of cpu, gpu"):
        resolve_sweep({"space": {"search.lr": FLOAT}}, ["tune.resources={mem: 1}"])


def test_a_float_of_whole_steps_is_whole() -> None:
    assert space_of({"search.warmup_epochs": {"type": "float", "low": 1, "high": 3, "step": 1}})


def test_a_range_of_any_size_is_checked_at_its_ends() -> None:
    """Listing its values would take all memory; a grid that would is refused."""
    whole = {"type": "int", "low": 0, "high": 2**63 - 1}
    assert space_of({"seed": {**whole, "high": 2**31 - 2}}).distributions[0][1].corners() == [0, 2**31 - 2]
    assert IntDistribution(**{**whole, "step": 4}).corners() == [0, 2**63 - 4]
    assert IntDistribution(**{**whole, "high": 10, "step": 4}).corners() == [0, 4, 8]
    with pytest.raises(UserError, match=r"space\.seed: searcher grid would visit 2,147,483,647 values: give it a step"):
        space_of({"seed": {**whole, "high": 2**31 - 2}}).grid()


def test_draws_respect_bounds_and_conditions() -> None:
    space = pickle.loads(pickle.dumps(space_of(CONDITIONAL)))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        params = space(study.ask())
        active = params["ablation.loss"] != "none"
        assert ("ablation.weight" in params) == active
        assert params["search.num_cells"] in (3, 6, 9)
        config = trial_config(space.base, params)
        assert config.ablation.loss == params["ablation.loss"]
        seen.add(active)
    assert seen == {True, False}


def test_an_ablation_loss_is_drawn_as_a_term_and_read_where_it_is_kept() -> None:
    path = "search.regularisers.ablation-centered.weight"
    space = space_of({path: FLOAT, "seed": {"type": "int", "low": 0, "high": 9}}, method="darts")
    config = trial_config(space.base, {path: 0.25, "seed": 3})
    assert (config.ablation.loss, config.ablation.weight, config.search.regularisers) == ("centered", 0.25, {})
    assert space.read(config.model_dump(mode="json"))[0] == {path: 0.25, "seed": 3}
    without = trial_config(space.base, {"ablation.loss": "relative"}).model_dump(mode="json")
    assert space.read(without) == ({path: None, "seed": 0}, [path])
    with pytest.raises(UserError, match=r"space.search.reg.*means ablation.loss centered, but ablation.loss is credit"):
        space_of({path: FLOAT}, ablation={"loss": "credit"})


def test_a_condition_on_a_setting_that_is_not_drawn() -> None:
    space = {"ablation.weight": CONDITIONAL["ablation.weight"]}
    trial = optuna.trial.FixedTrial({"ablation.weight": 0.5})
    assert space_of(space, ablation={"loss": "centered"})(trial) == {"ablation.weight": 0.5}
    assert space_of(space, ablation={"loss": "none"})(trial) == {}


def test_a_dependent_setting_may_make_a_choice_possible() -> None:
    """Softmax needs the rule `darts`, which the space draws only with softmax."""
    space = space_of(
        {
            "search.gates": {"type": "categorical", "choices": ["sigmoid", "softmax"]},
            "discretise.rule": {
                "type": "categorical",
                "choices": ["darts"],
                "when": {"search.gates": ["softmax"]},
            },
        },
        search={"w_zero_one": 0.0},
    )
    assert space.paths == ("search.gates", "discretise.rule")


def test_a_drawn_method_brings_its_preset_but_yields_to_the_file() -> None:
    config = resolve({"search": {"epochs": 3}, "alpha": {"lr": 0.02}})
    fair = trial_config(base_settings(config), {"method": "fairdarts"})
    assert (fair.search.sharing, fair.search.w_zero_one) == ("normal_reduce", 10.0)
    assert (fair.search.epochs, fair.alpha.lr) == (3, 0.02)
    assert trial_config(base_settings(fair), {"method": "ddarts"}).search.sharing == "own"
    assert trial_config(base_settings(fair), {}) == fair


def test_what_the_file_says_holds_in_trials_of_every_method_and_recipe() -> None:
    """Also where the file's own method implies the same; what nobody said is each method's and recipe's own."""
    groups = {"search": {"lr": 0.025, "batch_size": 64}, "retrain": {"recipe": "cifar"}}
    base = base_settings(resolve({"method": "darts", **groups}))
    assert resolve({"method": "darts"}).search.lr == 0.025 != resolve({"method": "ddarts"}).search.lr
    for method in ("darts", "ddarts", "pdarts"):
        found = trial_config(base, {"method": method})
        assert (found.search.lr, found.search.batch_size) == (0.025, 64)
        assert found.search == resolve({"method": method, **groups}).search
    assert trial_config(base, {"search.num_cells": 5}).retrain.num_cells == 5
    assert trial_config(base, {"method": "pdarts"}) == resolve({"method": "pdarts", **groups})
    assert (
        trial_config(base, {"retrain.recipe": "imagenet-darts"}).retrain
        == resolve({"method": "darts", **groups}, ["retrain.recipe=imagenet-darts"]).retrain
    )
    open_ = base_settings(resolve({"method": "dartopti", "search": {"num_cells": None}}))  # follows from the start
    other = trial_config(open_, {"search.start": "zoo:Xception"})
    assert other.search.num_cells == ZOO["Xception"].genotype.num_cells != ZOO["ResNet18"].genotype.num_cells
    again = resolve({**base, "space": {}, "tune": {}}, model=SweepConfig)
    assert base_settings(again) == base


def test_grid_is_every_active_combination_once():
    config = resolve_sweep(
        {
            "space": {
                "seed": {"type": "int", "low": 0, "high": 1},
                "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]},
                "ablation.weight": {
                    "type": "categorical",
                    "choices": [0.5, 1.0],
                    "when": {"ablation.loss": ["centered"]},
                },
            },
            "tune": {"searcher": "grid"},
        }
    )
    assert config.tune.num_samples == 6
    points = config.build_space().grid()
    assert len(points) == 6
    assert sum("ablation.weight" in point for point in points) == 4
    assert {"seed": 1, "ablation.loss": "none"} in points


@pytest.mark.parametrize("tune", [{"searcher": "grid"}, {"searcher": "random"}, {"scheduler": "pbt"}])
def test_files_keep_their_places_in_the_folders_of_trials(
    tune: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    Path("start.json").write_text(ZOO["ResNet18"].genotype.to_json())
    settings: dict[str, Any] = {"data": {"root": "one"}, "search": {"start": "start.json"}, "tune": tune}
    alone = {"search.momentum": {"type": "float", "low": 0.1, "high": 0.9}}
    if tune["searcher" if "searcher" in tune else "scheduler"] != "pbt":
        alone = {
            "data.root": {"type": "categorical", "choices": ["one", "two"]},
            "seed": {"type": "int", "low": 0, "high": 1, "when": {"data.root": ["two"]}},
        }
    config = resolve_sweep({"method": "dartopti", "space": alone, **settings})
    assert (config.data.root, config.search.start) == (str(tmp_path / "one"), str(tmp_path / "start.json"))
    if tune.get("searcher") == "grid":
        two = str(tmp_path / "two")
        wanted = [{"data.root": str(tmp_path / "one")}, *({"data.root": two, "seed": seed} for seed in (0, 1))]
        assert (config.build_space().grid(), config.tune.num_samples) == (wanted, 3)
    elif tune.get("searcher") == "random":
        points = [{"data.root": "two", "seed": 1}]
        given = resolve_sweep({"space": alone, **settings, "tune": {**tune, "points_to_evaluate": points}})
        assert given.tune.points_to_evaluate == [{"data.root": str(tmp_path / "two"), "seed": 1}]
    else:
        assert config.tune.searcher == "random"


def test_grid_needs_finite_parameters():
    space = {"alpha.lr": {"type": "float", "low": 0.01, "high": 0.1}}
    with pytest.raises(UserError, match=r"space\.alpha\.lr: searcher grid needs a finite list"):
        resolve_sweep({"space": space, "tune": {"searcher": "grid"}})
    with pytest.raises(UserError, match="exceeds the 2 grid points"):
        seeds = {"seed": {"type": "int", "low": 0, "high": 1}}
        resolve_sweep({"space": seeds, "tune": {"searcher": "grid", "num_samples": 3}})
