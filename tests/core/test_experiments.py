"""Dry runs of the paper's experiment files: settings, supernet on the meta device, steps, memory; nothing is trained.

`pytest -rP tests/core/test_experiments.py` prints the numbers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from ddarts_tuning.settings.config import SweepConfig, load_sweep
from ddarts_tuning.settings.space import base_settings, trial_config

from ddarts_core.data.sets import data_info
from ddarts_core.genotypes.derive import algorithm_1
from ddarts_core.genotypes.spaces import num_edges, operations_of
from ddarts_core.settings.config import ExperimentConfig, load_experiment
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.search_settings import SearchConfig
from ddarts_core.supernets.supernet import Supernet

FOLDER = Path(__file__).parents[2] / "experiments" / "paper"
SEARCHES = sorted(path.stem for path in FOLDER.glob("dd-*.yaml"))
OPTIMISED = sorted(path.stem for path in FOLDER.glob("do-*.yaml"))
SWEEPS = sorted(path.stem for path in FOLDER.glob("figure-*.yaml"))

NUM_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}

# Weights of the published supernet by data set (8 cells, 16 channels). ImageNet's form: counted by hand from
# CIFAR-10's, which has 48 channels after its stem, 16 are read by cell 0 (both inputs) and by cell 1 (its input 0).
STEM = 3 * 8 * 9 + 2 * 8 + 8 * 16 * 9 + 2 * 16 + 16 * 16 * 9 + 2 * 16
WEIGHTS = {
    "cifar10": 1_930_618,
    "cifar100": 1_953_748,
    "imagenet": 1_930_618 - (3 * 48 * 9 + 2 * 48) + STEM - 3 * 16 * (48 - 16) + 257 * 990,
}

# Rows of Tables 1 to 3: data set, rule, whether the loss is L_T, cells when trained, batch of the search.
ROWS = {
    "dd-1": ("cifar10", "sparse", True, 8, 128),
    "dd-2": ("cifar10", "edge", False, 8, 128),
    "dd-3": ("cifar10", "edge", True, 14, 128),
    "dd-4": ("cifar100", "edge", True, 8, 128),
    "dd-5": ("cifar100", "sparse", True, 8, 128),
    "dd-6": ("cifar100", "edge", False, 8, 128),
    "dd-7": ("imagenet", "edge", True, 8, 96),
}

# DARTOpti's rows of Table 3: weights of the supernet, groups of alphas. With 10 classes and the last 4 nodes
# concatenated, as in the published code, there are 67,455,082 and 129,537,706 weights; these have 100 classes and
# concatenate all 6 nodes of ResNet50, which widens what later cells read by 126,976 weights.
HANDCRAFTED = {
    "do-2-resnet18": (67_455_082 + 90 * 1025, 1),
    "do-2-resnet50": (129_537_706 + 126_976 + 100 * 1537 - 10 * 1025, 3),
}

# Points of Figures 2 to 4: swept paths and number of trials.
FIGURES = {
    "figure-2": ({"ablation.weight"}, 9),
    "figure-3": ({"search.w_zero_one"}, 7),
    "figure-4": ({"method", "seed"}, 16),
}


@cache
def count(search: SearchConfig, data: DataConfig) -> tuple[int, int]:
    """Weights and alphas of a supernet that has shapes but no storage."""
    with torch.device("meta"):
        net = Supernet(search, data_info(data))
    alphas = net.num_groups * num_edges(search.steps) * len(operations_of(search.space))
    return sum(weight.numel() for weight in net.parameters()), alphas


def estimate(config: ExperimentConfig) -> tuple[int, int, int]:
    """Weights, steps per epoch, and bytes that a search needs at least: values, gradients and optimiser states."""
    weights, alphas = count(config.search, config.data)
    steps = round(config.data.split.weights * NUM_TRAIN[config.data.name]) // config.search.batch_size
    # SGD keeps one momentum buffer per weight, Adam two moments per alpha; float32.
    return weights, steps, 4 * (3 * weights + 4 * alphas)


def trials(sweep: SweepConfig) -> list[ExperimentConfig]:
    return [trial_config(base_settings(sweep), point) for point in sweep.tune.points_to_evaluate]


def check_full_scale(config: ExperimentConfig) -> None:
    """Section 5.1, and the split: CIFAR's training images are used up, a score on images that no step has seen."""
    search, split = config.search, config.data.split
    assert (search.num_cells, search.channels, search.epochs, search.steps) == (8, 16, 50, 4)
    assert search.reduction_positions == (2, 5)
    assert split.weights == split.alphas and split.weights + split.alphas + split.held_out == pytest.approx(1)
    assert config.data.flip and (config.data.crop_padding, config.data.resized_crop) == (
        (0, True) if config.data.name == "imagenet" else (4, False)
    )
    assert search.form == ("imagenet" if config.data.name == "imagenet" else "cifar")


