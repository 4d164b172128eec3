"""DARTOpti: a handcrafted genotype as the start of a search."""

from __future__ import annotations

import pytest
import torch
from ddarts_tuning.settings.space import base_settings, trial_config

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.search.discretise import convergence_sentence, discretise
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import DiscretiseConfig, resolve
from ddarts_core.settings.warm_start import encode, identical_groups

SMALL = ("search.channels=2", "search.epochs=1", "search.warmup_epochs=0", "data.num_train=120", "search.batch_size=24")


@pytest.mark.parametrize(("name", "steps"), [("ResNet18", 4), ("ResNet50", 6), ("Xception", 4)])
def test_encoding_gives_the_genotype_back(name, steps):
    genotype = ZOO[name].genotype
    gates = encode(genotype, "S_o", steps)
    config = DiscretiseConfig(rule="complete", on_empty_node="drop")
    found = discretise(gates, config, "S_o", steps, genotype.reductions, "individual").genotype
    assert found == genotype


def test_the_sentence_of_a_search_with_shared_alphas_counts_the_nodes_of_all_cells():
    """One group of alphas stands for the four cells of ResNet18, each of which has four nodes."""
    search = build_search(resolve({"method": "dartopti", "alpha": {"start_margin": 0.1}}, SMALL))
    derivation = search.discretise()
    sentence = convergence_sentence(search.cell_gates, derivation, search.config.discretise)
    assert "left 16 of 16 nodes without input" in sentence


def test_distinct_cells():
    assert identical_groups(ZOO["ResNet18"].genotype) == (0, 0, 0, 0)
    assert identical_groups(ZOO["ResNet50"].genotype) == (0, 1, 2, 0)
    assert identical_groups(ZOO["Xception"].genotype) == (0, 0, 0, *[1] * 8, 0, 2)


def test_search_starts_at_the_handcrafted_network_and_runs():
    search = build_search(resolve({"method": "dartopti", "discretise": {"rule": "complete"}}, SMALL))
    assert search.alphas.shape == (1, 14, 12)
    assert search.discretise().genotype == ZOO["ResNet18"].genotype
    assert sorted(set(search.alphas.flatten().tolist())) == [-2.0, 2.0]
    before = search.alphas
    next(search.records())
    assert not torch.equal(search.alphas, before)


def test_cells_reductions_nodes_space_and_image_size_follow_from_the_start():
    xception = resolve({"method": "dartopti"}, ["search.start=zoo:Xception"])
    assert (xception.search.num_cells, xception.search.reductions, xception.data.image_size) == (13, (1, 2, 11, 12), 16)
    resnet50 = resolve({"search": {"start": "zoo:ResNet50"}, "data": {"name": "fashion_mnist"}})
    assert (resnet50.search.steps, resnet50.search.space, resnet50.data.image_size) == (6, "S_o", 32)
    given = {"start": "zoo:ResNet50", "steps": 7, "num_cells": 4, "reductions": None}
    same = resolve({"search": given, "data": {"name": "fashion_mnist", "image_size": 64}})
    assert (same.search.steps, same.search.reductions, same.data.image_size) == (7, (1, 2, 3), 64)
    assert resolve(same.model_dump(mode="json")) == same, "a stored configuration is not completed"


def test_a_swept_start_brings_what_follows_from_it():
    base = base_settings(resolve({"method": "dartopti"}))
    assert "steps" not in base["search"] and "num_cells" not in base["search"]
    trial = trial_config(base, {"search.start": "zoo:ResNet50"})
    assert trial == resolve({"method": "dartopti", "search": {"start": "zoo:ResNet50"}})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.num_cells=8", r"num_cells 8 contradicts search.start zoo:ResNet18, which has 4: leave it out"),
        ("search.reductions=[1, 2]", r"reductions \[1, 2\] contradicts .* which has \[1, 2, 3\]"),
        ("search.steps=3", "uses node 5: search.steps must be 4 or more"),
        ("search.start=zoo:DARTS_V2", "two shared cells"),
        ("search.space=S", "search.space S lacks"),
        ("search.start=null", "needs `start`"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(override, words):
    with pytest.raises(UserError, match=words):
        build_search(resolve({"method": "dartopti"}, (*SMALL, override)))


def test_an_operation_twice_on_one_edge_cannot_start_a_search(tmp_path):
    twice = Cell((Edge(2, 0, "avg_pool_3x3"), Edge(2, 0, "avg_pool_3x3"), Edge(2, 1, "skip_connect")), (2,))
    file = tmp_path / "twice.json"
    file.write_text(Genotype((twice,) * 4, (1, 2, 3)).to_json())
    with pytest.raises(UserError, match="twice on one edge"):
        build_search(resolve({"method": "dartopti"}, (*SMALL, f"search.start={file}")))
