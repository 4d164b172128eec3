"""`make gpu` on a CPU: rows run, what is known is written at once, and Ray and MLflow are not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import gpu


def test_rows_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--device", "cpu", "--rounds", "1", "--out", str(tmp_path)]

    def breaks(device: str, rounds: int) -> object:
        found = json.loads((tmp_path / "performance-gpu.json").read_text())
        assert set(found["rows"]["options"]) == set(gpu.OPTIONS), "the row before is on disk"
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "ROWS", {**gpu.ROWS, "breaks": breaks})
    assert gpu.main([*arguments, "--rows", "options,compiled,breaks,training"]) == 0
    page = (tmp_path / "performance-gpu.md").read_text()
    assert "- compiled: CUDA graphs need a GPU" in page
    assert "- breaks: RuntimeError: out of memory" in page
    assert "| channels_last bf16 | " in page, "the row behind the one that broke"
    assert gpu.main([*arguments, "--rows", "training", "--seconds", "0"]) == 0
    assert "- training: 0 seconds were over" in (tmp_path / "performance-gpu.md").read_text()


def test_neither_ray_nor_mlflow_is_loaded() -> None:
    code = "import sys, tests.benchmarks.gpu; print(sorted({'ray', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
