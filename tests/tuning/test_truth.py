"""A truth: a sweep over the genotypes of a small space, in which nothing is searched."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from ddarts_analysis.truth import read_truth
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.truth import load_truth

from ddarts_cli.main import run
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


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    path = folder / "truth.yaml"
    path.write_text(yaml.safe_dump({**TRUTH, "storage": str(folder / "runs")}))
    return path


@pytest.fixture(scope="module")
def trained(file: Path, ray_cluster: None) -> SweepConfig:
    """The first two genotypes of the space."""
    config = load_truth(file, ["tune.num_samples=2"])
    result = run_sweep(config)
    assert [trial["state"] for trial in result.trials] == ["COMPLETED"] * 2
    return config


def test_every_genotype_is_trained_and_nothing_searched(trained: SweepConfig) -> None:
    known = read_truth(trained.study_dir)
    assert len(known.architectures) == 2 < len(known.every)
    assert known.trainings["number"].tolist() == [0, 1]
    assert {"naswot", "synflow", "jacobian_covariance"} < set(known.trainings.columns)
    every = enumeration_of(trained)
    for trial in known.study.trials:
        assert trial.genotype == every[trial.info["config"]["search"]["number"]]
        assert {record.phase for record in trial.records} == {"retrain"}
        assert trial.info["objectives"] == {"derived/held_out/accuracy": trial.info["derived"]["held_out/accuracy"]}


def test_the_commands_judge_and_export(trained: SweepConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of these two, beside a search in their space."""
    settings = {**TRUTH, "name": "one", "seed": 9, "data": {"num_train": 150, "split": {"seed": 4}}}
    settings |= {"search": {**TRUTH["search"], "epochs": 1, "probe": 486}, "discretise": {"rule": "darts"}}
    searched = tmp_path / "one.yaml"
    searched.write_text(yaml.safe_dump(settings))
    assert run(["search", str(searched), "--out", str(tmp_path / "one")]) == 0
    capfd.readouterr()
    folders = [str(trained.study_dir), str(tmp_path / "one")]
    assert run(["regret", *folders, "--json", "--runs", "2", "--out", str(tmp_path / "judged")]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["truth"]["trained"], found["searches"][0]["method"]) == (2, "ddarts")
    scored = json.loads((tmp_path / "one" / "search.json").read_text())["one_shot"]
    assert len(scored) == 486 and len(set(scored.values())) > 5
    pictures = {f"{name}.png" for name in ("regret", "simulation", "predictors", "methods")}
    assert {path.name for path in (tmp_path / "judged").iterdir()} == {"regret.md", *pictures}
    files = [str(tmp_path / f"{name}.parquet") for name in ("of_truth", "of_search")]
    for folder, packed in zip(folders, files, strict=True):
        assert run(["collect", folder, "--out", packed]) == 0
    capfd.readouterr()
    assert run(["regret", *files, "--json", "--runs", "2"]) == 0
    assert json.loads(capfd.readouterr().out) == found
    target = tmp_path / "truth.parquet"
    assert run(["truth", folders[0], "--export", str(target)]) == 0
    assert pd.read_parquet(target)["number"].tolist() == [0, 1]


def test_a_trial_is_trained_again_by_the_commands_that_are_named(
    trained: SweepConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["export", str(trained.study_dir), "--top", "1", "--out", str(tmp_path)]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/README.md"))
    card = (folder / "README.md").read_text()
    monkeypatch.chdir(folder)
    (again,) = re.findall(r"^    ddarts (.*)", card, re.M)
    assert run(shlex.split(again.replace("--seeds 4", "--seeds 1"))) == 0
    assert "resolved configuration of its training" in card
    assert run(["report", str(trained.study_dir), "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "2 trainings of given genotypes on digits" in page and "2 searches" not in page
    (folder / "trial.yaml").write_text(
        html.unescape(re.findall(r"<summary>trial.yaml.*?<pre>(.*?)</pre>", page, re.S)[0])
    )
    (again,) = re.findall(r"<pre>ddarts (retrain .*?)</pre>", page)
    assert "ddarts search" not in page
    assert run(shlex.split(again)) == 0
    capfd.readouterr()


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
        ("search.sharing=normal_reduce", "use search.sharing own"),
    ],
)
def test_what_is_no_truth_is_refused(file: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_truth(file, [override])
