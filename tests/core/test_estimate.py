"""Steps, sizes and time of an experiment before it runs."""

from __future__ import annotations

import functools
import json
import math
from itertools import count

import pytest
import torch

from ddarts_cli.main import main, run
from ddarts_core.data.sets import data_info, load_train
from ddarts_core.data.splits import split
from ddarts_core.estimates.estimate import Estimate, estimate, heaviest_genotype, time_steps
from ddarts_core.estimates.memory import PROCESS_BYTES, RESIDENT_FACTOR
from ddarts_core.genotypes.spaces import S, num_edges
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.confusion import Evaluation
from ddarts_core.search.discretise import discretise
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.training.experiment import dealt
from ddarts_core.training.retrain import Retrain, build_network

CONFIG: ExperimentConfig = resolve(
    {
        "data": {"num_train": 200},
        "search": {"num_cells": 3, "channels": 2, "steps": 2, "batch_size": 20, "epochs": 2, "warmup_epochs": 1},
        "retrain": {"epochs": 3, "batch_size": 32, "channels": 4},
    }
)
CPU, INFO = torch.device("cpu"), data_info(CONFIG.data)


@functools.cache
def of_config(device: str = "cpu", trial: bool = False) -> Estimate:
    """What several tests look at."""
    return estimate(CONFIG, torch.device(device), trial=trial)


