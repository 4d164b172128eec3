"""Processes that read images: they hold nothing of whom they read for, and end with it, however it ends."""

from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ddarts_cli.main import run
from ddarts_core.data.readers import end_readers
from ddarts_core.data.sets import load_train
from ddarts_core.data.streaming import StreamedSet
from ddarts_core.ground.errors import ReaderDied, UserError
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.training.retrain import Retrain
from tests.core.test_data import write_imagenet

# No guard for `__main__`, as in a notebook; the lock is held before the readers begin and let go after.
SCRIPT = """
import fcntl, multiprocessing, sys, time
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.data.sets import load_train
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
info, images = load_train(DataConfig(name="imagenet", root=sys.argv[2], num_workers=2, image_size=16))
passes = []
def read():
    passes.append([x for x, _ in images.batches(5, info=info)])
read()
lock.close()
print(*(reader.pid for reader in multiprocessing.active_children()), flush=True)
sys.stdin.readline()
read()
print(all(a.equal(b) for a, b in zip(*passes)), flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "imagenet"
    folder.mkdir()
    write_imagenet(folder, pytest.MonkeyPatch())
    return folder


def are_gone(pids: list[int]) -> bool:
    """Whether these processes end within some seconds."""
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_readers_hold_no_lock_ignore_a_groups_signals_and_end_with_a_killed_process(root: Path, tmp_path: Path) -> None:
    script, locked = tmp_path / "unguarded.py", tmp_path / "lock"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(locked), str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    with locked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in pids:
            os.kill(pid, number)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "True\n"
    process.kill()
    process.wait()
    assert are_gone(pids)


def test_one_pair_of_readers_serves_all_splits_and_a_file_that_breaks_is_named(root: Path) -> None:
    info, images = load_train(DataConfig(name="imagenet", root=str(root), num_workers=2, image_size=16))
    assert isinstance(images, StreamedSet)
    first, second = images.subset(range(0, 24, 2)), images.subset(range(1, 24, 2))
    (left, right), (one, other) = (list(part.batches(6, info=info)) for part in (first, second))
    mixed = zip(first.batches(6, info=info), second.batches(6, info=info), strict=True)
    for ((x, _), (y, _)), (a, b) in zip(mixed, [(left, one), (right, other)], strict=True):
        assert torch.equal(x, a[0]) and torch.equal(y, b[0])
    readers = [child for child in multiprocessing.active_children() if child.name == "reader"]
    assert len(readers) == 2
    broken = Path(images.files.samples[7][0])
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(UserError, match=f"cannot read image {broken}: .*(?i:truncated)"):
        list(images.batches(5, info=info))
    assert len(list(first.batches(6, info=info))) == 2
    os.kill(int(readers[0].pid or 0), signal.SIGKILL)
    with pytest.raises(ReaderDied, match=f"process {readers[0].pid}, which read images, was killed"):
        list(first.batches(6, info=info))
    end_readers()
    assert not [child for child in multiprocessing.active_children() if child.name == "reader"]
    assert len(list(first.batches(6, info=info))) == 2
    del images, first, second, mixed
    gc.collect()  # the errors above hold them, in their frames
    assert not [child for child in multiprocessing.active_children() if child.name == "reader"]


def test_a_search_and_its_retraining_end_well_or_with_the_name_of_a_file_that_breaks(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "streamed.yaml"
    file.write_text(
        f"""
name: streamed
storage: {tmp_path}
data: {{name: imagenet, root: {root}, image_size: 16, num_workers: 2}}
search: {{num_cells: 3, channels: 2, steps: 2, epochs: 1, batch_size: 4, device: cpu}}
retrain: {{channels: 2, epochs: 1, batch_size: 8, device: cpu}}
"""
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(["search", str(file), "--retrain"]) == 0
    assert "test accuracy of the genotype" in capfd.readouterr().out
    begin = Retrain.records

    def broken_later(self: Retrain) -> object:
        (root / "train" / "n00000001" / "n00000001_2.JPEG").write_bytes(b"no picture")
        return begin(self)

    monkeypatch.setattr(Retrain, "records", broken_later)
    genotype = tmp_path / "streamed" / "genotype.json"
    assert run(["retrain", str(genotype), "--config", str(file), "--out", str(tmp_path / "again")]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"Error: cannot read image {root}/train/n00000001/n00000001_2.JPEG: ")
    assert len(said.splitlines()) == 1
