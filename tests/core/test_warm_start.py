"""DARTOpti: a handcrafted genotype as the start of a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ddarts_tuning.settings.space import base_settings, trial_config

from ddarts_core.data.images import DataInfo
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.handcrafted import HANDCRAFTED
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.network import Network
from ddarts_core.search.convergence import convergence_sentence
from ddarts_core.search.discretise import discretise
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import resolve
from ddarts_core.settings.search_settings import DiscretiseConfig
from ddarts_core.settings.warm_start import encode, identical_groups, notes
from ddarts_core.supernets.supernet import Supernet

SMALL = ("search.channels=2", "search.epochs=1", "search.warmup_epochs=0", "data.num_train=120", "search.batch_size=24")


#: Own architectures of docs/dartopti.md.
STARTS = sorted((Path(__file__).parents[2] / "experiments" / "starts").glob("*.json"))
HANDMADE = {f"zoo:{name}": HANDCRAFTED[name](1) for name in HANDCRAFTED} | {
    str(file): Genotype.load(file) for file in STARTS
}


@pytest.mark.parametrize("genotype", HANDMADE.values(), ids=[Path(name).stem for name in HANDMADE])
def test_encoding_gives_the_genotype_back(genotype):
    gates = encode(genotype, "S_o", genotype.steps)
    config = DiscretiseConfig(rule="complete", on_empty_node="drop")
    found = discretise(gates, config, "S_o", genotype.steps, genotype.reductions, "individual").genotype
    assert found == genotype


def _with_weights_of(net: Supernet, derived: Network) -> None:
    """Give a derived network the weights that the supernet has for the same operations and inputs.

    The supernet concatenates all nodes, the network those of the genotype: what reads a cell reads only these channels.
    A pool is normalised in the supernet alone; there its statistics are made those of the identity.
    """
    derived.stem.load_state_dict(net.stem.state_dict())
    kept = [slice(None), slice(None)]  # channels of the two inputs that the network has too
    for ours, cell, genes in zip(derived.cells, net.cells, derived.genotype.cells, strict=True):
        for own, theirs, channels in zip(ours.preprocess, (cell.preprocess0, cell.preprocess1), kept[-2:], strict=True):
            values = theirs.state_dict()
            own.load_state_dict({k: v[:, channels] if v.ndim == 4 else v for k, v in values.items()}, strict=False)
        for edge, own in zip(genes.edges, ours.operations, strict=True):
            theirs = cell.edges[cell.edge_list.index((edge.source, edge.target))].ops[cell.names.index(edge.op)]
            if "pool" in edge.op:
                norm = next(module for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d))
                norm.running_var.fill_(1 - norm.eps)
            else:
                own.load_state_dict(theirs.state_dict(), strict=False)  # the network's normalisation is affine too
        kept.append([(node - 2) * cell.channels + k for node in genes.concat for k in range(cell.channels)])
    derived.classifier.weight.data = net.classifier.weight.data[:, kept[-1]]
    derived.classifier.bias.data = net.classifier.bias.data


@pytest.mark.parametrize("start", HANDMADE, ids=[Path(name).stem for name in HANDMADE])
def test_with_a_large_margin_the_supernet_is_the_network_of_its_start(start):
    """Gates of 1 and 0 leave the operations of the start: the same logits as of the network that shares its weights."""
    config = resolve({"method": "dartopti", "search": {"channels": 2, "start": start}}).search
    genotype = HANDMADE[start]
    size = 2 ** max(3, len(genotype.reductions))
    torch.manual_seed(1)
    net = Supernet(config, DataInfo("toy", 3, 1, size, (0.5,), (0.5,))).double().eval()
    derived = Network(genotype, 2, 3, in_channels=1, image_size=size).double().eval()
    _with_weights_of(net, derived)
    alphas = 20.0 * (2 * torch.tensor(encode(genotype, "S_o", config.steps), dtype=torch.float64) - 1)
    gates = alphas.sigmoid()[[net.group_of.index(group) for group in range(net.num_groups)]]
    x = torch.randn(2, 1, size, size, dtype=torch.float64)
    logits = net(x, gates)
    assert logits.std() > 1e-3
    torch.testing.assert_close(logits, derived(x), rtol=1e-5, atol=1e-6)


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
    assert identical_groups(ZOO["Xception_5"].genotype) == (0, 1, 1, *[2] * 8, 3, 4)


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


def test_weights_of_the_losses_follow_from_the_groups_of_identical_cells():
    def weights(alpha=None, **search):
        config = resolve({"method": "dartopti", "search": search, "alpha": alpha or {}})
        return config.search.w_zero_one, config.alpha.weight_decay

    other = {"start": "zoo:ResNet50"}
    shape = {**other, "num_cells": 4, "reductions": [1, 2, 3], "steps": 6}
    assert (weights(), weights(**other)) == ((8.0, 5e-4), (2.67, 2.5e-4))
    assert weights(**shape, w_zero_one=8.0) == (8.0, 2.5e-4)
    assert weights({"weight_decay": 0.0}, **shape) == (2.67, 0.0)
    assert weights(**other, sharing="own") == (1.0, 1.1e-4)


def test_a_swept_start_brings_what_follows_from_it():
    base = base_settings(resolve({"method": "dartopti"}))
    assert base == {"method": "dartopti"}
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
        ("search.start=123", "search.start"),
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


STOPPED = (
    *SMALL,
    "search.epochs=9",
    "search.stop={distance: 0.001, epochs: 2, after: 1}",
    "ablation.shapley_permutations=2",
    "alpha.lr=1e-6",
    "alpha.lr_min=1e-6",
)


def test_a_search_ends_when_its_distance_to_the_start_stands_still_and_is_resumed_bit_for_bit(tmp_path):
    """With alphas that hardly move: one epoch that does not count, then the distance of three epochs is the same."""
    file = tmp_path / "start.json"
    cell = Cell((Edge(2, 0, "simple_conv_3x3"), Edge(2, 1, "skip_connect")), (2,))
    file.write_text(Genotype((cell,) * 3, (1,)).to_json())
    config = resolve({"method": "dartopti"}, (*STOPPED, f"search.start={file}", "search.steps=1"))
    whole = build_search(config)
    records = list(whole.records())
    assert len(records) == 4 and whole.over and whole.epoch < whole.num_epochs
    assert [record.metrics["distance/start"] for record in records] == [0.0] * 4
    assert records[-1].shapley and not records[-2].shapley, "the last epoch has what last epochs have"
    first = build_search(config)
    next(records_of := first.records()), next(records_of), next(records_of)
    again = build_search(config)
    again.load_state_dict(first.state_dict())
    (last,) = again.records()
    assert last.to_dict() == records[-1].to_dict() and list(again.records()) == []


def test_a_search_whose_distance_moves_is_not_ended():
    search = build_search(resolve({"method": "dartopti"}, STOPPED))
    search._distances = [0.5, 0.2, 0.2]
    assert not search.over
    search._distances += [0.2008]
    assert search.over


def test_stop_needs_a_start_and_one_network():
    for text in ("{'start': null, 'sharing': 'own', 'stop': {}}", "{'stages': 'widening', 'stop': {}}"):
        with pytest.raises(UserError, match="stop compares one network"):
            resolve({"method": "dartopti"}, [f"search={text}"])


def test_identical_cells_of_equal_width_share_weights_if_wanted(tmp_path):
    """Of four identical cells the last two have equal width: one set of weights, whose gradient is that of both."""
    cell = Cell((Edge(2, 1, "simple_conv_3x3"), Edge(3, 2, "sep_conv_3x3"), Edge(3, 1, "skip_connect")), (2, 3))
    file = tmp_path / "start.json"
    file.write_text(Genotype((cell,) * 4, (1,)).to_json())
    settings = {"method": "dartopti", "search": {"start": str(file), "channels": 2}}
    info = DataInfo("toy", 3, 1, 8, (0.5,), (0.5,))
    torch.manual_seed(1)
    own = Supernet(resolve(settings).search, info).double()
    shared = Supernet(resolve(settings, ["search.share_weights=true"]).search, info).double()
    sizes = [sum(weight.numel() for weight in net.parameters()) for net in (own, shared)]
    assert sizes[0] - sizes[1] == sum(weight.numel() for weight in own.cells[3].edges.parameters()) > 0
    own.load_state_dict(shared.state_dict())
    x, gates = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.rand(1, 5, 12, dtype=torch.float64)
    for net in (own, shared):
        net(x, gates)[:, 0].sum().backward()
    apart = [dict(own.cells[k].edges.named_parameters()) for k in (2, 3)]
    for name, weight in shared.cells[2].edges.named_parameters():
        assert weight is shared.cells[3].edges.get_parameter(name)
        torch.testing.assert_close(weight.grad, apart[0][name].grad + apart[1][name].grad)
    with pytest.raises(UserError, match="zoo:ResNet18 have equal width, so that there is nothing to share"):
        Supernet(resolve({"method": "dartopti"}, ["search.share_weights=true"]).search, info)


def test_that_one_group_has_no_ablation_loss_is_said_once():
    config = resolve({"method": "dartopti"}, SMALL)
    (note,) = notes(config)
    assert "the ablation loss is 0" in note
    assert notes(resolve({"method": "dartopti"}, ["ablation.loss=none"])) == []
    assert notes(resolve({"method": "dartopti"}, ["search.start=zoo:ResNet50"])) == []
