"""Steps, sizes and time of an experiment before it runs."""

from __future__ import annotations

import json

import pytest
import torch

from ddarts_cli.main import main
from ddarts_core.config import ExperimentConfig, resolve
from ddarts_core.data import load_train, split
from ddarts_core.estimate import estimate, heaviest_genotype, time_steps
from ddarts_core.search import build_search

CONFIG: ExperimentConfig = resolve(
    {
        "data": {"num_train": 200},
        "search": {"num_cells": 3, "channels": 2, "steps": 2, "batch_size": 20, "epochs": 2, "warmup_epochs": 1},
        "retrain": {"epochs": 3, "batch_size": 32, "channels": 4},
    }
)
CPU = torch.device("cpu")


def test_counts() -> None:
    found = estimate(CONFIG, CPU)
    _, train = load_train(CONFIG.data)
    splits = split(train, CONFIG.data, CONFIG.seed)
    assert found.images == (len(splits.weights), len(splits.alphas), len(splits.held_out))
    assert found.steps == 3 * (len(splits.weights) // 20)
    assert found.retrain_steps == 3 * ((len(splits.weights) + len(splits.alphas)) // 32)
    assert found.parameters == sum(weight.numel() for weight in build_search(CONFIG).net.parameters())
    assert found.macs > found.parameters  # every weight of a convolution works at many places
    assert found.peak >= found.memory.peak


def test_the_heaviest_genotype_fills_every_node() -> None:
    genotype = heaviest_genotype(CONFIG)
    assert len(genotype.cells) == 3
    assert {edge.op for cell in genotype.cells for edge in cell.edges} == {"sep_conv_5x5"}
    assert [len(cell.edges) for cell in genotype.cells] == [4, 4, 4]


def test_time_is_of_the_order_of_a_real_search() -> None:
    """Loose on purpose: the machine may be busy."""
    expected = time_steps(CONFIG, CPU).search(CONFIG, estimate(CONFIG, CPU))
    took = sum(sum(record.seconds.values()) for record in build_search(CONFIG).records())
    assert took / 4 < expected < 4 * took


def test_command(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["estimate", "experiments/quickstart_sweep.yaml", "--set", "data.num_train=300"]
    sizes = ["--set", "search.channels=2", "--set", "search.batch_size=24", "--set", "retrain.channels=4"]
    with pytest.raises(SystemExit) as status:
        main([*arguments, *sizes, "--json"])
    assert status.value.code == 0
    document = json.loads(capfd.readouterr().out)
    assert document["seconds"].keys() == {"search", "training", "sweep"}
    assert document["memory"]["search"] > document["memory"]["parameters"]
