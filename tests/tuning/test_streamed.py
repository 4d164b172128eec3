"""Sweeps on images that stay in files, with processes that read them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from ddarts_analysis.mlflow_runs import read_runs
from ddarts_tuning.driver import extending, sweep
from ddarts_tuning.driver.new_study import new_study
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.backend import Folder
from ddarts_tuning.store.study import find_study, trial_dir
from ddarts_tuning.trial.trainable import SearchTrial
from ddarts_tuning.trial.trial_record import begin
from PIL import Image

from ddarts_cli import training
from ddarts_cli.main import run
from ddarts_core.data.sets import load_train
from ddarts_core.datasets import facts
from ddarts_core.datasets.facts import read_facts, read_info, write_facts
from ddarts_core.ground.errors import UserError
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import resolve
from tests.tuning.conftest import Make
from tests.tuning.processes import Driver, by_hand, epochs_of, results

NAME = "50%41? of #1"

CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The look at the images is kept here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes of unequal size in colours of their own; none is square."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, counts in (("train", (12, 8, 5)), ("test", (3, 2, 2))):
        for place, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 200, (18, 21, 3), dtype=np.uint8)
                pixels[..., place] += 40
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def streamed(make_sweep: Make, root: Path, name: str, num_samples: int, num_workers: int, **groups: Any) -> SweepConfig:
    """Trials of three epochs that seek balanced accuracy; each takes a core for each of its readers."""
    data = {"name": "folder", "root": os.path.relpath(root), "num_train": None, "image_size": 16, "in_memory": False}
    return make_sweep(
        name,
        data={**data, "num_workers": num_workers},
        search={"epochs": 2, "batch_size": 4, "device": "cpu"},
        retrain={"channels": 2, "epochs": 1, "batch_size": 8, "device": "cpu", "class_weights": "balanced"},
        tune={"num_samples": num_samples, "max_concurrent": None, "metric": "balanced_accuracy"},
        **groups,
    )


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["calm", "killed"])
def test_a_sweep_on_streamed_files_ends_and_goes_on_where_it_was_killed(
    make_sweep: Make,
    killed: bool,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In a folder whose name means something else in a URI, temporary files where no socket can be named.

    Its trial is that of a process that was left alone and has no processes that read.
    """
    temporary = tmp_path / ("t" * 80)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    config = streamed(make_sweep, root, "streamed", 1, 2, storage=str(tmp_path / NAME))
    path = config.study_dir
    driver = Driver("run", path, config)
    if killed:
        driver.wait_for(lambda: (path / "trials" / "00000").exists() and epochs_of(path, 0) >= 1)
        driver.kill()
        driver = Driver("resume", path)
    assert driver.finish().startswith("finished 0")
    study = find_study(path)
    assert [trial["state"] for trial in study.trials()] == ["COMPLETED"]
    assert study.data["config"]["tune"]["resources"] == {"cpu": 2.0, "gpu": 0.0, "threads": 1}
    assert results(path) == by_hand(streamed(make_sweep, root, f"alone-{killed}", 1, 0), path)
    assert [run.status for run in read_runs(study.data["tracking_uri"], "streamed")] == ["FINISHED"] * 2
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([NAME, temporary.name])

    assert study.objectives == [("derived/held_out/balanced_accuracy", "max")]
    assert run(["export", str(study.path), "--top", "1"]) == 0
    said = capfd.readouterr().out
    info = read_info(study.path)
    assert "trial 00000" in said and info is not None and info.classes == CLASSES
    assert run(["report", str(study.path)]) == 0
    assert "the largest of 3 classes, ant, has 48.0 % of the training images" in (study.path / "report.html").read_text(
        encoding="utf-8"
    )


