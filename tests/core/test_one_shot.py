"""One-shot accuracies: of the genotype alone, by the images of the alphas, and without a trace."""

from __future__ import annotations

import copy

import pytest
import torch

from ddarts_core.extension.conformance import equal
from ddarts_core.genotypes.spaces import edge_list, operations_of
from ddarts_core.ground.errors import UserError
from ddarts_core.search.one_shot import one_shot_accuracy, probed
from ddarts_core.settings.config import enumeration_of, resolve
from ddarts_core.supernets.supernet import batch_statistics

SMALL = ("search.space=S_3", "search.steps=1", "search.epochs=1")


@pytest.mark.parametrize("method", ["ddarts", "darts-minus"])
def test_a_genotype_is_scored_by_its_own_operations(digits, tiny_config, method):
    """The readable form, in which all other operations give not a number: they must not be looked at."""
    config = tiny_config(*SMALL, f"method={method}", "search.sharing=own", "search.implementation=readable")
    search = digits(config)
    next(search.records())
    every = enumeration_of(config)
    number = 137
    wanted = one_shot_accuracy(search, number)
    names = operations_of("S_3")
    right = total = 0
    with torch.no_grad(), batch_statistics(search.net.train()):
        for images, labels in search.splits.alphas.batches(24, info=search.info):
            gates = torch.zeros_like(search.gates)
            for position, cell in enumerate(every[number].cells):
                for edge in cell.edges:
                    place = edge_list(1).index((edge.source, edge.target))
                    gates[position, place, names.index(edge.op)] = 1
            right += int((search.net(images, gates).argmax(1) == labels).sum())
            total += len(labels)
    assert wanted == right / total
    for position, cell in enumerate(search.net.cells):
        for (source, _), edge in zip(edge_list(1), cell.edges, strict=True):
            (kept,) = (names.index(one.op) for one in every[number].cells[position].edges if one.source == source)
            for place, operation in enumerate(edge.ops):
                if place != kept:
                    operation.register_forward_hook(lambda module, inputs, output: output + 100)
    assert one_shot_accuracy(search, number) == wanted, "gates of 0 hide what the others give"


def test_probing_leaves_the_search_as_it_was_and_draws_from_the_seed(digits, tiny_config):
    config = tiny_config(*SMALL, "search.probe=7", "search.epochs=2")
    search = digits(config)
    records = search.records()
    next(records)
    before = copy.deepcopy(search.state_dict())
    found = probed(search)
    assert found is not None and len(found) == 7 and all(0 <= score <= 1 for score in found.values())
    assert equal(before, search.state_dict())
    assert probed(search) == found
    calm = digits(tiny_config(*SMALL, "search.epochs=2"))
    list(calm.records())
    next(records)
    assert torch.equal(calm.alphas, search.alphas), "the next epoch is that of a search without a probe"
    other = digits(tiny_config(*SMALL, "search.probe=7", "seed=1"))
    assert set(probed(other) or ()) != set(found)
    assert probed(calm) is None


def test_a_space_that_cannot_be_numbered_is_refused():
    with pytest.raises(UserError, match="are the most that can be numbered"):
        resolve({"search": {"probe": 5}})


def test_a_network_that_lost_operations_is_not_asked_for_all_genotypes():
    small = {"space": "S_3", "sharing": "own", "num_cells": 3, "steps": 1, "probe": 5}
    with pytest.raises(UserError, match=r"has only the operations that were kept: use search\.probe 0"):
        resolve({"method": "dots", "search": small})
    assert resolve({"method": "dots", "search": small | {"probe": 0}})
