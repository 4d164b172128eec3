"""Imports go down only: in a fresh interpreter, a floor's modules must not pull in a floor above or beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from . import architecture

ROOT = Path(__file__).parent.parent

#: The name that each folder is installed under: `tuning` and `analysis` are names that a user's own folders have.
NAMES = {
    "ddarts_core": "ddarts_core",
    "tuning": "ddarts_tuning",
    "analysis": "ddarts_analysis",
    "ddarts_cli": "ddarts_cli",
    "ddarts_cli/api": "ddarts",
}

#: Modules of the core that may not import torch.
GROUND_FLOOR = {
    "datasets",
    "datasets.cache",
    "datasets.decode",
    "datasets.facts",
    "datasets.names",
    "datasets.own",
    "datasets.scan",
    "datasets.sources",
    "datasets.stratified",
    "datasets.tables",
    "datasets.worker",
    "ground.plugins",
    "extension.registry",
    "genotypes.derive",
    "genotypes.genotype",
    "genotypes.handcrafted",
    "genotypes.random_genotype",
    "genotypes.shapes",
    "genotypes.spaces",
    "genotypes.zoo",
    "ground.errors",
    "ground.files",
    "ground.nested",
    "ground.redact",
    "ground.table",
    "ground.validation",
    "loops.records",
    "methods",
    "networks.cost",
    "networks.counting",
    "search.discretise",
    "search.stages",
    "settings.config",
    "settings.recipes",
    "settings.warm_start",
    "studies.provenance",
    "supernets.shapley",
}


def sources(package: str) -> list[Path]:
    """The files of a package, without those of a package that lies in its folder."""
    others = [ROOT / other for other in NAMES if other.startswith(f"{package}/")]
    found = sorted((ROOT / package).rglob("*.py"))
    return [path for path in found if not any(path.is_relative_to(other) for other in others)]


def modules(package: str) -> list[str]:
    """Every module of a package by its dotted name, the package itself included."""
    names = []
    for path in sources(package):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join((NAMES[package], *parts[: -1 if parts[-1] == "__init__" else None])))
    return names


_IMPORT_EACH = """
import importlib, json, sys
found = {}
before = set()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    now = set(sys.modules)
    found[name] = sorted(now - before)
    before = now
print(json.dumps(found))
"""


def imported_by(names: list[str]) -> dict[str, set[str]]:
    """What each module loads first, when all are imported in turn in one fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_EACH, json.dumps(names)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: set(loaded) for name, loaded in json.loads(done.stdout).items()}


def offenders(names: list[str], forbidden: set[str]) -> dict[str, set[str]]:
    """Modules that load something forbidden first, and what; empty when nothing forbidden is loaded at all."""
    assert names
    return {name: bad for name, loaded in imported_by(names).items() if (bad := loaded & forbidden)}


def test_the_probe_sees_an_import(tmp_path: Path) -> None:
    assert "json" in imported_by(["json.decoder"])["json.decoder"]
    assert offenders(["ddarts_core.settings.config"], {"pydantic"}) == {"ddarts_core.settings.config": {"pydantic"}}


def test_core_knows_no_cluster_tracker_or_frames() -> None:
    upper = {"ddarts", "ddarts_tuning", "ddarts_analysis", "ddarts_cli"}
    assert offenders(modules("ddarts_core"), {"ray", "mlflow", "optuna", "pandas", *upper}) == {}


def test_ground_floor_needs_no_torch() -> None:
    names = [f"ddarts_core.{name}" for name in sorted(GROUND_FLOOR)]
    names += [name for name in modules("ddarts_core") if name.startswith("ddarts_core.methods.")]
    assert set(names) <= set(modules("ddarts_core"))
    assert offenders(names, {"torch", "torchvision", "sklearn"}) == {}


def test_analysis_reads_records_only() -> None:
    """Neither MLflow nor pyplot until they are asked for."""
    upper = {"torch", "torchvision", "ray", "optuna", "ddarts", "ddarts_tuning", "ddarts_cli"}
    assert offenders(modules("analysis"), {*upper, "mlflow", "matplotlib.pyplot"}) == {}


