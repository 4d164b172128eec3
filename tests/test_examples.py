"""Examples in the help of every command: each is understood, and what needs neither minutes nor a server is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from PIL import Image

from ddarts_cli.commands.init import FILES
from ddarts_cli.main import COMMANDS, cli, run
from ddarts_core.genotypes.zoo import resolve_genotype
from tests.analysis.conftest import write_study, write_trial

#: What takes minutes, serves, measures, or needs code or weights of somebody's; other tests run these commands.
ELSEWHERE = {"init", "search", "sweep", "resume", "retrain", "transfer", "predict", "estimate", "op-weights"}
ELSEWHERE |= {"check-plugin", "rebuild", "truth", "regret", "ui"}

#: Of the other commands, the examples that need what only those of `ELSEWHERE` make, a server or a compiler's time.
MADE_ELSEWHERE = re.compile(r"-0123456789ab|://|--register|weights\.json|/srv/|--onnx|--program")

TINY = {
    "name": "quickstart",
    "data": {"name": "digits"},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 1, "batch_size": 32},
    "discretise": {"on_dead_cell": "connect"},
}


def parsed(called: str, *arguments: str) -> click.Context:
    """What click makes of a command's words, without running it."""
    group = click.Context(cli, obj=[])
    command = cli.get_command(group, called)
    assert command is not None, called
    return command.make_context(called, list(arguments), parent=group)


def printed(name: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The help of a command."""
    assert run([name, "--help"]) == 0
    return capfd.readouterr().out


def examples_of(text: str) -> list[list[str]]:
    """The words of each example in the help of a command, without `ddarts`."""
    found = re.findall(
        r"^ +(?:eval \"\$\()?ddarts ([^>)\n]+)", text.partition("Examples:")[2].partition("Options:")[0], re.M
    )
    return [shlex.split(words) for words in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which somebody has worked: what the examples name lies there."""
    folder, before = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(folder)
    assert run(["init"]) == 0
    Path("my.yaml").write_text(yaml.safe_dump(TINY))
    assert run(["search", "my.yaml", "--out", "runs/quickstart", "--set", "data.num_train=200"]) == 0
    shutil.copytree("runs/quickstart", "runs/search")
    for number, name in enumerate(("genotype.json", "other.json"), start=1):
        Path(name).write_text(resolve_genotype(f"zoo:DARTS_V{number}").to_json())
    for name in ("quickstart_sweep", "methods_digits", "limited", "first", "second"):
        study = write_study(Path("runs", name))
        for number in range(4):  # the third of the quickstart's sweep was stopped early
            trial = write_trial(study, number, "PRUNED" if number == 2 else "COMPLETED") / "trial.json"
            if name == "methods_digits" and number % 2:
                info = json.loads(trial.read_text())
                trial.write_text(json.dumps({**info, "config": {**info["config"], "method": "random"}}))
        info = json.loads((study / "study.json").read_text())
        info["config"]["tune"]["limits"] = {"parameters": 10**6} if name == "limited" else {}
        (study / "study.json").write_text(json.dumps(info))
    for number in range(160):
        picture = Path("photos", "ab"[number % 2], f"{number}.png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(picture)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_the_help_of_a_command_do_what_they_say(
    name: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    examples = examples_of(printed(name, capfd))
    assert any(called == name for called, *_ in examples)
    for called, *arguments in examples:
        assert parsed(called, *arguments)
        if called not in ELSEWHERE and not MADE_ELSEWHERE.search(shlex.join(arguments)):
            assert run([called, *arguments]) == 0, (called, arguments, capfd.readouterr().err)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_help_names_no_file_that_a_wheel_lacks(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"] if name else ["--help"]) == 0
    text = capfd.readouterr().out
    assert set(re.findall(r"experiments/([\w.]+)", text)) <= set(FILES)
    assert "docs/" not in text


def test_the_help_names_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capfd.readouterr().out
    assert all(name in text for name in COMMANDS)
