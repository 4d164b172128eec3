"""Sweeps that run on one machine at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.cluster import sharing
from ddarts_tuning.cluster.sharing import Claim, claim
from ddarts_tuning.settings.tune import TuneConfig

CORES = (0, 1, 2, 3)


def tune(cpu: float = 1.0, gpu: float = 0.0, **fields: Any) -> TuneConfig:
    return TuneConfig(**{"num_samples": 40, "resources": {"cpu": cpu, "gpu": gpu}, **fields})


@pytest.mark.parametrize(
    ("config", "visible", "others", "cpus", "gpus"),
    [
        (tune(), [], [], 4, ()),
        (tune(num_samples=2), [], [], 2, ()),
        (tune(cpu=2.0, max_concurrent=1), [], [], 2, ()),
        (tune(), [], [Claim("a", CORES, 3, ())], 1, ()),
        (tune(), [], [Claim("a", CORES, 1, ()), Claim("b", CORES, 1, ())], 2, ()),
        (tune(), [], [Claim("a", CORES, 4, ())], 1, ()),  # none is left
        (tune(cpu=2.0), [], [Claim("a", CORES, 4, ())], 2, ()),  # nor for half a trial
        (tune(), [], [Claim("a", (8, 9), 2, ())], 4, ()),  # bound to others, as by Slurm
        (tune(), [], [Claim("a", (3, 8, 9), 3, ())], 3, ()),
        (tune(gpu=0.5), ["0", "1"], [], 4, ("0", "1")),
        (tune(gpu=0.5, max_concurrent=2), ["0", "1"], [], 2, ("0",)),
        (tune(gpu=0.5), ["0", "1"], [Claim("a", CORES, 2, ("0",))], 2, ("1",)),
        (tune(gpu=1.0), ["0"], [Claim("a", CORES, 2, ("0",))], 2, ("0",)),  # the only one is shared
    ],
)
def test_what_is_left_for_a_sweep(
    config: TuneConfig, visible: list[str], others: list[Claim], cpus: int, gpus: tuple[str, ...]
) -> None:
    assert claim("mine", config, visible, CORES, others) == Claim("mine", CORES, cpus, gpus)


def test_several_others_are_named() -> None:
    one, two = Claim("runs/a", CORES, 1, ()), Claim("s3://place/b", CORES, 1, ())
    mine = Claim("mine", CORES, 2, ())
    assert sharing.sentence(mine, mine, [two, one, one]).startswith("studies a and b are running on this machine: this")
    assert sharing.sentence(mine, mine, [two, two]).startswith("study b is running on this machine: this sweep takes 2")


HOLD = """
import os
os.sched_getaffinity = lambda _: {0, 1, 2, 3}
from ddarts_tuning.cluster import sharing
from ddarts_tuning.settings.config import TuneConfig
found = sharing.take("runs/first", TuneConfig(num_samples=40, max_concurrent=1), [])
print(found, flush=True)
input()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_another_process_counts_while_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(sharing.tempfile, "tempdir", None)
    monkeypatch.setattr(sharing.os, "sched_getaffinity", lambda _: {*CORES})
    assert sharing.share("runs/second", tune(), None) is None and not caplog.text
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout is not None and first.stdin is not None
        assert "cpus=1" in first.stdout.readline()
        assert sharing.share("runs/second", tune(), None) == 3
        assert "study first is running on this machine: this sweep takes 3 of 4 cores that it could use" in caplog.text
        assert sharing.share("runs/second", tune(), 2) == 2, "what was asked for"
        caplog.clear()
        assert sharing.share("runs/second", tune(num_samples=2), None) is None and not caplog.text
        if killed:
            first.kill()
        else:
            first.stdin.write("\n")
    assert sharing.share("runs/second", tune(), None) is None and not caplog.text
    sharing.release()
    assert [file.name for file in tmp_path.glob("*/*")] == [".lock"]
