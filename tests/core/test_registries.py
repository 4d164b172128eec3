"""Every entry of every table works: an entry that is added is tested by being there (docs/extending.md)."""

from __future__ import annotations

import math
from itertools import islice
from typing import get_args

import pytest
import torch
from pydantic import Field

from ddarts_core.data.sets import DATASETS, Published, data_info
from ddarts_core.estimates.estimate import heaviest_genotype
from ddarts_core.extension import conformance
from ddarts_core.extension.registry import Registry
from ddarts_core.genotypes.genotype import Edge
from ddarts_core.genotypes.spaces import OPERATION_NAMES, SPACES, num_edges
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import merge
from ddarts_core.ground.validation import Strict
from ddarts_core.methods import METHODS, REGULARISERS, RULES, ablation_losses, add_part, parts, paths_of_parts, rules
from ddarts_core.networks.network import Network
from ddarts_core.networks.operations import OPERATIONS
from ddarts_core.search.discretise import select
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import resolve
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.recipes import RECIPES
from ddarts_core.settings.search_settings import AblationConfig, Removal, SearchConfig
from ddarts_core.supernets.supernet import Supernet

TINY = {
    "data": {"name": "digits", "num_train": 240},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 1, "batch_size": 48, "device": "cpu"},
}


def leaves(settings: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(settings, dict):
        return {prefix: settings}
    return {p: v for key, value in settings.items() for p, v in leaves(value, f"{prefix}.{key}".lstrip(".")).items()}


def at(config: object, path: str) -> object:
    for name in path.split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return list(config) if isinstance(config, tuple) else config


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"none"}))
def test_an_operation_can_be_searched_written_and_trained(name: str) -> None:
    for _, check in conformance.LAWS["operation"]:
        check(name)


