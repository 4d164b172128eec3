"""What a truth says of searches, each number against a second derivation, on an invented truth."""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ddarts_analysis import report_truth
from ddarts_analysis.prediction import (
    cell_correlations,
    free_predictors,
    gate_correlations,
    one_shot_correlations,
    rank_correlation,
    without_cell,
)
from ddarts_analysis.regret import (
    judge,
    markdown,
    methods_figure,
    plain,
    predictors_figure,
    regret_figure,
    simulation_figure,
)
from ddarts_analysis.simulation import Table, local_search, random_search, regret_curve, regularised_evolution, simulate
from ddarts_analysis.study import Study, Trial, read_study
from ddarts_analysis.truth import Truth, chance, expected_regret, export, images_of, read_truth, regrets

from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import enumeration_of, resolve

SETTINGS: dict[str, Any] = {
    "seed": 1,
    "data": {"split": {"seed": 1}},
    "search": {"space": "S_3", "num_cells": 3, "steps": 1},
}
CONFIG = resolve(SETTINGS)
EVERY = enumeration_of(CONFIG)


def accuracy(number: int, seed: int = 0) -> float:
    """More convolutions are better, most of all in the last cell; a seed changes a little."""
    cells = EVERY[number].cells
    found = sum(
        (1 + position) * (edge.op == "sep_conv_3x3") for position, cell in enumerate(cells) for edge in cell.edges
    )
    return 0.8 + 0.01 * found + 0.001 * random.Random(f"{number} {seed}").uniform(-1, 1)


def truth(seeds: int = 2, numbers: Any = range(486)) -> Truth:
    rows = [
        {
            "number": number,
            "seed": seed,
            "accuracy": accuracy(number, seed),
            "seconds": 2.0,
            "parameters": 1000 + number,
            "macs": 10,
        }
        for number in numbers
        for seed in range(seeds)
    ]
    study = Study(Path("invented"), {"name": "invented"}, ())
    return Truth(study, EVERY, pd.DataFrame(rows), images_of(CONFIG.model_dump(mode="json")))


def search(number: int, method: str = "ddarts", seed: int = 1, seconds: float = 7.0, **data: Any) -> Study:
    config = resolve({**SETTINGS, "method": method, "seed": seed, "data": {**SETTINGS["data"], **data}})
    alphas = tuple(
        tuple(
            tuple(0.5 if edge.op == op else -0.5 for op in ("max_pool_3x3", "skip_connect", "sep_conv_3x3"))
            for edge in cell.edges
        )
        for cell in EVERY[number].cells
    )
    record = EpochRecord(0, "search", {"held_out/accuracy": 0.5}, alphas=alphas, seconds={"weights": seconds})
    info = {
        "trial_id": "00000",
        "number": 0,
        "state": "COMPLETED",
        "seed": seed,
        "config": config.model_dump(mode="json"),
        "seconds": seconds,
    }
    return Study(Path("searched"), {"name": f"{method}-{seed}"}, (Trial(info, (record,), EVERY[number]),))


def test_noise_and_reliability_are_those_of_an_analysis_of_variance() -> None:
    known = truth(3)
    by_number = known.trainings.pivot(index="number", columns="seed", values="accuracy").to_numpy()
    within = by_number.var(axis=1, ddof=1).mean()
    assert math.isclose(known.noise, math.sqrt(within), rel_tol=1e-9)
    assert math.isclose(known.reliability, 1 - within / 3 / by_number.mean(axis=1).var(ddof=1), rel_tol=1e-9)
    assert 0.9 < known.reliability < 1
    assert math.isnan(truth(1).noise)


def test_ranks_and_worth() -> None:
    known = truth()
    order = sorted(range(len(EVERY)), key=lambda number: -statistics.fmean(accuracy(number, seed) for seed in (0, 1)))
    assert known.architectures["rank"][order[0]] == 1
    assert known.architectures["rank"][order[-1]] == len(EVERY)
    everything = [(genotype, number) for number in range(len(EVERY)) for genotype in EVERY.twins_of(number)]
    means = known.architectures["accuracy"]
    with_it = [means[number] for genotype, number in everything if genotype.cells[2].edges[1].op == "sep_conv_3x3"]
    assert len(with_it) == 729 / 3
    assert math.isclose(known.worth[2, 1, 2], statistics.fmean(with_it), rel_tol=1e-12)
    assert (known.worth.argmax(axis=2) == 2).all()


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_regret_of_random_search_is_the_mean_over_all_draws(draws: int) -> None:
    known = truth(1, numbers=range(0, 480, 80))
    values = known.architectures["accuracy"].tolist()
    ways = [max(values) - max(drawn) for drawn in itertools.product(values, repeat=draws)]
    assert math.isclose(expected_regret(known, draws), statistics.fmean(ways), rel_tol=1e-9)
    as_good = [max(drawn) >= sorted(values)[-2] for drawn in itertools.product(values, repeat=draws)]
    assert math.isclose(chance(2 / len(values), draws), statistics.fmean(as_good), rel_tol=1e-9)