def test_no_sweep_or_trial_goes_on_with_other_images(
    make_sweep: Make,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver looks first, so that no trial fails for it; a trial looks where the driver has no images."""
    own = tmp_path / "own"
    shutil.copytree(root, own)
    config = streamed(make_sweep, own, "changed", 1, 0)
    _, content = sweep._check_data(config)
    publish = Folder.publish

    def known(place: Folder, data: Mapping[str, Any]) -> None:
        assert read_facts(place.folder) == content, "a sweep that is killed once there is a study knows its images"
        publish(place, data)

    monkeypatch.setattr(Folder, "publish", known)
    study = new_study(config, content)
    record = begin(study, 0, {"search.w_zero_one": 1.0, "ablation.loss": "none"})
    trial = SearchTrial.__new__(SearchTrial)
    trial._study, trial._record, trial._folder = study, record, trial_dir(study.path, 0)
    trial._params, trial._records = dict(record["params"]), []
    trial._config = resolve(record["config"])
    smaller = trial._config.data.model_copy(update={"image_size": 8})
    other = SearchTrial.__new__(SearchTrial)
    other.__dict__ |= {**trial.__dict__, "_config": trial._config.model_copy(update={"data": smaller})}
    (study.path / facts.FILE).unlink()
    with caplog.at_level(logging.WARNING):
        sweep.check_images(study, config)
    assert read_facts(study.path) == content and caplog.text.count("'changed' had no data.json") == 1
    for one in (trial, other):
        one._know(*load_train(one._config.data))
    sweep.check_images(study, config)
    assert read_info(trial_dir(study.path, 0)) == load_train(smaller)[0]
    away = own.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"^the images of study 'changed' are not in '.*/own': put them back"):
        sweep.resume_sweep(study.path)
    sweep.check_images(study, config, "auto")  # they may be on a cluster's machines
    away.rename(own)
    (own / "train" / "ant" / "0.png").rename(own / "train" / "bee" / "new.png")
    for one in (trial, other):
        with pytest.raises(UserError, match=r"images are not those that (study 'changed'|trial 00000) was"):
            one._know(*load_train(one._config.data))
    (study.path / facts.FILE).unlink()
    write_facts(trial_dir(study.path, 0), {key: value for key, value in content.items() if key != "settings"})
    gone = config.model_copy(update={"data": config.data.model_copy(update={"root": "nowhere"})})
    sweep.check_images(study, gone, "auto")
    assert read_facts(study.path) == content, "which its trial had kept"
    with pytest.raises(UserError, match=r"not those that study 'changed' was begun with \(train_counts"):
        sweep.check_images(study, config)
    study.update(state="FINISHED")
    monkeypatch.setattr(extending, "prepare", lambda *_: pytest.fail("it went on"))
    with pytest.raises(UserError, match=r"not those that study 'changed' was begun with \(train_counts"):
        extending.extend_sweep(config, 1)
    study.update(state="INTERRUPTED")
    with pytest.raises(UserError, match=r"not those that study 'changed' was begun with \(train_counts"):
        sweep.resume_sweep(study.path)
    published = config.data.model_copy(update={"name": "cifar10", "root": str(tmp_path), "in_memory": None})
    elsewhere = config.model_copy(update={"data": published})
    with pytest.raises(UserError, match=f"cannot read cifar10 in '{tmp_path}'"):
        sweep.check_images(study, elsewhere)
    sweep.check_images(study, elsewhere, "auto")
    # Later trials may have other settings of the data than those of the first round, and other folders.
    sweep.check_images(study, config.model_copy(update={"data": config.data.model_copy(update={"num_train": 20})}))
    third = SearchTrial.__new__(SearchTrial)
    third.__dict__ |= {**trial.__dict__, "_params": {"data.root": str(own)}, "_folder": trial_dir(study.path, 1)}
    third._know(*load_train(trial._config.data))
    # A trial of an earlier version that goes on, of a study whose facts do not name their settings.
    write_facts(study.path, {key: value for key, value in content.items() if key not in ("settings", "train_copies")})
    shutil.rmtree(trial_dir(study.path, 0))
    trial._records = [EpochRecord(0, "search", {})]
    (own / "train" / "ant" / "1.png").unlink()
    with pytest.raises(UserError, match=r"not those that study 'changed' was begun with \(mean"):
        trial._know(*load_train(trial._config.data))


def test_a_sweep_goes_on_where_its_images_are_now(
    make_sweep: Make, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images by the study's data.json: a stopped study goes on, and a finished one gets trials."""
    own, away = tmp_path / "own", tmp_path / "away"
    shutil.copytree(root, own)
    shutil.copytree(root, away)
    here, there = (streamed(make_sweep, place, "moved", 1, 0) for place in (own, away))
    study = new_study(here, sweep._check_data(here)[1])
    drawn = {"search.w_zero_one": 1.0, "ablation.loss": "none"}
    for number, state in enumerate(("RUNNING", "FAILED", "PRUNED")):
        begin(study, number, drawn, state=state)
    begin(study, 3, {**drawn, "data.root": "elsewhere"})

    def roots() -> list[str]:
        data = find_study(study.path).data
        found = [data["base"], data["config"], *(trial["config"] for trial in study.trials())]
        return [os.path.basename(each["data"]["root"]) for each in found]

    def refused(state: str) -> str:
        find_study(study.path).update(state=state)
        with pytest.raises(UserError) as error:
            extending.extend_sweep(there, 1)
        assert roots() == ["own", "own", "own", "own", "own", "elsewhere"]
        return str(error.value)

    for module in (sweep, extending):
        monkeypatch.setattr(module, "prepare", lambda config, *_: config)
        monkeypatch.setattr(module, "run", lambda study, *_: sweep.StudyResult(study, [], True, 0))
    (away / "train" / "ant" / "0.png").rename(away / "train" / "bee" / "new.png")
    for state in ("INTERRUPTED", "FINISHED"):
        assert "not those that study 'moved' was begun with (train_counts" in refused(state)
    (away / "train" / "bee" / "new.png").rename(away / "train" / "ant" / "0.png")
    known = (study.path / facts.FILE).rename(tmp_path / "data.json")
    for state in ("INTERRUPTED", "FINISHED"):
        assert "another data.root" in refused(state)
    known.rename(study.path / facts.FILE)
    shutil.rmtree(own)
    find_study(study.path).update(state="INTERRUPTED")
    with pytest.raises(UserError, match=r"go on with `ddarts sweep FILE --set data\.root=FOLDER` where they are now"):
        sweep.resume_sweep(study.path)
    extending.extend_sweep(there, 1)
    assert roots() == ["away", "away", "away", "away", "own", "elsewhere"]
    find_study(study.path).update(state="FINISHED")
    away.rename(own)
    extending.extend_sweep(here, 1)
    assert roots() == ["own", "own", "own", "own", "own", "elsewhere"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("ray_cluster")
def test_several_workers_train_on_streamed_files_killed_or_not_and_name_one_that_breaks(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers of a driver that is killed end with it, and others go on to the same bits as if nothing happened."""
    settings = [f"data.root={root}", "data.in_memory=false", "data.image_size=16", "retrain.channels=2"]
    settings += ["retrain.batch_size=8", "retrain.device=cpu", "retrain.num_cells=3"]

    def retrain(num_workers: int, out: Path, epochs: int) -> list[str]:
        command = ["retrain", "zoo:DARTS_V2", "--data", "folder", "--num-workers", str(num_workers)]
        own = [f"retrain.epochs={epochs}", f"data.num_workers={2 if num_workers > 1 else 0}"]
        given = [word for setting in (*settings, *own) for word in ("--set", setting)]
        return [*command, *given, "--out", str(out)]

    alone, together, killed = (tmp_path / name for name in ("alone", "together", "killed"))
    assert run(retrain(1, alone, 3)) == run(retrain(2, together, 3)) == 0
    driver = subprocess.Popen(
        [sys.executable, "-m", "ddarts_cli", *retrain(2, killed, 3)],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
    )
    state = killed / "genotype-seed-0" / "checkpoint.pt"
    until = time.monotonic() + 120
    while not state.exists():
        assert driver.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert 1 <= len(checkpoint.load(state)["records"]) < 3
    assert run([*retrain(2, killed, 3), "--resume"]) == 0
    tables = [pd.read_parquet(out / "genotype-seed-0" / "records.parquet") for out in (alone, together, killed)]
    assert tables[1]["train/loss"].iloc[0] == pytest.approx(tables[0]["train/loss"].iloc[0], abs=1e-3)
    pd.testing.assert_frame_equal(tables[2], tables[1])
    weights = [checkpoint.load(out / "genotype-seed-0" / "weights.pt")["weights"] for out in (together, killed)]
    assert weights[0].keys() == weights[1].keys() and all(
        weights[0][name].equal(weights[1][name]) for name in weights[0]
    )

    def follow(records: Iterable[EpochRecord], *rest: Any) -> Iterator[EpochRecord]:
        for record in records:
            for file in root.glob("train/bee/*"):
                file.write_bytes(b"no picture")
            yield record

    monkeypatch.setattr(training, "follow", follow)
    capfd.readouterr()
    assert run(retrain(2, tmp_path / "broken", epochs=60)) == 2
    assert f"Error: cannot read image {root}/train/bee/" in capfd.readouterr().err