def test_the_zero_operation_is_no_part_of_a_genotype() -> None:
    with pytest.raises(UserError, match="unknown operation 'none'"):
        Edge(2, 0, "none")


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_searched_and_discretised(name: str) -> None:
    operations = SPACES[name]
    assert len(set(operations)) == len(operations)
    assert set(operations) <= set(OPERATIONS)
    assert set(operations) - {"none"} <= OPERATION_NAMES
    conformance.is_searched_and_discretised(name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_valid_configuration(name: str) -> None:
    """That it runs is in `test_methods.py`."""
    method = METHODS[name]
    assert method.summary and method.source
    preset = resolve({"method": name})
    for path, value in leaves(dict(method.settings)).items():
        assert at(preset, path) == value


def test_methods_differ() -> None:
    assert len({resolve({"method": name}).model_dump_json(exclude={"method"}) for name in METHODS}) == len(METHODS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_training_whose_network_can_be_built(name: str) -> None:
    config = resolve({"retrain": {"recipe": name}}).retrain
    assert {key: getattr(config, key) for key in RECIPES[name]} == dict(RECIPES[name])
    with torch.device("meta"):
        network = Network(
            ZOO["DD_1"].genotype,
            config.channels,
            num_classes=10,
            form=config.form,
            auxiliary=config.auxiliary_weight > 0,
            num_cells=config.num_cells,
            drop_path_unit=config.drop_path_unit,
        )
    assert network.genotype.num_cells == (config.num_cells or 8)
    assert (network.auxiliary_parameters > 0) == (config.auxiliary_weight > 0)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_states_its_facts(name: str) -> None:
    entry = DATASETS[name]
    assert entry.name == name and entry.files
    for _, check in conformance.LAWS["data set"]:
        check(name)
    if isinstance(entry, Published):
        info = data_info(DataConfig(name=name))
        assert info == entry.info
        with torch.device("meta"):
            form = "imagenet" if info.image_size > 100 else "cifar"
            assert Supernet(SearchConfig(form=form), info).classifier.out_features == info.num_classes


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_a_genotype(rule: str) -> None:
    conformance.gives_a_genotype(rule)


def test_a_rule_from_outside_has_options_and_is_refused_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the documents, with an option; the bound of the memory of a training follows it."""

    class Triple(rules.Complete):
        name, summary = "triple", "the best operations of each edge"
        most_operations = 3

        class Options(Strict):
            margin: float = Field(0.0, ge=0, le=1)

        @property
        def threshold(self) -> float:
            return self.discretise.threshold + self.options.margin

    monkeypatch.setattr(RULES, "_entries", dict(RULES))
    add_part(Triple)
    assert "discretise.options.margin" in paths_of_parts()
    settings = {"discretise": {"rule": "triple", "threshold": 0.5, "options": {"margin": 0.2}}}
    config = resolve(settings).discretise
    row = [0.6, 0.71, 0.69, 0.9, 0.8, 0.1, 0.95]
    assert [edge.op for edge in select([row, row], SPACES["S"], 1, config)] == [SPACES["S"][k] for k in (6, 3, 4)] * 2
    heaviest = heaviest_genotype(resolve(settings), conformance.IMAGES)
    assert len(heaviest.cells[0].edges) == 3 * num_edges(4)
    for wrong, words in (
        ({"method": "darts"}, "discretise.rule 'triple' needs sigmoid gates: use darts with softmax"),
        ({"discretise": {"options": {"margn": 1}}}, "unknown option 'margn': choose one of margin"),
        ({"discretise": {"options": {"margin": 2}}}, "margin"),
        ({"discretise": {"rule": "tripl", "options": {}}}, "unknown rule of discretisation 'tripl'"),
        ({"discretise": {"rule": "darts"}}, "unknown option 'margin': the parts in use have none"),
    ):
        with pytest.raises(UserError, match=words):
            resolve(merge(settings, wrong))


@pytest.mark.parametrize("loss", ablation_losses())
def test_an_ablation_loss_moves_alphas_unless_it_is_only_measured(loss: str) -> None:
    found, g, h = conformance.measured()
    term = ablation_losses()[loss](AblationConfig(loss=loss))
    conformance.weighs_each_group(term.name)
    assert bool((term.gradient(found, g, h) != 0).any()) == (loss != "monitor")


def test_an_ablation_loss_from_outside_is_a_term_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an option, a weight and a schedule; its value is recorded, and its gradient moves the alphas."""

    class Blame(parts.Ablation):
        name, summary = "ablation-blame", "the share of a cell in what all cells contribute"

        class Options(Strict):
            bent: float = Field(1.0, gt=0, le=4)

        def value(self, found: parts.Contributions) -> torch.Tensor:
            return found.filled.abs() ** self.options.bent

        def gradient(self, found: parts.Contributions, g: torch.Tensor, h: torch.Tensor | None) -> torch.Tensor:
            return -2 * g

    monkeypatch.setattr(REGULARISERS, "_entries", dict(REGULARISERS))
    registry = Registry("mine")
    registry.part(Blame)
    assert registry.names == {"ablation": ["ablation-blame"]}
    assert [conformance.unlawful(law) for law in conformance.laws(registry)] == [None]
    assert {"ablation.options.bent", "search.regularisers.ablation-blame.weight"} <= set(paths_of_parts())
    terms = {"w_zero_one": 0.0, "regularisers": {"ablation-blame": {"weight": 1.0}}}
    search = build_search(resolve(merge(TINY, {"search": terms, "ablation": {"options": {"bent": 2.0}}})))
    record = next(search.records())
    assert record.ablation == pytest.approx([m**2 for m in record.contributions])
    (first, second), step = islice(search._alpha_batches(0), 2), search._step
    inputs = (search.parameters, first, second, search._sgd, torch.Generator())
    found = step.gradients(*inputs).gradients["alphas"]
    step.ablation = None
    assert torch.allclose(found, -step.gradients(*inputs).gradients["alphas"]) and found.abs().max() > 0
    Blame.name = "blame"
    with pytest.raises(UserError, match="the name of an ablation loss begins with 'ablation-', and that of another"):
        registry.part(Blame)


@pytest.mark.parametrize("removal", get_args(Removal))
def test_a_removal_changes_the_network(removal: Removal) -> None:
    search = build_search(resolve(TINY, [f"ablation.removal={removal}", "ablation.loss=monitor", "alpha.init=normal"]))
    record = next(search.records())
    assert len(record.contributions) == 3
    assert all(math.isfinite(m) and m != 0 for m in record.contributions)