def test_regret_of_searches() -> None:
    known = truth()
    found = regrets(known, [search(485), search(0, "fairdarts", seconds=0.1)])
    best = known.architectures["accuracy"].max()
    assert found["regret"].tolist() == [best - known.architectures["accuracy"][number] for number in (485, 0)]
    assert found["rank"].tolist() == known.architectures["rank"][[485, 0]].tolist()
    assert found["draws"].tolist() == [4, 1], "7 s are the time of four trainings, rounded; a search has at least one"
    share = float((known.architectures["accuracy"] >= known.architectures["accuracy"][485]).mean())
    assert found["chance"][0] == 1 - (1 - share) ** 4


def test_a_genotype_outside_of_the_truth_is_told_and_not_judged() -> None:
    study = search(0)
    cell = study.trials[0].genotype.cells[0]  # type: ignore[union-attr]
    other = Study(
        study.folder, study.info, (Trial(study.trials[0].info, study.trials[0].records, Genotype((cell,) * 2, (0, 1))),)
    )
    found = judge(truth(), [other, search(3)], runs=2)
    assert found["methods"][0]["outside"] == 1
    assert found["searches"][0]["regret"] != found["searches"][0]["regret"]
    assert plain(found)["searches"][0]["number"] is None


def test_images_that_trained_a_search_do_not_judge_it() -> None:
    with pytest.raises(
        UserError, match=r"other images or another split than the truth 'invented': .* data.split.seed 1"
    ):
        regrets(truth(), [search(0, split={"seed": 2})])
    assert len(regrets(truth(), [search(0, seed=1, split={"seed": None})])) == 1, "its seed deals the same split"
    with pytest.raises(UserError, match="other images"):
        regrets(truth(), [search(0, num_train=100)])


def test_gates_are_compared_with_the_worth_of_operations() -> None:
    known = truth()
    best = int(known.architectures["accuracy"].idxmax())
    found = gate_correlations(known, [search(best), search(0)]).set_index("study")
    worth, gates = known.worth.ravel(), np.zeros((3, 2, 3))
    for position, cell in enumerate(EVERY[best].cells):
        for edge in cell.edges:
            gates[position, edge.source, ("max_pool_3x3", "skip_connect", "sep_conv_3x3").index(edge.op)] = 1
    expected = pd.Series(gates.ravel()).corr(pd.Series(worth), method="spearman")
    assert math.isclose(found["rho"].iloc[0], expected, rel_tol=1e-6)
    assert found["rho"].iloc[0] > 0.4 > found["rho"].iloc[1]


def test_one_shot_accuracies_are_compared_with_the_truth() -> None:
    known = truth()
    study, other = search(3), search(4)
    numbers = range(0, 486, 9)
    study.trials[0].info["one_shot"] = {str(n): -float(known.architectures["accuracy"][n]) for n in numbers}  # type: ignore[index]
    found = one_shot_correlations(known, [study, other])
    assert found["rho"].tolist() == [-1.0] and found["count"].tolist() == [len(numbers)], "other has measured none"


def test_contributions_are_compared_with_what_a_cut_costs() -> None:
    """A cell that is cut has skip connections alone; here its convolutions are all that it is worth."""
    known, studies = truth(), []
    for seed, number in enumerate((485, 470, 300, 231)):
        study = search(number, seed=1)
        trial = study.trials[0]
        worth = [
            (1 + place) * sum(edge.op == "sep_conv_3x3" for edge in cell.edges)
            for place, cell in enumerate(EVERY[number].cells)
        ]
        record = replace(trial.records[0], contributions=tuple(-0.1 * one for one in worth), shapley=(1.0, 2.0, 3.0))
        studies.append(Study(study.folder, {"name": str(seed)}, (replace(trial, records=(record,)),)))
    found = cell_correlations(known, studies)
    assert set(found) == {"contribution, identity", "shapley, identity"}
    assert found["contribution, identity"].count == 12
    assert found["contribution, identity"].rho > 0.95
    assert found["shapley, identity"].rho < 0.9
    assert without_cell(EVERY[485], 1).cells[1].edges[0].op == "skip_connect"
    assert without_cell(EVERY[485], 1).cells[2] == EVERY[485].cells[2]


