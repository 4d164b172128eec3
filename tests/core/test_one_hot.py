"""A supernet whose gates are a genotype's, and the derived network with the same weights, are one function."""

from __future__ import annotations

import pytest
import torch

from ddarts_core.genotypes.spaces import operations_of
from ddarts_core.networks.network import Network
from ddarts_core.search.discretise import discretise
from ddarts_core.settings.search_settings import DiscretiseConfig
from ddarts_core.settings.warm_start import encode
from ddarts_core.supernets.supernet import batch_statistics


def share_weights(derived, net, space):
    """Put the supernet's own modules into the derived network."""
    names = operations_of(space)
    derived.stem = net.stem
    derived.classifier = net.classifier
    for k, cell in enumerate(derived.cells):
        searched = net.cells[k]
        cell.preprocess[0], cell.preprocess[1] = searched.preprocess0, searched.preprocess1
        edges = list(searched.edge_list)
        for j, (edge, op) in enumerate(zip(cell.edges, cell.names, strict=True)):
            cell.operations[j] = searched.edges[edges.index(edge)].ops[names.index(op)]


@pytest.mark.parametrize("rule", ["sparse", "edge", "darts", "complete"])
@pytest.mark.parametrize("space", ["S", "S_o"])
@pytest.mark.parametrize(("edges_per_node", "form"), [(None, "cifar"), (2, "cifar"), (None, "imagenet")])
def test_one_hot_supernet_is_the_derived_network(float64_net, rule, space, edges_per_node, form):
    net, alphas, x, _ = float64_net(num_cells=4, space=space, steps=3, form=form)
    config = DiscretiseConfig(rule=rule, threshold=0.7, edges_per_node=edges_per_node)
    gates = alphas.sigmoid()
    genotype = discretise(gates, config, space, 3, (1, 2), "individual").genotype
    size = x.shape[-1]
    derived = Network(genotype, channels=3, num_classes=4, in_channels=2, image_size=size, form=form).double().train()
    for cell, searched in zip(derived.cells, genotype.cells, strict=True):
        cell.names = [edge.op for edge in searched.edges]
    share_weights(derived, net, space)
    one_hot = torch.tensor(encode(genotype, space, 3), dtype=torch.float64)
    with batch_statistics(net), torch.no_grad():
        expected = net(x, one_hot)
        found = derived(x)
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)
    assert expected.abs().max() > 1e-3
