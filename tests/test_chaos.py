"""Searches and trainings killed with SIGKILL and resumed end as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("kind", "images", "kills"), [("search", "memory", 3), ("search", "files", 3), ("retrain", "files", 3)]
)
def test_killed_and_resumed(kind, images, kills):
    command = [sys.executable, "-m", "tests.chaos", "--kind", kind, "--images", images, "--kills", str(kills)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind}: {kills} kills" in done.stdout and " 0 differing" in done.stdout
