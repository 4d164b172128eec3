"""Every experiment file resolves, fits its data set, and the small sweeps repeat their points over three seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddarts_core.config import load_experiment
from ddarts_core.data import data_info
from ddarts_core.nested import read_yaml
from ddarts_core.supernet import Supernet
from tuning.config import load_sweep
from tuning.space import base_settings, trial_config

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))
SMALL = [name for name in FILES if name.startswith("small/")]


@pytest.mark.parametrize("name", FILES)
def test_resolves_and_builds(name):
    path = FOLDER / name
    if "space" in read_yaml(path):
        sweep = load_sweep(path)
        points = sweep.build_space().grid() if sweep.tune.searcher == "grid" else sweep.tune.points_to_evaluate
        configs = [trial_config(base_settings(sweep), point) for point in points or [{}]]
    else:
        configs = [load_experiment(path)]
    with torch.device("meta"):
        for config in {config.search.model_dump_json(): config for config in configs}.values():
            Supernet(config.search, data_info(config.data))


@pytest.mark.parametrize("name", SMALL)
def test_small_sweeps_have_three_seeds_per_point(name):
    points = load_sweep(FOLDER / name).build_space().grid()
    others = {tuple(sorted((k, v) for k, v in point.items() if k != "seed")) for point in points}
    assert len(points) == 3 * len(others)
    assert len({point["seed"] for point in points}) == 3
