"""The wheel, installed beside a project whose own folders have the names of ours in this repository."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ddarts_cli.commands.init import FILES
from ddarts_core import __version__
from tests.installed import ROOT, bare_environment, build_wheel, install

#: Searches and trainings of a second.
TINY = (
    "data.num_train=100",
    "search.num_cells=3",
    "search.steps=2",
    "search.channels=2",
    "search.warmup_epochs=0",
    "search.epochs=1",
    "search.batch_size=40",
    "retrain.channels=2",
    "retrain.epochs=1",
    "retrain.batch_size=40",
)
ONE = (
    "tracking.log_artifacts=false",
    "tune.num_samples=1",
    "tune.grace_period=1",
    "space={alpha.lr: {type: float, low: 0.06, high: 0.12}}",
)


@dataclass(frozen=True)
class Project:
    """A folder of a user's, and the command that is installed for it."""

    folder: Path
    bin: Path

    def run(self, *words: str, status: int = 0) -> str:
        """Run a program of the environment in the folder; what it printed."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON"))}
        env |= {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
        done = subprocess.run(
            [self.bin / words[0], *words[1:]], cwd=self.folder, env=env, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


def settings(*given: str) -> list[str]:
    return [word for setting in given for word in ("--set", setting)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    for name in ("analysis", "tuning", "experiments"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("OWNER = 'the user'\n")
    built = tmp_path_factory.mktemp("wheel")
    python = bare_environment(built / "venv")
    install(python, build_wheel(built))
    return Project(folder, python.parent)


def test_the_wheel_takes_no_name_of_a_user(project: Project) -> None:
    code = "import analysis, tuning, experiments as e; print(analysis.OWNER, tuning.OWNER, e.OWNER)"
    assert project.run("python", "-c", code).split() == ["the", "user"] * 3
    site = next((project.bin.parent / "lib").glob("python*/site-packages"))
    installed = {path.name for path in site.iterdir() if path.is_dir() and path.suffix != ".dist-info"}
    assert installed == {"ddarts", "ddarts_core", "ddarts_tuning", "ddarts_analysis", "ddarts_cli"}


def test_what_an_index_shows_of_the_wheel(project: Project) -> None:
    """The licence with its text, and the version, which only one file has; the newest in the changelog is no other."""
    (facts,) = (project.bin.parent / "lib").glob("python*/site-packages/ddarts-*.dist-info")
    lines = (facts / "METADATA").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    assert {"License-Expression: Apache-2.0", f"Version: {__version__}", "License-File: LICENSE"} <= set(lines)
    assert (facts / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    named = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert named[0] == "Unreleased" and (named[1:2] or [__version__]) == [__version__]


def test_first_steps_with_the_wheel(project: Project) -> None:
    """Every command of README's first steps, from the files that `ddarts init` writes."""
    assert "next:\n  ddarts search experiments/quickstart.yaml" in project.run("ddarts", "init")
    for name in FILES:
        assert (project.folder / "experiments" / name).read_bytes() == (ROOT / "experiments" / name).read_bytes()
    project.run("ddarts", "search", "experiments/quickstart.yaml", *settings(*TINY))
    project.run("ddarts", "sweep", "experiments/quickstart_sweep.yaml", *settings(*TINY, *ONE))
    project.run("ddarts", "report", "quickstart_sweep")
    project.run("ddarts", "export", "quickstart_sweep")
    runs = project.folder / "runs"
    assert (runs / "quickstart" / "genotype.json").is_file()
    study = runs / "quickstart_sweep"
    assert (study / "report.html").is_file() and list((study / "export").glob("*/genotype.json"))


def test_init_replaces_no_file_and_writes_none_beside_it(project: Project) -> None:
    mine = project.folder / "mine"
    mine.mkdir()
    (mine / FILES[1]).write_text("mine")
    assert f"mine/{FILES[1]} exists" in project.run("ddarts", "init", "mine", status=2)
    assert [path.name for path in mine.iterdir()] == [FILES[1]] and (mine / FILES[1]).read_text() == "mine"
