"""The driver of searches and trainings: checkpoints every so many epochs, and one when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from ddarts_cli.loop import run_loop
from ddarts_core.data.sets import load_train
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.loops import checkpoint
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.training.retrain import Retrain


@pytest.fixture(scope="module")
def training():
    info, images = load_train(DataConfig(num_train=90))
    config = RetrainConfig(channels=2, epochs=5, batch_size=30, device="cpu", checkpoint_every=3)
    return lambda: Retrain(config, ZOO["ResNet18"].genotype, info, images, None, seed=0)


class Interrupted:
    """A training that Ctrl-C or SIGTERM reaches in its fifth epoch."""

    def __init__(self, inner):
        self.inner = inner
        self.num_epochs = inner.num_epochs
        self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

    @property
    def over(self):
        return self.inner.over

    def records(self):
        for record in self.inner.records():
            yield record
            if record.epoch == 3:
                raise KeyboardInterrupt


def _plain(records):
    return [json.dumps(record.to_dict()) for record in records]


def test_interrupted_between_checkpoints_loses_no_whole_epoch(training, tmp_path):
    whole = _plain(run_loop(training(), "retrain", "t", tmp_path / "whole.pt", resume=False, every=3))
    file = tmp_path / "broken.pt"
    with pytest.raises(KeyboardInterrupt):
        run_loop(Interrupted(training()), "retrain", "t", file, resume=False, every=3)
    assert len(checkpoint.load(file)["records"]) == 4
    assert _plain(run_loop(training(), "retrain", "t", file, resume=True, every=3)) == whole


def test_killed_between_checkpoints_goes_on_from_the_last(training, tmp_path):
    saved = []
    file = tmp_path / "state.pt"

    class Watched(Interrupted):
        def records(self):
            for record in self.inner.records():
                saved.append(len(checkpoint.load(file)["records"]) if file.exists() else 0)
                yield record

    run_loop(Watched(training()), "retrain", "t", file, resume=False, every=3)
    assert saved == [0, 0, 0, 3, 3]
    assert len(checkpoint.load(file)["records"]) == 5


def test_sigterm_ends_like_ctrl_c(tmp_path):
    command = [
        sys.executable,
        "-m",
        "ddarts_cli",
        "search",
        "experiments/quickstart.yaml",
        "--out",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "s"), "--set", "search.channels=2", "--set", "search.warmup_epochs=40"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "epoch 1/" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on: ddarts search experiments/quickstart.yaml --out " in out and "--resume\n" in out
    assert "Traceback" not in err
    assert len(checkpoint.load(tmp_path / "s" / "checkpoint.pt")["records"]) >= 1
