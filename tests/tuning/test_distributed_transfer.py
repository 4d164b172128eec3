"""`ddarts transfer --num-workers 2`: one process's files, and going on bit for bit; the slow ones with real workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import torch
from ddarts_tuning.training import distributed, worker
from ddarts_tuning.training.distributed import Workers
from ddarts_tuning.training.transfer import DistributedTransfer
from ddarts_tuning.training.worker import train_worker

from ddarts_cli import loop
from ddarts_cli.main import run
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.nested import override
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord
from ddarts_core.training.parallel import ALONE
from ddarts_core.transfer import shapes, training
from ddarts_core.transfer.coco import CocoImages
from ddarts_core.transfer.model import MEAN, STD
from ddarts_core.transfer.scan import read_splits
from ddarts_core.transfer.settings import resolve
from ddarts_core.transfer.training import Transfer
from tests.core.test_transfer_shares import double
from tests.core.two import float64
from tests.test_cli import mistake
from tests.test_transfer import TINY

pytestmark = pytest.mark.filterwarnings("ignore")

#: Batches of 3, in shares of 1 and 2.
CHANGED = TINY | {"training.batch_size": 3, "training.epochs": 2, "training.device": "cpu"}
SET = [word for path, value in CHANGED.items() for word in ("--set", override(path, value))]

Hook = Callable[[EpochRecord], object]


@pytest.fixture
def transfer(tmp_path: Path) -> Callable[..., Path]:
    """`ddarts transfer` in float64, in a folder of the name; `hook` sees every epoch of workers, in the driver."""
    shapes.write("coco-detection", tmp_path / "data", 4, 3)

    def in_float64(arguments: dict[str, Any]) -> None:
        with float64(), mock.patch.object(training, "build_detector", double):
            train_worker(arguments)

    def command(name: str, *arguments: str, hook: Hook = lambda record: None) -> Path:
        def follow(records: Iterable[EpochRecord], *rest: Any) -> Iterator[EpochRecord]:
            for record in records:
                hook(record)
                yield record

        given = ["transfer", "zoo:ResNet18", "--recipe", "retinanet-small", "--data-root", str(tmp_path / "data"), *SET]
        with pytest.MonkeyPatch.context() as patch, float64():
            patch.setattr(distributed, "train_worker", in_float64)
            patch.setattr(training, "build_detector", double)
            patch.setattr(loop, "follow", follow)
            assert run([*given, "--out", str(tmp_path / name), *arguments]) == 0
        return tmp_path / name

    return command


def weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.load(folder / "weights.pt")["detector"]
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_leave_what_one_process_leaves(transfer: Callable[..., Path], tmp_path: Path) -> None:
    one, two = transfer("one"), transfer("two", "--num-workers", "2")
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (one, two)]
    assert files[0] == files[1]
    tables = [pd.read_parquet(folder / "records.parquet") for folder in (one, two)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    mine, theirs = weights(two), weights(one)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-9, msg=name)
    assert any(not value.equal(mine[name]) for name, value in theirs.items()), "two did train"
    results = [json.loads((folder / "transfer.json").read_text()) for folder in (one, two)]
    scores = [result.pop("scores") for result in results]
    assert results[0] == results[1] and scores[0] == pytest.approx(scores[1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_workers_go_on_bit_for_bit(transfer: Callable[..., Path], tmp_path: Path) -> None:
    def keep(record: EpochRecord) -> None:
        if record.epoch == 0:
            shutil.copytree(tmp_path / "whole", tmp_path / "part", ignore=shutil.ignore_patterns("ray"))

    whole = transfer("whole", "--num-workers", "2", hook=keep)
    assert len(checkpoint.load(tmp_path / "part" / "checkpoint.pt")["records"]) == 1
    part = transfer("part", "--num-workers", "2", "--resume")
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "records.parquet") for folder in (whole, part)))
    mine = weights(part)
    assert all(value.equal(mine[name]) for name, value in weights(whole).items())


def test_more_workers_than_images_of_a_batch(transfer: Callable[..., Path], tmp_path: Path, capfd: Any) -> None:
    """Before Ray is started."""
    given = ["transfer", "zoo:ResNet18", "--recipe", "retinanet-small", "--data-root", tmp_path / "data", *SET]
    sentence = mistake(capfd, *given, "--out", tmp_path / "out", "--num-workers", "4")
    assert "--num-workers 4 exceeds training.batch_size 3: each worker needs an image of every batch" in sentence
    assert not (tmp_path / "out").exists()


# --- one worker, without Ray -----------------------------------------------------------------------------------------


def test_what_a_worker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells of its epochs, leaves the checkpoint of one process, goes on from it, and does not look at images."""
    shapes.write("coco-detection", tmp_path / "data", 4, 3)
    config = resolve({"recipe": "retinanet-small", "data": {"root": str(tmp_path / "data")}}, SET[1::2])
    splits = read_splits(config)
    alone = Transfer(config, ZOO["ResNet18"].genotype, splits, None, MEAN, STD)
    records = [*alone.records()]
    monkeypatch.setattr(worker.Group, "joined", lambda: ALONE)
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(CocoImages, "look", lambda images, index: pytest.fail("the driver has looked"))
    (tmp_path / worker.SCRATCH).mkdir()
    run = DistributedTransfer(config, ZOO["ResNet18"].genotype, None, splits, tmp_path, Workers(2, 1, False, True))

    def news() -> list[tuple[str, Any]]:
        told: list[tuple[str, Any]] = []
        train_worker({"job": run.job, "queue": SimpleNamespace(put=told.append)})
        return told

    told = news()
    assert [kind for kind, _ in told] == ["start", "epoch", "epoch"]
    assert [EpochRecord.from_dict(content) for _, content in told[1:]] == records
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    for name, value in alone.detector.state_dict().items():
        assert value.equal(state["transfer"]["detector"][name]), name
    assert news() == [("start", 2)], "all epochs are in the checkpoint"
