"""The notebooks run from top to bottom, and show pictures."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"

#: Pictures that each shows: genotypes, a study's front (in its HTML), figures.
SHOWN = {"search": {"image/svg+xml": 2}, "sweep": {"image/svg+xml": 1, "image/png": 1, "text/html": 2}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["search", pytest.param("sweep", marks=pytest.mark.slow)])
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs: they would grow old"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert {kind: kinds.count(kind) for kind in SHOWN[name]} == SHOWN[name]
