from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from ddarts_analysis import charts
from ddarts_analysis.canvas import axes, legend
from ddarts_analysis.collect import Frames, load
from ddarts_analysis.compare import distance
from ddarts_analysis.figures import (
    accuracy_curves,
    contributions_map,
    decided_against_w_zero_one,
    loss_against_w_ablation,
    pareto,
    save,
)
from ddarts_analysis.gallery import FIGURES, Subject, figure_of
from ddarts_analysis.history import history, history_chart
from ddarts_analysis.parameter_figures import Scale, log_ticks
from ddarts_analysis.regret import simulation_figure
from ddarts_analysis.report_truth import simulation_chart
from ddarts_analysis.statistics import mean_interval
from ddarts_analysis.tables import by_setting
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.container import BarContainer, ErrorbarContainer

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import write_jsonl
from tests.analysis.conftest import CELLS, EPOCHS, MakeStudy, genotype_of, record_of


@pytest.fixture
def frames(study: Path) -> Frames:
    return load(study)


def test_curves_are_the_recorded_values(frames: Frames):
    lines = accuracy_curves(frames.epochs, frames.trials).axes[0].lines
    assert len(lines) == 9
    assert lines[2].get_ydata().tolist() == [record_of(2, e).metrics["held_out/accuracy"] for e in range(EPOCHS)]


def test_method_curves_have_mean_interval_and_seed_count(frames: Frames):
    ax = accuracy_curves(frames.epochs, frames.trials, by="method").axes[0]
    assert [line.get_label() for line in ax.lines] == ["ddarts (n = 3)", "fairdarts (n = 3)"]  # completed ones
    values = [0.6 + 0.01 * n for n in (0, 2, 4)]
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(sum(values) / 3)
    assert len(ax.collections) == 2


def test_heat_map_holds_the_contributions(frames: Frames):
    figure = contributions_map(frames.contributions, "00003")
    image = figure.axes[0].images[0].get_array()
    assert image.shape == (CELLS, EPOCHS)
    assert image[2, 0] == pytest.approx(0.05)


def test_fig_2_and_3_show_every_completed_trial_at_its_weight(frames: Frames):
    ax = loss_against_w_ablation(frames.epochs, frames.trials).axes[0]
    assert len(ax.collections[0].get_offsets()) == 6
    assert sorted(set(ax.collections[0].get_offsets()[:, 0])) == [0.0, 0.25, 0.5, 0.75]
    ax = decided_against_w_zero_one(frames.epochs, frames.trials).axes[0]
    assert len(ax.collections[0].get_offsets()) == 6
    assert sorted(set(ax.collections[0].get_offsets()[:, 0])) == [0.0, 1.0, 2.0]
    assert ax.collections[0].get_offsets()[:, 1].max() == pytest.approx(0.1 * (EPOCHS - 1))


def test_fig_2_has_a_line_for_each_form_of_the_loss_from_the_trials_without_it(frames: Frames):
    trials = frames.trials.copy()
    forms = iter(["centered", "relative"] * len(trials))
    trials["config_json"] = [
        json.dumps(json.loads(config) | {"ablation": {"loss": next(forms) if weight else "monitor"}})
        for config, weight in zip(trials["config_json"], trials["w_ablation"], strict=True)
    ]
    ax = loss_against_w_ablation(frames.epochs, trials).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["centered", "relative"]
    each = [dots.get_offsets() for dots in ax.collections if isinstance(dots, PathCollection)]
    without = ((trials["w_ablation"] == 0) & (trials["state"] == "COMPLETED")).sum()
    assert [(dots[:, 0] == 0).sum() for dots in each] == [without, without]
    assert sum(map(len, each)) == 6 + without


def test_fig_2_is_of_the_lowest_loss_of_the_search(make_study: MakeStudy):
    study = make_study("COMPLETED", "COMPLETED")
    losses = [("warmup", 0, 0.1), ("search", 1, 0.9), ("search", 2, 0.4), ("search", 3, 0.7)]
    records = [replace(record_of(0, e), phase=phase, metrics={"alpha/loss": loss}) for phase, e, loss in losses]
    write_jsonl(study / "trials/00000/records.jsonl", records)
    found = load(study)
    ax = loss_against_w_ablation(found.epochs, found.trials).axes[0]
    other = min(record_of(1, epoch).metrics["alpha/loss"] for epoch in range(EPOCHS))
    assert ax.get_ylabel() == "lowest alpha-split loss (nats)"
    assert sorted(ax.collections[0].get_offsets()[:, 1]) == pytest.approx(sorted([0.4, other]))


