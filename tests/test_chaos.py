"""Searches and trainings killed with SIGKILL and resumed end as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["search", pytest.param("retrain", marks=pytest.mark.slow)])
def test_killed_and_resumed(kind, kills=1):
    """Of images in files, which other processes read; `make chaos-search` kills more, of images in memory too."""
    command = [sys.executable, "-m", "tests.chaos", "--kind", kind, "--images", "files"]
    command += ["--kills", str(kills), "--epochs", "3"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind}: {kills} kills" in done.stdout and " 0 differing" in done.stdout