def test_the_interval_of_a_rank_correlation_holds_the_true_one_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    rho = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's of a normal pair with Pearson's 0.6 (Kruskal 1958)
    held = 0
    for _ in range(400):
        x = draw.standard_normal(60)
        found = rank_correlation(x, 0.6 * x + 0.8 * draw.standard_normal(60))
        held += found.low <= rho <= found.high
    assert 0.92 <= held / 400 <= 0.98
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]).rho), "too few"
    assert math.isnan(rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]).rho), "constant"
    assert free_predictors(truth())["parameters"].count == 486


def test_simulated_random_search_does_as_its_formula_says() -> None:
    known = truth(1)
    curve = simulate(known, looks=8, runs=2000)["random"]
    for draws in (1, 3, 8):
        estimate = curve[draws - 1]
        half = estimate.high - estimate.mean
        assert abs(estimate.mean - expected_regret(known, draws)) < 1.5 * half


def test_methods_are_compared_with_random_search_of_the_cost_of_each_search() -> None:
    """A truth of 0.8 to 0.92: what a dear search finds has to be better than what a cheap one finds."""
    known = truth()
    searches = [search(100, seconds=2.0), search(300, seed=2, seconds=60.0)]
    (one,) = judge(known, searches, runs=2)["methods"]
    ordered = sorted(known.architectures["accuracy"])
    best, found = ordered[-1], [known.architectures["accuracy"][number] for number in (100, 300)]
    draws = random.Random(0)
    beside = [statistics.fmean(best - max(draws.choices(ordered, k=k)) for _ in range(4000)) for k in (1, 30)]
    assert one["difference"]["mean"] == pytest.approx(
        best - statistics.fmean(found) - statistics.fmean(beside), abs=1e-3
    )
    assert one["random_regret"] == pytest.approx(statistics.fmean(beside), abs=1e-3)
    assert one["difference"]["count"] == 2


def test_informed_searches_beat_chance_on_a_smooth_truth_and_look_at_neighbours() -> None:
    table = Table(truth())
    looks = 80
    means = {
        name.__name__: statistics.fmean(
            regret_curve(name(table, random.Random(run)), table, looks)[-1] for run in range(40)
        )
        for name in (random_search, regularised_evolution, local_search)
    }
    assert means["regularised_evolution"] < means["random_search"]
    assert means["local_search"] < means["random_search"]
    seen = [number for number, _ in itertools.islice(local_search(table, random.Random(1)), 5)]
    assert seen[1] in table.near(seen[0])


def test_words_figures_and_table_of_one_truth() -> None:
    known = truth()
    found = judge(known, [search(485), search(480, seed=2, split={"seed": 1})], runs=3)
    text = markdown(found)
    assert "486 distinct genotypes trained, 972 trainings of 2.0 s" in text
    assert "| ddarts | 2 |" in text
    assert "| parameters | " in text
    assert "nan" not in text
    assert regret_figure(known, found).axes[0].get_legend_handles_labels()[1] == ["noise of seeds", "ddarts (n = 2)"]
    assert len(simulation_figure(found).axes[0].lines) == 3
    of_methods = methods_figure(known, found).axes[0]
    assert [label.get_text() for label in of_methods.get_yticklabels()] == ["ddarts"]
    assert of_methods.lines[0].get_xdata() == pytest.approx(
        [100 * found["methods"][0]["regret"][end] for end in ("low", "high")]
    )
    names = [label.get_text() for label in predictors_figure(found).axes[0].get_yticklabels()]
    assert names == ["gates, ddarts", "parameters"], "multiply-adds are all alike here, and correlate with nothing"
    table = export(known)
    assert len(table) == 972
    assert Genotype.from_text(table["genotype"][5]).hash == table["genotype_hash"][5]
    assert plain(found)["truth"]["noise"] == found["truth"]["noise"]


def test_a_report_of_a_truth_and_searches_judges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches on other images are named, with the reason, and the truth alone is shown."""
    known = truth()
    monkeypatch.setattr(report_truth, "is_truth", lambda study: study.name == "invented")
    monkeypatch.setattr(report_truth, "truth_of", lambda study: known)
    monkeypatch.setattr(report_truth, "_read_again", lambda study: study)
    text = "".join(report_truth.judged([search(485), known.study], count()))
    assert "Judged by invented" in text and "972 trainings" in text
    assert re.search(r"<tr><td>ddarts</td><td[^>]*>1</td>", text)
    assert text.count('class="chart"') == 2
    other = "".join(report_truth.judged([known.study, search(0, split={"seed": 2})], count()))
    assert "has other images or another split" in other and "<td>ddarts</td>" not in other
    assert not "".join(report_truth.judged([search(485)], count()))


def test_a_study_that_is_no_truth_is_refused(study: Path) -> None:
    assert read_study(study).completed
    with pytest.raises(UserError, match="is no truth: ddarts truth makes one"):
        read_truth(study)
