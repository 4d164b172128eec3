"""A truth: a sweep over the genotypes of a small space, in which nothing is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ddarts_analysis.truth import read_truth
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.settings.truth import load_truth

from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import enumeration_of, numbered
from ddarts_core.settings.hashing import config_hash
from tests.tuning.conftest import SETTINGS

TRUTH: dict[str, Any] = {
    "name": "truth",
    "seed": 4,
    "data": {"num_train": 150},
    "search": {"space": "S_3", "num_cells": 3, "steps": 1, "channels": 2, "batch_size": 30},
    "retrain": SETTINGS["retrain"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "truth.yaml"
    path.write_text(yaml.safe_dump({**TRUTH, "storage": str(tmp_path / "runs")}))
    return path


def test_every_genotype_is_trained_and_nothing_searched(file: Path, ray_cluster: None) -> None:
    config = load_truth(file, ["tune.num_samples=2"])
    result = run_sweep(config)
    assert [trial["state"] for trial in result.trials] == ["COMPLETED"] * 2
    known = read_truth(config.study_dir)
    assert not known.complete
    assert known.trainings["number"].tolist() == [0, 1]
    assert {"naswot", "synflow", "jacobian_covariance"} < set(known.trainings.columns)
    every = enumeration_of(config)
    for trial in known.study.trials:
        assert trial.genotype == every[trial.info["config"]["search"]["number"]]
        assert {record.phase for record in trial.records} == {"retrain"}
        assert trial.info["objectives"] == {"derived/held_out/accuracy": trial.info["derived"]["held_out/accuracy"]}


def test_a_file_is_the_sweep_that_it_stands_for(file: Path) -> None:
    config = load_truth(file, ["space={seed: {type: categorical, choices: [7, 8]}}"])
    assert (config.tune.num_samples, config.tune.searcher, config.data.split.seed) == (2 * 486, "grid", 4)
    points = config.build_space().grid()
    assert points[:2] == [{"seed": 7, "search.number": 0}, {"seed": 7, "search.number": 1}], (
        "all genotypes, seed by seed"
    )
    assert len({tuple(point.values()) for point in points}) == 2 * 486
    alone = load_truth(file)
    assert alone.build_space().grid()[0] == {"seed": 4, "search.number": 0}
    assert config_hash(numbered_config(alone, 3)) != config_hash(numbered_config(alone, 4))


def numbered_config(config: Any, number: int) -> Any:
    changed = config.model_copy(update={"search": config.search.model_copy(update={"number": number})})
    assert numbered(changed) == enumeration_of(config)[number]
    return changed


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("space={retrain.epochs: {type: int, low: 1, high: 2}}", "space.retrain.epochs has no place in a truth"),
        ("tune.scheduler=asha", "tune.scheduler of a truth is fifo: leave it out"),
        ("search.steps=4", "are the most that can be numbered"),
        ("search.sharing=normal_reduce", "use sharing own"),
    ],
)
def test_what_is_no_truth_is_refused(file: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_truth(file, [override])