def test_there_is_a_file_for_every_row_and_figure() -> None:
    assert (set(SEARCHES), set(OPTIMISED), set(SWEEPS)) == (set(ROWS), set(HANDCRAFTED), set(FIGURES))


@pytest.mark.parametrize("name", SEARCHES)
def test_row(name: str) -> None:
    config = load_experiment(FOLDER / f"{name}.yaml")
    check_full_scale(config)
    data, rule, ablated, cells, batch = ROWS[name]
    assert config.name == name
    assert (config.data.name, config.discretise.rule, config.discretise.threshold) == (data, rule, 0.85)
    assert config.discretise.edges_per_node == (2 if rule == "sparse" else None)
    assert (config.ablation.loss != "none") == ablated
    assert config.ablation.weight == 0.5
    recipe = ("imagenet-darts", 250) if data == "imagenet" else ("cifar", 600)
    assert (config.retrain.recipe, config.retrain.epochs) == recipe
    assert config.retrain.num_cells == cells
    assert len(algorithm_1(8, cells)) == cells
    assert config.search.batch_size == batch
    # The published loop's 8 and 1e-3, in the units of one clean gradient per cell.
    assert config.alpha.grad_mode == "clean"
    assert config.search.w_zero_one == 8 / 8
    assert config.alpha.weight_decay == pytest.approx(1e-3 / 9, rel=0.02)
    weights, steps, memory = estimate(config)
    print(f"{name}: {weights:,} weights, {steps} steps per epoch, at least {memory / 2**20:.1f} MiB")
    assert weights == WEIGHTS[data]
    assert steps == round(0.45 * NUM_TRAIN[data]) // batch
    assert memory == 4 * (3 * WEIGHTS[data] + 4 * 8 * 14 * 7)


@pytest.mark.parametrize("name", OPTIMISED)
def test_row_of_dartopti(name: str) -> None:
    config = load_experiment(FOLDER / f"{name}.yaml")
    search, split = config.search, config.data.split
    assert config.name == name and search.start == f"zoo:ResNet{name.removeprefix('do-2-resnet')}"
    assert (search.space, search.sharing, search.channels, config.retrain.channels) == ("S_o", "identical", 32, 64)
    assert (search.warmup_epochs, search.epochs, search.batch_size) == (5, 50, 128)
    assert (config.data.name, config.discretise.rule, config.discretise.edges_per_node) == ("cifar100", "sparse", 2)
    assert split.weights + split.alphas + split.held_out == pytest.approx(1)
    weights, steps, memory = estimate(config)
    print(f"{name}: {weights:,} weights, {steps} steps per epoch, at least {memory / 2**20:.1f} MiB")
    groups = HANDCRAFTED[name][1]
    assert search.w_zero_one == pytest.approx(8 / groups, rel=2e-3)
    assert config.alpha.weight_decay == pytest.approx(1e-3 / (groups + 1))
    assert weights == HANDCRAFTED[name][0]
    assert memory == 4 * (3 * weights + 4 * groups * num_edges(search.steps) * 12)


@pytest.mark.parametrize("name", SWEEPS)
def test_figure(name: str) -> None:
    sweep = load_sweep(FOLDER / f"{name}.yaml")
    check_full_scale(sweep)
    paths, count = FIGURES[name]
    assert sweep.name == name
    assert set(sweep.space) == paths
    # Every point of the figure once, and no trial stopped before its end.
    assert sweep.tune.num_samples == len(sweep.tune.points_to_evaluate) == count
    assert sweep.tune.scheduler == "fifo"
    configs = trials(sweep)
    assert len({config.model_dump_json() for config in configs}) == count
    for config in configs:
        weights, steps, memory = estimate(config)
        print(
            f"{name} {config.method} seed {config.seed}: {weights:,} weights, {steps} steps per epoch, "
            f"at least {memory / 2**20:.1f} MiB"
        )
        assert weights == WEIGHTS[config.data.name]
        assert steps == 22_500 // config.search.batch_size


def test_figures_keep_the_other_loss_as_the_paper_does() -> None:
    by_name = {name: trials(load_sweep(FOLDER / f"{name}.yaml")) for name in SWEEPS}
    assert {config.search.w_zero_one for config in by_name["figure-2"]} == {0.0}
    assert [config.ablation.weight for config in by_name["figure-2"]] == [0.25 * i for i in range(9)]
    assert {config.ablation.weight for config in by_name["figure-3"]} == {0.5}
    assert [8 * config.search.w_zero_one for config in by_name["figure-3"]] == [0, 1, 3, 5, 7, 8, 10]
    assert {(config.method, config.search.batch_size) for config in by_name["figure-4"]} == {
        ("ddarts", 128),
        ("ddarts-published", 128),
        ("fairdarts", 128),
        ("darts", 64),
    }