def test_tuning_stays_below_analysis_and_command_line() -> None:
    assert offenders(modules("tuning"), {"ddarts", "ddarts_analysis", "ddarts_cli"}) == {}


def test_commands_import_their_floor_when_they_run() -> None:
    names = ["ddarts", "ddarts_cli", "ddarts_cli.main", *(m for m in modules("ddarts_cli") if ".commands" in m)]
    heavy = {"torch", "ray", "optuna", "mlflow", "pandas", "pyarrow", "pydantic", "matplotlib", "numpy", "rich"}
    assert offenders(names, heavy) == {}


def test_the_api_stands_beside_the_command() -> None:
    """It is above all other floors, and prints nothing."""
    assert offenders(modules("ddarts_cli/api"), {"ddarts_cli", "click", "rich", "ray"}) == {}


def test_help_answers_at_once() -> None:
    """It loads nothing that takes time to load."""
    command = [sys.executable, "-X", "importtime", "-m", "ddarts_cli", "--help"]
    loaded = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    modules = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "click" in modules
    heavy = {"torch", "ray", "mlflow", "optuna", "pandas", "pyarrow", "numpy", "pydantic", "matplotlib", "rich"}
    assert not modules & heavy


@pytest.mark.parametrize("package", NAMES)
def test_every_module_belongs_to_an_installed_package(package: str) -> None:
    text = (ROOT / "setup.cfg").read_text()
    packages = text.partition("packages =")[2].partition("install_requires")[0].split()
    inner = {path.parent.relative_to(ROOT / package).parts for path in sources(package)}
    assert {".".join((NAMES[package], *parts)) for parts in inner} <= set(packages)


#: What a room of the core knows of rooms that need it, and imports when it is called, or for types: a method is data,
#: which names the modules of torch that compute its parts; a configuration asks its method for settings; what loads a
#: plug-in gives it the tables.
LATER = {
    ("ground", "extension"),
    ("methods", "loops"),
    ("methods", "networks"),
    ("methods", "search"),
    ("methods", "settings"),
    ("methods", "supernets"),
}


@pytest.mark.parametrize(("package", "permitted"), [("ddarts_core", LATER), ("tuning", set[tuple[str, str]]())])
def test_no_circle_between_rooms(package: str, permitted: set[tuple[str, str]]) -> None:
    """Neither among what is imported when a module is loaded nor, but for what is named above, among all imports."""
    loaded, later = architecture.rooms_above(ROOT / package)
    assert len(loaded) > 5
    assert permitted <= {(room, other) for room in later for other in later[room] - loaded[room]}
    for room, others in later.items():
        loaded[room] |= {other for other in others if (room, other) not in permitted}
    TopologicalSorter(loaded).prepare()  # raises CycleError, which names the circle


def test_the_page_on_architecture_is_that_of_the_sources() -> None:
    """It is what `python -m tests.architecture` writes."""
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.drawing()
    text = architecture.PAGE.read_text(encoding="utf-8")
    assert architecture.page(text) == text


_SEARCH_AND_TRAIN = """
import sys
from ddarts_core.settings.config import resolve
from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.training.retrain import Retrain
from ddarts_core.search.search import Search
search = {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 1, "batch_size": 20}
training = {"num_cells": 3, "channels": 2, "epochs": 1, "batch_size": 20}
augmented = {"num_train": 100, "crop_padding": 1, "flip": True, "cutout": 2}
config = resolve({"search": search, "retrain": training, "data": augmented})
info, images = load_train(config.data)
search = Search(config, info, split(images, config.data, 0))
list(search.records())
search.load_state_dict(search.state_dict())
list(Retrain(config.retrain, search.discretise().genotype, info, images, None, 0).records())
import ddarts_tuning.driver.sweep
import ddarts_tuning.trial.trainable
sys.exit("torch._dynamo" in sys.modules)
"""


def test_a_search_a_training_and_a_sweep_load_no_compiler() -> None:
    """Torch's takes as long to import as torch, in each process of a sweep; `torch.optim` alone would import it."""
    done = subprocess.run([sys.executable, "-c", _SEARCH_AND_TRAIN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