def test_counts() -> None:
    found = of_config()
    _, train = load_train(CONFIG.data)
    splits = split(train, CONFIG.data, CONFIG.seed)
    assert found.images == (len(splits.weights), len(splits.alphas), len(splits.held_out))
    assert found.steps == 3 * (len(splits.weights) // 20)
    assert found.retrain_steps == 3 * (200 // 32)  # `ddarts retrain` uses the held-out images too
    in_trial = of_config(trial=True)
    assert in_trial.retrain_steps == 3 * ((len(splits.weights) + len(splits.alphas)) // 32)
    assert found.parameters == sum(weight.numel() for weight in build_search(CONFIG).net.parameters())
    assert found.macs > found.parameters  # every weight of a convolution works at many places
    assert found.peak >= found.memory.peak


def test_the_heaviest_genotype_fills_every_node() -> None:
    genotype = heaviest_genotype(CONFIG, INFO)
    assert len(genotype.cells) == 3
    assert {edge.op for cell in genotype.cells for edge in cell.edges} == {"sep_conv_5x5"}
    assert [len(cell.edges) for cell in genotype.cells] == [5, 5, 5]  # two and three sources


@pytest.mark.parametrize(
    ("overrides", "edges", "ops"),
    [
        (("discretise.edges_per_node=2",), 4, {"sep_conv_5x5"}),
        (("discretise.rule=edge",), 10, {"sep_conv_5x5", "sep_conv_3x3"}),
        (("discretise.rule=complete", "discretise.edges_per_node=1"), 14, set(S)),
        (("search.space=S_o",), 5, {"bottleneck_1x3x1"}),
        (("search.space=S_none", "discretise.rule=darts"), 4, {"sep_conv_5x5"}),
    ],
)
def test_no_genotype_of_the_rule_is_heavier(overrides: tuple[str, ...], edges: int, ops: set[str]) -> None:
    config = resolve(CONFIG.model_dump(mode="json"), overrides)
    for cell in heaviest_genotype(config, INFO).cells:
        assert len(cell.edges) == edges
        assert {edge.op for edge in cell.edges} == ops


def test_a_network_that_the_default_rule_lets_pass_is_not_heavier_than_the_estimate() -> None:
    """All edges decided for a separable convolution: what `discretise` then returns."""
    best = [0.99 if name == "sep_conv_5x5" else 0.1 for name in S]
    gates = [[best] * num_edges(2)] * 3
    found = discretise(gates, CONFIG.discretise, steps=2, reductions=CONFIG.search.reduction_positions).genotype
    network, heaviest = (build_network(CONFIG.retrain, g, INFO) for g in (found, heaviest_genotype(CONFIG, INFO)))
    counts = [sum(weight.numel() for weight in net.parameters()) for net in (network, heaviest)]
    assert counts[0] == counts[1]


def test_images_that_stay_on_a_gpu_are_counted() -> None:
    on_cpu, on_gpu = of_config(), of_config("cuda")
    assert (on_cpu.data_memory, on_gpu.data_memory) == (0, 200 * (8 * 8 + 8))
    assert on_gpu.peak == max(on_gpu.memory.peak, on_gpu.retrain_memory) + on_gpu.data_memory


def test_time_is_that_of_a_search_by_a_clock_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks once at each look: a search then takes what its laps are, and so says the estimate."""
    ticks = count()
    monkeypatch.setattr("ddarts_core.tensors.devices.time.perf_counter", lambda: float(next(ticks)))
    expected = time_steps(CONFIG, CPU).search(CONFIG, of_config())
    took = sum(sum(record.seconds.values()) for record in build_search(CONFIG).records())
    assert expected == pytest.approx(took, rel=0.25)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.batch_size", "search.batch_size 60000 exceeds the 80 images of split weights: use at most 80"),
        ("retrain.batch_size", "retrain.batch_size 60000 exceeds the 200 images of split train: use at most 200"),
    ],
)
def test_a_batch_is_compared_with_the_whole_split(setting: str, words: str) -> None:
    config: ExperimentConfig = resolve(CONFIG.model_dump(mode="json"), (f"{setting}=60000",))
    for function in (estimate, time_steps):
        with pytest.raises(UserError, match=words):
            function(config, CPU)


def test_command(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["estimate", "experiments/quickstart_sweep.yaml", "--set", "data.num_train=300"]
    sizes = ["--set", "search.channels=2", "--set", "search.batch_size=24", "--set", "retrain.channels=4"]
    sizes += ["--set", "search.num_cells=3", "--set", "search.steps=1"]
    with pytest.raises(SystemExit) as status:
        main([*arguments, *sizes, "--json"])
    assert status.value.code == 0
    document = json.loads(capfd.readouterr().out)
    assert document["seconds"].keys() == {"search", "training", "sweep"}
    assert document["memory"]["search"] > document["memory"]["parameters"]
    for part, resident in document["memory"]["resident"].items():
        assert resident == PROCESS_BYTES + int(RESIDENT_FACTOR * document["memory"][part])


def test_a_truth_says_how_many_trainings_it_has_and_nothing_of_a_search(capfd: pytest.CaptureFixture[str]) -> None:
    small = (
        "data.num_train=300",
        "retrain.channels=2",
        "retrain.batch_size=24",
        "search.batch_size=24",
        "space.seed.choices=[3, 5, 8]",
    )
    arguments = ["estimate", "experiments/truth_digits.yaml", "--truth", *(f"--set={text}" for text in small)]
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["trainings"], document["genotypes"]) == (1458, 486)
    rounds = math.ceil(1458 / document["resources"]["parallel"])
    assert document["seconds"]["sweep"] == pytest.approx(rounds * document["seconds"]["training"])
    assert run([*arguments, "--no-time"]) == 0
    said = capfd.readouterr().out
    assert "1,458 trainings; the space has 486 distinct genotypes\n" in said
    assert "search" not in said and "search" not in json.dumps(document) and "supernet" not in said


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_training_steps_are_those_that_retrain_makes(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on the loop that the command builds."""
    config: ExperimentConfig = resolve(CONFIG.model_dump(mode="json"), (f"retrain.validation_fraction={fraction}",))
    info, images = load_train(config.data)
    train, validation = dealt(config.retrain, info, images, config.seed)
    run = Retrain(config.retrain, heaviest_genotype(config, info), info, train, validation, config.seed)
    steps: list[None] = []
    zero = torch.zeros((), dtype=torch.int64)
    monkeypatch.setattr(run, "_step", lambda images, labels: (steps.append(None), (torch.zeros(2), zero))[1])
    monkeypatch.setattr(run, "evaluate", lambda images: Evaluation(1.0, ((1,),), 0))
    list(run.records())
    assert estimate(config, CPU).retrain_steps == len(steps)
    assert estimate(config, CPU, trial=True).retrain_steps == 3 * (160 // 32)


def test_a_batch_that_a_trial_cannot_fill_is_refused() -> None:
    """In a trial the held-out images do not train: 160 of the 200 images do."""
    config: ExperimentConfig = resolve(CONFIG.model_dump(mode="json"), ("retrain.batch_size=180",))
    assert estimate(config, CPU).retrain_steps == 3
    with pytest.raises(UserError, match=r"retrain\.batch_size 180 exceeds the 160 images of split train"):
        estimate(config, CPU, trial=True)