def test_pareto_shows_completed_trials_only(frames: Frames):
    ax = pareto(frames.trials).axes[0]
    assert len(ax.collections[0].get_offsets()) == 6
    assert len(ax.lines[0].get_xdata()) == 6  # more accuracy costs more parameters in the toy study
    assert ax.lines[0].get_label() == "front"
    (line,) = pareto(frames.trials, reference=2.0e6).axes[0].lines
    assert line.get_label().startswith("front, hypervolume 0.") and "up to 2,000,000 " in line.get_label()
    figure = pareto(frames.trials, reference=1030)
    figure.canvas.draw()
    inside, (ax,) = figure.axes[0].get_legend().get_window_extent(), figure.axes
    assert "cost more or as much" in ax.lines[0].get_label()
    assert ax.bbox.x0 <= inside.x0 and inside.x1 <= ax.bbox.x1 and ax.bbox.width > figure.bbox.width / 2


def test_the_best_so_far_is_the_best_of_all_earlier_trials():
    """Against the definition: the best of the contenders up to each trial, taken anew for each."""
    found = [0.5, 0.9, 0.7, None, 0.4, 0.95, 0.6]
    rows = [
        {"state": "COMPLETED", "number": n, "trial_id": f"{n:05d}", "objective": v, "beyond": "macs" if n == 1 else ""}
        for n, v in enumerate(found)
    ]
    for best, lowest in ((max, False), (min, True)):
        steps = history([*reversed(rows), {"state": "PRUNED", "number": 9, "objective": 2.0}], lowest)
        assert [step.number for step in steps] == [0, 1, 2, 4, 5, 6]
        fair = {n: v for n, v in enumerate(found) if v is not None and n != 1}
        assert [step.best for step in steps] == [best(v for n, v in fair.items() if n <= step.number) for step in steps]
    assert [step.best for step in history(rows[1:2])] == [0.9]  # all are beyond: they may be best


def test_the_history_of_a_study_shows_its_trials_and_the_direction(frames: Frames):
    for mode, best in (("max", [0.5 + 0.03 * n for n in range(6)]), ("min", [0.5] * 6)):
        ax = figure_of("history", Subject(frames, objectives=[{"metric": "derived/held_out/loss", "mode": mode}])).axes[
            0
        ]
        assert ax.lines[0].get_ydata().tolist() == pytest.approx(best)
        assert ax.get_ylabel() == "derived/held_out/loss" and len(ax.collections[0].get_offsets()) == 6
    steps = history(frames.trials.to_dict("records"))
    chart = history_chart({"a": steps, "b": steps, "c": []}, "derived/held_out/accuracy")
    assert [trace["name"] for trace in chart["data"] if trace["showlegend"]] == ["a, best so far", "b, best so far"]
    assert chart["layout"]["yaxis"]["maxallowed"] == 1 and chart["layout"]["xaxis"]["dtick"] == 1


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_is_a_reproducible_file(frames: Frames, tmp_path: Path, suffix):
    one = save(figure_of("saturation", Subject(frames)), tmp_path / f"1{suffix}").read_bytes()
    two = save(figure_of("saturation", Subject(frames)), tmp_path / f"2{suffix}").read_bytes()
    assert one == two and len(one) > 1000


def test_one_trial_is_enough(make_study: MakeStudy, tmp_path: Path):
    frames = load(make_study("COMPLETED"))
    needs_two = {
        "distances": "two completed",
        "importance": "ten completed trials",
        "slices": "more than one value",
        "parallel": "more than one value",
        "mistakes": "has no mistakes.json",
        "confusion": "has no confusion.json",  # a file of the trial's folder, which the toy study lacks
    }
    for name in FIGURES:
        if name in needs_two:
            with pytest.raises(UserError, match=needs_two[name]):
                figure_of(name, Subject(frames))
        elif name != "skips":  # the toy records have none
            save(figure_of(name, Subject(frames)), tmp_path / f"{name}.png")
    assert accuracy_curves(frames.epochs, frames.trials, by="method").axes[0].collections[:] == []


@pytest.mark.parametrize("states", [(), ("FAILED",)])
def test_what_is_not_there_is_one_sentence(make_study: MakeStudy, states):
    frames = load(make_study(*states))
    with pytest.raises(UserError, match="no completed trial"):
        figure_of("pareto", Subject(frames))
    if not states:
        for name in ("accuracy", "methods", "saturation", "w_ablation", "w_zero_one"):
            with pytest.raises(UserError, match="there is no epoch yet"):
                figure_of(name, Subject(frames))


