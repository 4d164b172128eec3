"""The documents name tests, functions, files and settings: whatever they name is there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import yaml
from ddarts_tuning.settings.config import load_sweep, resolve_sweep
from ddarts_tuning.settings.searchers import SEARCHERS
from ddarts_tuning.settings.tune import SCHEDULERS, TuneConfig

from ddarts_core.ground.nested import merge
from ddarts_core.ground.validation import field_paths
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.hashing import config_hash

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["published_code.md", "equations.md", "ablation.md", "extending.md"]
GROUPS = {path.split(".")[0] for path in field_paths(ExperimentConfig) if "." in path}


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def of_the_core(name: str) -> ModuleType | None:
    """A module of the core by its name alone, else a room: no two rooms have modules of the same name."""
    found = [*(ROOT / "ddarts_core").rglob(f"{name}.py"), *(ROOT / "ddarts_core").glob(f"{name}/__init__.py")]
    return importlib.import_module(".".join(found[0].relative_to(ROOT).with_suffix("").parts)) if found else None


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / "core" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_tests_exist(name: str) -> None:
    named = re.findall(r"(test_\w+\.py)::(test_\w+)", text(name))
    missing = [f"{file}::{function}" for file, function in named if function not in functions_of(file)]
    assert not missing
    assert named or name == "extending.md"


def test_equations_name_functions_that_exist() -> None:
    named = []
    for line in text("equations.md").splitlines():
        columns = line.split(" | ")
        if len(columns) == 4 and columns[0] not in ("| paper",):
            named += re.findall(r"`(\w+)\.([\w.]+)`", columns[2])
    assert len(named) > 25
    settings = set(field_paths(ExperimentConfig))
    for module, path in named:
        if f"{module}.{path}" in settings:
            continue
        found: object = of_the_core(module)
        for part in path.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_settings_and_files_exist(name: str) -> None:
    paths = set(field_paths(ExperimentConfig))
    for quoted in re.findall(r"`([^`\n]+)`", text(name)):
        setting = re.match(r"(?:--set )?([a-z_]+\.[a-z_0-9]+)(?::|=|$)", quoted)
        if setting and setting[1].split(".")[0] in GROUPS:
            assert setting[1] in paths or _in_module(setting[1]), quoted
        if quoted.startswith(("experiments/", "ddarts_core/", "analysis/", "tests/")):
            assert (ROOT / quoted.split("::")[0]).exists(), quoted


def _in_module(path: str) -> bool:
    """`search.Search` is a name in a module of the core, `search.epochs` a setting."""
    module, name = path.split(".")
    return hasattr(of_the_core(module), name)


def test_every_defect_has_its_row() -> None:
    rows = re.findall(r"^\| ([DP]\d+) \|", text("published_code.md"), flags=re.MULTILINE)
    assert rows == [f"D{i}" for i in range(1, 38)] + [f"P{i}" for i in range(1, 10)]


def test_the_defaults_that_the_ablation_page_states() -> None:
    defaults = ExperimentConfig().model_dump()
    rows = re.findall(r"^\| `([a-z_]+)\.([a-z_]+)` \| (\S+) \|", text("ablation.md"), flags=re.MULTILINE)
    assert {name for group, name, _ in rows if group == "ablation"} == set(defaults["ablation"])
    for group, name, stated in rows:
        default = defaults[group][name]
        assert stated.strip("`") == ("all" if default is None else str(default)), name


def test_results_belong_to_the_settings_of_today() -> None:
    """A setting that is new or has another default changes the hash: the experiments are to be run again then."""
    stated = re.findall(r"ddarts sweep (experiments/\S+\.yaml) .*hash (\w{12})", text("results.md"))
    assert len(stated) == 7
    for file, of_results in stated:
        assert config_hash(load_sweep(ROOT / file)) == of_results, file


def test_the_tables_of_the_page_on_sweeps() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", text("sweeps.md"), flags=re.MULTILINE))
    budgets = get_args(TuneConfig.model_fields["budget"].annotation)
    stated = {**{name: searcher.summary for name, searcher in SEARCHERS.items()}, **SCHEDULERS}
    assert {name for name in rows if name not in stated} == set(budgets)
    assert {name: rows[name] for name in rows if name not in budgets} == stated


def test_the_examples_of_the_page_on_sweeps() -> None:
    """The first is a whole sweep; the others are parts of one."""
    first, *parts = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", text("sweeps.md"), re.DOTALL)]
    assert len(parts) == 5
    for part in ({}, *parts):
        assert resolve_sweep(merge(first, part)).space.keys() == first["space"].keys()
    named = re.findall(r"^\| `(\{type: .+?\})` \|", text("sweeps.md"), flags=re.MULTILINE)
    drawn = {"float": "search.lr", "int": "search.num_cells", "categorical": "ablation.loss"}
    space = {drawn[example["type"]]: example for example in map(yaml.safe_load, named)}
    assert len(resolve_sweep({"space": space}).build_space().paths) == len(drawn)
