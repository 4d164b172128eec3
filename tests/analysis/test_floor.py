"""Analysis reads records only: importing any of its modules brings neither torch nor ray, nor MLflow or pyplot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ddarts_analysis

MODULES = sorted(p.stem for p in Path(ddarts_analysis.__file__).parent.glob("*.py") if p.stem != "__init__")


def test_no_module_of_analysis_needs_torch_or_ray():
    code = (
        "import importlib, sys\n"
        f"for name in {MODULES}: importlib.import_module('ddarts_analysis.' + name)\n"
        "heavy = ('torch', 'ray', 'optuna', 'mlflow', 'ddarts_tuning', 'matplotlib.pyplot')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert len(MODULES) > 10