def test_unknown_names_list_the_choices(frames: Frames, tmp_path: Path):
    with pytest.raises(UserError, match=r"held_out/speed: choose from .*held_out/accuracy"):
        accuracy_curves(frames.epochs, frames.trials, metric="speed")
    with pytest.raises(UserError, match="no contributions"):
        contributions_map(frames.contributions, "nobody")
    with pytest.raises(UserError, match=r"unknown metric 'speed'.*parameters"):
        pareto(frames.trials, x="speed")
    with pytest.raises(UserError, match="unknown figure 'fig9'"):
        figure_of("fig9", Subject(frames))
    with pytest.raises(UserError, match=r"\.svg, \.png or \.pdf"):
        save(figure_of("pareto", Subject(frames)), tmp_path / "x.bmp")


def test_gates_are_sigma_of_the_recorded_alphas(frames: Frames):
    figure = figure_of("gates", Subject(frames, trial="00003", cell=2))
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in panels[:3]] == ["0 → 2", "1 → 2", "0 → 3"] and len(panels) == 14
    alphas = [record_of(3, e).alphas[2][0][1] for e in range(EPOCHS)]
    assert panels[0].lines[1].get_ydata().tolist() == pytest.approx([1 / (1 + math.exp(-a)) for a in alphas])
    with pytest.raises(UserError, match="no alphas of cell 9: choose one of 0, 1, 2, 3"):
        figure_of("gates", Subject(frames, cell=9))


def test_operations_of_each_cell_are_the_genotypes(frames: Frames):
    ax = figure_of("operations", Subject(frames)).axes[0]  # trial 5, the best
    genotype = genotype_of(5)
    tops = [sum(bar[cell].get_height() for bar in ax.containers) for cell in range(CELLS)]
    assert tops == [len(cell.edges) for cell in genotype.cells]
    skips = sum(edge.op == "skip_connect" for cell in genotype.cells for edge in cell.edges)
    assert ax.get_title() == f"trial 00005: {genotype.num_edges} operations, {skips} skip connections"
    with pytest.raises(UserError, match="trial '00007' has no genotype"):
        figure_of("operations", Subject(frames, trial="00007"))
    with pytest.raises(UserError, match="unknown trial 'nobody': choose one of 00000"):
        figure_of("operations", Subject(frames, trial="nobody"))


def test_distances_are_between_the_best_genotypes(frames: Frames):
    ax = figure_of("distances", Subject(frames)).axes[0]
    table = ax.images[0].get_array()
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{n:05d}" for n in (5, 4, 3, 2, 1, 0)]
    assert table.diagonal().tolist() == [0.0] * 6
    assert table[0, 3] == table[3, 0] == pytest.approx(distance(genotype_of(5), genotype_of(2)))
    assert 0 < table[0, 3] <= 1


def test_parallel_coordinates_pass_through_the_settings(frames: Frames):
    ax = figure_of("parallel", Subject(frames)).axes[0]
    lines = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 3]
    assert [line[1] for line in lines] == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]  # w_zero_one is the number modulo 3
    assert [line[2] for line in lines] == pytest.approx([n / 5 for n in range(6)])


def test_slices_and_importance_show_their_numbers(frames: Frames):
    panels = figure_of("slices", Subject(frames)).axes
    assert [ax.get_xlabel() for ax in panels] == ["ablation.weight", "search.w_zero_one"]
    assert panels[1].collections[0].get_offsets()[:, 1].tolist() == pytest.approx([0.5 + 0.03 * n for n in range(6)])
    shares = {"search.lr": (0.75, 0.5, 0.875), "method": (0.25, 0.0, 0.125)}  # of the second few trees have most
    ax = figure_of("importance", Subject(frames, importances=shares)).axes[0]
    bars, errors = (next(c for c in ax.containers if isinstance(c, kind)) for kind in (BarContainer, ErrorbarContainer))
    assert [bar.get_width() for bar in bars] == [0.25, 0.75]  # largest on top
    assert [segment[:, 0].tolist() for segment in errors.lines[2][0].get_segments()] == [[0.0, 0.25], [0.5, 0.875]]


