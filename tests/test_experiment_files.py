"""Every experiment file resolves, fits its data set, and the sweeps of figures repeat their points over four seeds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from ddarts_tuning.settings.config import load_sweep
from ddarts_tuning.settings.population import draw_population
from ddarts_tuning.settings.space import base_settings, trial_config

from ddarts_core.data.sets import data_info
from ddarts_core.ground.nested import read_yaml
from ddarts_core.methods import METHODS, network_of
from ddarts_core.settings.config import load_experiment

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))
#: The paper's figures.
FIGURES = [name for name in FILES if name.startswith("evidence/")]


facts = cache(data_info)

#: Settings of a search of which its supernet knows nothing.
UNBUILT = {
    "batch_size",
    "epochs",
    "grad_clip",
    "lr",
    "lr_min",
    "momentum",
    "w_zero_one",
    "warmup_epochs",
    "weight_decay",
}


@cache
def built() -> set[tuple[str, int]]:
    """Structures and sizes of images that were built already: many files share them."""
    return set()


@pytest.mark.parametrize("name", FILES)
def test_resolves_and_builds(name):
    path = FOLDER / name
    if "space" in read_yaml(path):
        sweep = load_sweep(path)
        points = sweep.build_space().grid() if sweep.tune.searcher == "grid" else sweep.tune.points_to_evaluate
        configs = [trial_config(base_settings(sweep), point) for point in points or [{}]]
    else:
        configs = [load_experiment(path)]
    for config in configs:
        structure = (config.search.model_dump_json(exclude=UNBUILT), facts(config.data).image_size)
        if structure not in built():
            with torch.device("meta"):
                network_of(config.search).build(facts(config.data))
            built().add(structure)


@pytest.mark.parametrize("name", FIGURES)
def test_sweeps_of_figures_have_four_seeds_per_point(name):
    points = load_sweep(FOLDER / name).build_space().grid()
    others = {tuple(sorted((k, v) for k, v in point.items() if k != "seed")) for point in points}
    assert len(points) == 4 * len(others)
    assert len({point["seed"] for point in points}) == 4


@pytest.mark.parametrize("name", ["methods_digits", "methods_fashion"])
def test_every_method_is_compared_with_random_search_on_four_seeds_and_an_equal_budget(name):
    sweep = load_sweep(FOLDER / f"{name}.yaml")
    first, *others = sweep.space["method"].choices
    assert first == "random" and {first, *others} == set(METHODS)
    points = sweep.build_space().grid()
    assert [sum(p["method"] == method for p in points) for method in (first, *others)] == [4] * (1 + len(others))
    assert (sweep.tune.budget, sweep.tune.num_samples, sweep.tune.objective) == (
        "multiply-adds",
        len(points),
        "derived",
    )
    assert f"ddarts table {name} --by method --first random" in (FOLDER / f"{name}.yaml").read_text()


def test_no_combination_of_parts_is_refused():
    sweep = load_sweep(FOLDER / "method_parts.yaml")
    space, base = sweep.build_space(), base_settings(sweep)
    drawn = draw_population(space, 150, seed=0)
    configs = [trial_config(base, params) for params in drawn]
    for path in ("gates", "edge"):
        assert {getattr(config.search, path) for config in configs} == set(sweep.space[f"search.{path}"].choices)
    assert {config.discretise.rule for config in configs} == {"darts", "sparse", "edge"}
    assert {name for config in configs for name in config.search.regularisers} == {
        "beta-decay",
        "dirichlet-kl",
        "zero-one",
    }
