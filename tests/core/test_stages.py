"""Genotypes of stages: their file, their network, and the golden sizes of FBNetV2."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ddarts_core.data.sets import load_train
from ddarts_core.exports.export import Blueprint, read_safetensors, write_safetensors
from ddarts_core.genotypes.blocks import Block, StagedGenotype, rounded
from ddarts_core.genotypes.genotype import AnyGenotype, Genotype
from ddarts_core.genotypes.zoo import STAGED, resolve_genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.cost import cost
from ddarts_core.networks.measured_cost import measured_cost
from ddarts_core.networks.staged import InvertedResidual, StagedNetwork
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.training.retrain import Retrain

#: Weights of convolutions and linear layers, multiply-adds plus inputs of average pools, as published, and pixels.
PUBLISHED = {
    "FBNetV2_F1": (5_999_408, 56_410_560, 128),
    "FBNetV2_F2": (5_999_408, 85_441_392, 160),
    "FBNetV2_F3": (6_899_504, 121_824_000, 192),
    "FBNetV2_F4": (6_994_824, 238_351_984, 224),
    "FBNetV2_L1": (8_496_520, 326_023_008, 224),
    "FBNetV2_L2": (8_496_520, 423_912_768, 256),
}

STEM = Block(8, 3, 2)
SMALL = StagedGenotype(
    (
        (STEM,),
        (Block(8, 5, middle=8, expand=False, activation="relu"), Block(8, 3, middle=24, squeeze=True)),
        (Block(16, 3, 2, middle=40), Block(24, 1, activation="relu")),
    ),
    hidden=32,
    image_size=16,
)


def pooled(genotype: StagedGenotype) -> int:
    """Inputs of average pools, which the published counter counts; its classifier pools one pixel once more."""
    size, found = genotype.image_size, genotype.hidden
    for block in genotype.blocks:
        size = -(-size // block.stride)
        found += block.squeeze * block.middle * size**2
    return found + genotype.blocks[-1].channels * size**2


@pytest.mark.parametrize("name", STAGED)
def test_published_counts(name: str) -> None:
    genotype = STAGED[name].genotype
    weights, operations, size = PUBLISHED[name]
    found = cost(genotype, num_classes=1000)
    assert (found.weights, found.macs["A"] + pooled(genotype), genotype.image_size) == (weights, operations, size)


def test_counts_of_l1() -> None:
    found = cost(STAGED["FBNetV2_L1"].genotype, num_classes=1000)
    assert (found.parameters, found.macs["A"]) == (8_538_776, 325_025_344)


@pytest.mark.parametrize("genotype", [SMALL, replace(SMALL, hidden=0, activation="relu")])
def test_arithmetic_counts_what_the_network_has(genotype: StagedGenotype) -> None:
    arithmetic = cost(genotype, num_classes=7, in_channels=2, image_size=33)
    assert arithmetic == measured_cost(genotype, 36, 7, 2, 33, "cifar")


def test_a_file_gives_the_genotype_back(tmp_path: Path) -> None:
    file = tmp_path / "genotype.json"
    file.write_text(SMALL.to_json(), encoding="utf-8")
    assert resolve_genotype(str(file)) == SMALL == StagedGenotype.load(file)
    assert len({entry.genotype.hash for entry in STAGED.values()} | {SMALL.hash}) == len(STAGED) + 1
    with pytest.raises(UserError, match="needs a genotype of layout individual or normal_reduce"):
        Genotype.load(file)


def test_equal_blocks_in_a_row_are_one() -> None:
    first, then = Block(16, 3, 2, middle=40), Block(16, 3, middle=40)
    apart = StagedGenotype(((STEM,), (first, then, then)))
    assert apart == StagedGenotype(((STEM,), (replace(first, repeats=3),)))
    assert apart.blocks == (STEM, first, then, then) and apart.reductions == (0, 1)


def test_numbers_of_channels_are_rounded_as_published() -> None:
    """24 x 1.7912 is 43: 40 would lack over 5 %. 16 x 5.4566 is 87.3; 26 / 4 is raised to the smallest."""
    assert [rounded(24 * 1.7912), rounded(16 * 5.4566), rounded(6.5)] == [48, 88, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": []}, "at least one stage"),
        ({"stages": [[]]}, "each stage a block"),
        ({"hidden": True}, "an integer"),
        ({"activation": "tanh"}, "relu or hswish"),
        ({"image_size": 0}, "image_size 0"),
        ({"layout": "cells"}, "choose individual, normal_reduce or stages"),
        ({"stages": [[{"channels": 8}]]}, "lists of blocks with channels, kernel"),
        ({"block": {"kernel": 4}}, "kernel of a block is odd"),
        ({"block": {"stride": 3}}, "stride 1 or 2"),
        ({"block": {"channels": 0}}, "1 or more"),
        ({"block": {"squeeze": True}}, "only a block with middle channels"),
        ({"block": {"expand": False}}, "only a block with middle channels"),
        ({"second": {"middle": 16, "stride": 1, "expand": False}}, "block 1 has no expansion"),
        ({"block": {"squeeze": 1}}, "lists of blocks"),
        ({"block": {"activation": "gelu"}}, "choose relu or hswish"),
        ({"second": {"stride": 2}}, "begin another stage"),
    ],
)
def test_what_a_file_may_not_say(change: dict[str, object], words: str) -> None:
    data = json.loads(SMALL.to_json())
    for number, name in enumerate(("block", "second")):
        fields = change.pop(name, None)
        if fields is not None:
            data["stages"][0].insert(number, data["stages"][0][0] | fields)
    with pytest.raises(UserError, match=words):
        AnyGenotype.from_dict(data | change)


def test_blocks_compute_what_they_say() -> None:
    """By hand, in float64: expansion, depthwise, squeeze-excitation, projection, and the input on top."""
    torch.manual_seed(0)
    network = StagedNetwork(SMALL, 5, in_channels=2).double().eval()
    block = network.blocks[2]
    assert isinstance(block, InvertedResidual) and block.adds
    expand, deep, squeeze, project = block.layers
    nn.init.normal_(project[1].weight)
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64)
    y = nn.functional.hardswish(expand[1](torch.einsum("nchw,dc->ndhw", x, expand[0].weight[:, :, 0, 0])))
    windows = nn.functional.pad(y, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    y = nn.functional.hardswish(deep[1](torch.einsum("nchwij,cij->nchw", windows, deep[0].weight[:, 0])))
    few = (y.mean((2, 3)) @ squeeze.squeeze.weight[:, :, 0, 0].T + squeeze.squeeze.bias).relu()
    gate = ((few @ squeeze.excite.weight[:, :, 0, 0].T + squeeze.excite.bias + 3) / 6).clamp(0, 1)
    y = project[1](torch.einsum("nchw,dc->ndhw", y * gate[:, :, None, None], project[0].weight[:, :, 0, 0]))
    torch.testing.assert_close(block(x), x + y, rtol=1e-10, atol=1e-10)


def test_a_residual_block_begins_as_the_identity_and_is_what_drop_path_drops() -> None:
    network = StagedNetwork(SMALL, 5)
    x = torch.randn(4, 8, 8, 8)
    assert torch.equal(network.blocks[2](x), x)
    nn.init.ones_(network.blocks[2].layers[-1][1].weight)
    network.generator, network.drop_path = torch.Generator().manual_seed(1), 0.5
    dropped = (network.train().blocks[2](x) - x).flatten(1).abs().sum(1) == 0
    assert 0 < int(dropped.sum()) < 4


def test_the_auxiliary_head_reads_the_block_before_the_last_halving() -> None:
    network = StagedNetwork(SMALL, 5, image_size=16, auxiliary=True).train()
    assert network.auxiliary_position == 2
    assert [logits.shape for logits in network(torch.zeros(2, 3, 16, 16))] == [(2, 5), (2, 5)]
    assert network.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    with pytest.raises(UserError, match="auxiliary_weight to 0"):
        StagedNetwork(StagedGenotype(((STEM,),)), 5, auxiliary=True)


def test_it_is_trained_resumed_and_kept_like_any_other(tmp_path: Path) -> None:
    info, images = load_train(DataConfig(name="digits", num_train=60))
    config = RetrainConfig(epochs=2, batch_size=30, drop_path=0.2, auxiliary_weight=0.4)
    whole, half = (Retrain(config, SMALL, info, images, None, seed=3) for _ in range(2))
    list(whole.records())
    next(half.records())
    again = Retrain(config, SMALL, info, images, None, seed=3)
    again.load_state_dict(half.state_dict())
    list(again.records())
    assert all(torch.equal(value, again.weights()[name]) for name, value in whole.weights().items())
    blueprint = Blueprint(SMALL, config, info)
    write_safetensors(whole.network, blueprint, tmp_path / "weights.safetensors")
    network, read = read_safetensors(tmp_path / "weights.safetensors")
    x = torch.rand(2, 1, 8, 8)
    assert read == blueprint and torch.equal(network(x), whole.network.eval()(x))


def test_depth_and_reductions_belong_to_cells() -> None:
    for settings in ({"num_cells": 8}, {"reductions": "thirds"}):
        with pytest.raises(UserError, match="has its own depth and strides"):
            cost(SMALL, **settings)