def test_a_setting_that_was_sampled_logarithmically_has_such_ticks(frames: Frames):
    panels = figure_of("slices", Subject(frames, logs={"ablation.weight"})).axes
    assert [ax.get_xscale() for ax in panels] == ["log", "linear"]
    assert panels[0].get_xticks().tolist() == [0.25, 0.75]
    assert log_ticks(1e-7, 1.0) == [1e-7, 1e-5, 1e-3, 1e-1] and log_ticks(2, 8) == [2, 5] and log_ticks(3, 4) == [3, 4]


def test_no_interval_of_an_accuracy_leaves_its_range(make_study: MakeStudy):
    study = make_study("COMPLETED", "COMPLETED", "COMPLETED")
    for number, found in enumerate((1.0, 1.0, 0.7)):
        metrics = {"held_out/accuracy": found, "saturation/over_0.9": 1 - found, "saturation/under_0.1": 0.0}
        records = [replace(record_of(0, 0), metrics=metrics)]
        write_jsonl(study / f"trials/{number:05d}/records.jsonl", records)
    found = load(study)
    for name in ("methods", "saturation", "w_zero_one"):
        drawn = [one for ax in figure_of(name, Subject(found)).axes for one in ax.collections]
        intervals = [one for one in drawn if isinstance(one, (LineCollection, PolyCollection))]
        paths = [path.vertices[:, 1] for one in intervals for path in one.get_paths()]
        assert min(map(min, paths)) >= 0 and max(map(max, paths)) <= 1, name
    low, high = by_setting(found, "method", "held_out/accuracy").loc[0, ["low", "high"]]
    assert low < 0.85 and high == 1


def test_a_scale_spreads_logarithmically_and_sets_missing_values_apart():
    scale = Scale([1e-4, 1e-2, 1.0, None])
    assert [scale.height(v) for v in (1e-4, 1e-2, 1.0)] == pytest.approx([0, 0.5, 1])
    assert scale.height(None) < 0 and scale.marks[0] == (pytest.approx(0), "0.0001")
    assert Scale(["b", "a"]).marks == [(0.0, "a"), (1.0, "b")]


@pytest.mark.parametrize(("number", "outside"), [(8, False), (9, True)])
def test_a_legend_of_many_names_hides_no_point(number: int, outside: bool) -> None:
    figure, ax = axes("x", "y")
    for index in range(number):
        ax.plot([0, 1], [index, index], label=f"method-{index}")
    legend(ax)
    figure.canvas.draw()
    assert (ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1) == outside


def methods_of(frames: Frames, number: int) -> Frames:
    """One trial of each of so many methods."""
    names = [(f"{n:05d}", f"another-method-{n:02d}") for n in range(number)]
    trials, epochs = (table[table["trial_id"] == "00000"] for table in (frames.trials, frames.epochs))
    params = [json.dumps({"method": method}) for _, method in names]
    rows = [
        trials.assign(trial_id=trial, method=method, params_json=text)
        for (trial, method), text in zip(names, params, strict=True)
    ]
    return replace(
        frames, trials=pd.concat(rows), epochs=pd.concat([epochs.assign(trial_id=trial) for trial, _ in names])
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["methods", "saturation"])
def test_thirty_methods_are_told_apart_beside_axes_that_have_room(frames: Frames, name: str) -> None:
    figure = figure_of(name, Subject(methods_of(frames, 30)))
    figure.canvas.draw()
    for ax in figure.axes:
        assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 30
        assert ax.get_window_extent().width > figure.bbox.width / 4
    named = figure.axes[-1].get_legend()
    assert len(named.texts) == 30
    inside = named.get_window_extent()
    assert figure.bbox.y0 <= inside.y0 and inside.y1 <= figure.bbox.y1


@pytest.mark.parametrize("number", [3, 40])
def test_names_below_a_slice_are_apart(frames: Frames, number: int) -> None:
    figure = figure_of("slices", Subject(methods_of(frames, number)))
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == number
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
    assert figure.axes[0].get_window_extent().height > 1.6 * figure.dpi


def test_methods_and_simulated_searches_are_told_apart_on_a_page(frames: Frames) -> None:
    many = methods_of(frames, 10)
    chart = charts.methods(many.epochs, many.trials)
    assert chart is not None
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in chart["data"]}) == 10
    curve = [asdict(mean_interval([0.1, 0.2]))]
    simulated = {"simulated": {f"search {n}": curve for n in range(10)}}
    lines = simulation_figure(simulated).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10
    traces = simulation_chart(simulated)["data"]
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in traces}) == 10
