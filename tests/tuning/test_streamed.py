"""Sweeps on images that stay in files, with processes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.mlflow_runs import read_runs
from ddarts_cli import training
from ddarts_cli.main import run
from ddarts_core.records import EpochRecord
from tests.core.test_data import write_imagenet
from tests.tuning.conftest import Make
from tests.tuning.processes import Driver, epochs_of, results
from tuning.config import SweepConfig
from tuning.study import find_study

NAME = "50%41? of #1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    write_imagenet(folder, pytest.MonkeyPatch())
    return folder


def streamed(make_sweep: Make, root: Path, name: str, **groups: Any) -> SweepConfig:
    """Four trials of three epochs, one after the other on two cores: each takes a core for each of its readers."""
    return make_sweep(
        name,
        data={"name": "imagenet", "root": str(root), "num_train": None, "image_size": 16, "num_workers": 2},
        search={"epochs": 2, "batch_size": 4, "device": "cpu"},
        retrain={"channels": 2, "epochs": 1, "batch_size": 8, "device": "cpu"},
        tune={"num_samples": 4, "max_concurrent": None},
        **groups,
    )


def test_a_sweep_on_streamed_files_ends_and_goes_on_where_it_was_killed(
    make_sweep: Make, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder whose name means something else in a URI, its temporary files where no socket can be named."""
    temporary = tmp_path / ("t" * 80)
    temporary.mkdir()
    calm = streamed(make_sweep, root, "calm")
    killed = streamed(make_sweep, root, "killed", storage=str(tmp_path / NAME))
    assert Driver("run", calm.study_dir, calm).finish().startswith("finished 0")
    study = find_study(calm.study_dir)
    assert [trial["state"] for trial in study.trials()] == ["COMPLETED"] * 4
    assert study.data["config"]["tune"]["resources"] == {"cpu": 2.0, "gpu": 0.0, "threads": 1}
    monkeypatch.setenv("TMPDIR", str(temporary))
    driver = Driver("run", killed.study_dir, killed)
    driver.wait_for(lambda: (killed.study_dir / "trials" / "00001").exists() and epochs_of(killed.study_dir, 1) >= 1)
    driver.kill()
    assert Driver("resume", killed.study_dir).finish().startswith("finished 0")
    assert results(killed.study_dir) == results(calm.study_dir)
    assert [run.status for run in read_runs(find_study(killed.study_dir).data["tracking_uri"], "killed")] == [
        "FINISHED"
    ] * 5
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([NAME, temporary.name])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("ray_cluster")
def test_several_workers_train_on_streamed_files_and_name_one_that_breaks(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"data.root={root}", "data.num_workers=2", "data.image_size=16", "retrain.channels=2"]
    settings += ["retrain.batch_size=8", "retrain.device=cpu", "retrain.num_cells=3"]

    def retrain(num_workers: int, out: Path, epochs: int) -> int:
        command = ["retrain", "zoo:DARTS_V2", "--data", "imagenet", "--num-workers", str(num_workers)]
        given = [word for setting in (*settings, f"retrain.epochs={epochs}") for word in ("--set", setting)]
        return run([*command, *given, "--out", str(out)])

    losses = []
    for num_workers in (1, 2):
        out = tmp_path / str(num_workers)
        assert retrain(num_workers, out, epochs=1) == 0
        records = pd.read_parquet(out / "genotype-seed-0" / "records.parquet")
        losses.append(float(records["train/loss"].iloc[0]))
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)

    def follow(records: Iterable[EpochRecord], *rest: Any) -> Iterator[EpochRecord]:
        for record in records:
            for file in root.glob("train/n00000001/*"):
                file.write_bytes(b"no picture")
            yield record

    monkeypatch.setattr(training, "follow", follow)
    capfd.readouterr()
    assert retrain(2, tmp_path / "broken", epochs=60) == 2
    assert f"Error: cannot read image {root}/train/n00000001/n00000001_" in capfd.readouterr().err
