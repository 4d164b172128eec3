from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.collect import Frames, load
from analysis.figures import (
    FIGURES,
    accuracy_curves,
    contributions_map,
    decided_against_w_zero_one,
    figure_of,
    loss_against_w_ablation,
    pareto,
    save,
)
from analysis.statistics import bootstrap_difference, mean_interval
from ddarts_core.errors import UserError
from tests.analysis.conftest import CELLS, EPOCHS, MakeStudy, record_of


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


def test_fig_2_and_3_show_every_trial_at_its_weight(frames: Frames):
    ax = loss_against_w_ablation(frames.epochs, frames.trials).axes[0]
    assert sorted(set(ax.collections[0].get_offsets()[:, 0])) == [0.0, 0.25, 0.5, 0.75]
    ax = decided_against_w_zero_one(frames.epochs, frames.trials).axes[0]
    assert sorted(set(ax.collections[0].get_offsets()[:, 0])) == [0.0, 1.0, 2.0]
    assert ax.collections[0].get_offsets()[:, 1].max() == pytest.approx(0.1 * (EPOCHS - 1))


def test_pareto_shows_completed_trials_only(frames: Frames):
    ax = pareto(frames.trials).axes[0]
    assert len(ax.collections[0].get_offsets()) == 6
    assert len(ax.lines[0].get_xdata()) == 6  # more accuracy costs more parameters in the toy study


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_is_a_reproducible_file(frames: Frames, tmp_path: Path, suffix):
    one = save(figure_of("saturation", frames.trials, frames.epochs), tmp_path / f"1{suffix}").read_bytes()
    two = save(figure_of("saturation", frames.trials, frames.epochs), tmp_path / f"2{suffix}").read_bytes()
    assert one == two and len(one) > 1000


def test_one_trial_is_enough(make_study: MakeStudy, tmp_path: Path):
    frames = load(make_study("COMPLETED"))
    for name in FIGURES:
        save(figure_of(name, frames.trials, frames.epochs), tmp_path / f"{name}.png")
    assert accuracy_curves(frames.epochs, frames.trials, by="method").axes[0].collections[:] == []


@pytest.mark.parametrize("states", [(), ("FAILED",)])
def test_what_is_not_there_is_one_sentence(make_study: MakeStudy, states):
    frames = load(make_study(*states))
    with pytest.raises(UserError, match="no completed trial"):
        figure_of("pareto", frames.trials, frames.epochs)
    if not states:
        for name in ("accuracy", "methods", "saturation", "w_ablation", "w_zero_one"):
            with pytest.raises(UserError, match="there is no epoch"):
                figure_of(name, frames.trials, frames.epochs)


def test_unknown_names_list_the_choices(frames: Frames, tmp_path: Path):
    with pytest.raises(UserError, match=r"held_out/speed: choose from .*held_out/accuracy"):
        accuracy_curves(frames.epochs, frames.trials, metric="speed")
    with pytest.raises(UserError, match="no contributions"):
        contributions_map(frames.contributions, "nobody")
    with pytest.raises(UserError, match=r"unknown metric 'speed'.*parameters"):
        pareto(frames.trials, x="speed")
    with pytest.raises(UserError, match="unknown figure 'fig9'"):
        figure_of("fig9", frames.trials, frames.epochs)
    with pytest.raises(UserError, match=r"\.svg, \.png or \.pdf"):
        save(figure_of("pareto", frames.trials, frames.epochs), tmp_path / "x.bmp")


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda v: max(v) - min(v) > 1e-3))
def test_interval_is_students(values):
    got = mean_interval([*values, math.nan])
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    assert (got.low, got.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert got.count == len(values)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([2.0]).mean == 2.0 and math.isnan(mean_interval([2.0]).low)
    assert math.isnan(mean_interval([]).mean) and mean_interval([math.nan]).count == 0


def test_bootstrap_separates_what_differs_and_not_what_does_not():
    apart = bootstrap_difference([1.0, 1.1, 0.9], [2.0, 2.1, 1.9])
    assert apart.mean == pytest.approx(1.0) and apart.low > 0
    same = bootstrap_difference([1.0, 2.0, 3.0], [1.1, 1.9, 3.1])
    assert same.low < 0 < same.high
    assert apart == bootstrap_difference([1.0, 1.1, 0.9], [2.0, 2.1, 1.9])
    assert math.isnan(bootstrap_difference([1.0], [2.0]).low) and math.isnan(bootstrap_difference([], [2.0]).mean)
