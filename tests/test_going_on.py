"""Folders of a search and of a retrain: gone on with after an interruption, replaced, refused; nothing is mixed."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ddarts_cli.folders import LAST, RetrainFolder, RunFolder, SearchFolder, TransferFolder
from ddarts_cli.main import run
from ddarts_cli.models import cost_command, find_weights
from ddarts_core.data.sets import data_info
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.random_genotype import random_genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.search.search import Search
from ddarts_core.settings.config import resolve
from ddarts_core.training.retrain import Retrain
from tests.analysis.conftest import write_study, write_trial

ROOT = Path(__file__).parent.parent
TINY = {
    "name": "tiny",
    "data": {"name": "digits", "num_train": 100},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 2, "batch_size": 20, "device": "cpu"},
    "retrain": {"epochs": 2, "channels": 2, "batch_size": 50, "device": "cpu"},
}
GENOTYPE = {
    "schema": 1,
    "layout": "individual",
    "reductions": [1],
    "cells": [{"edges": [["skip_connect", 0, 2]], "concat": [2]}] * 3,
}
CELL = Cell((Edge(2, 0, "skip_connect"), Edge(3, 1, "sep_conv_3x3"), Edge(3, 2, "skip_connect")), (2, 3))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with the experiment `tiny.yaml` and the genotype `g.json`."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    (tmp_path / "g.json").write_text(json.dumps(GENOTYPE))
    return tmp_path


@pytest.fixture
def retrain(tiny: Path) -> list[str]:
    """`ddarts retrain` of that genotype to the folder `r`."""
    return ["retrain", str(tiny / "g.json"), "--config", str(tiny / "tiny.yaml"), "--out", str(tiny / "r")]


@pytest.fixture
def search(tiny: Path) -> list[str]:
    """`ddarts search --retrain` to the folder `s`."""
    return ["search", str(tiny / "tiny.yaml"), "--retrain", "--out", str(tiny / "s")]


def test_a_printed_command_takes_any_path(
    tiny: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny)
    out = tiny / "a folder; with 'all'"
    assert run(["search", str(tiny / "tiny.yaml"), "--out", str(out)]) == 0
    lines = capfd.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines[lines.index("next:") + 1 :]]
    assert [words[:3] for words in commands] == [
        ["ddarts", "retrain", str(out / "genotype.json")],
        ["ddarts", "cost", str(out / "genotype.json")],
    ]
    for words in commands:
        assert run(words[1:]) == 0
    study = write_study(tiny / "my runs" / "mine")
    info = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**info, "state": "RUNNING"}))
    write_trial(study, 0, "RUNNING")
    assert run(["status", str(study)]) == 0
    shown = capfd.readouterr().out
    assert shlex.split(shown.splitlines()[-1]) == ["go", "on:", "ddarts", "resume", str(study)]
    assert "1 stopped" in shown and "running" not in shown


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["retrain.reductions=[]"],
        ["retrain.reductions=[0,2]", "retrain.channels=8"],
        ["search.num_cells=5", "retrain.num_cells=9", "retrain.derive_order=published"],
        ["retrain.form=imagenet", "data.name=cifar100", "retrain.reductions=thirds"],
    ],
)
def test_the_printed_cost_is_that_of_the_network_that_is_trained(
    overrides: list[str], tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = resolve(TINY, overrides)
    genotype = random_genotype(Genotype((CELL,) * config.search.num_cells, config.search.reduction_positions), 0)
    (tiny / "other.json").write_text(genotype.to_json())
    assert run([*shlex.split(cost_command(tiny / "other.json", config, data_info(config.data)))[1:], "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    counted = retrain_cost(genotype, config).to_dict()
    assert {key: shown[key] for key in counted} == counted


def mistake(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one sentence of a command that must fail with status 2."""
    capfd.readouterr()
    status = run(arguments)
    err = capfd.readouterr().err
    assert status == 2 and err.startswith("Error: ") and err.count("\n") == 1, err
    return err


def interrupted(arguments: list[str], capfd: pytest.CaptureFixture[str], loop: type, after: int) -> list[str]:
    """Let Ctrl-C reach a command when `loop` has done so many epochs; the arguments of the command that it prints."""
    whole = loop.records

    def records(self: Search | Retrain) -> Iterator[EpochRecord]:
        for _, record in zip(range(after), whole(self), strict=False):
            yield record
        raise KeyboardInterrupt

    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "records", records)
        assert run(arguments) == 130
    (line,) = (line for line in capfd.readouterr().out.splitlines() if line.startswith("go on: "))
    program, *words = shlex.split(line.removeprefix("go on: "))
    assert program == "ddarts"
    return words


def content(folder: Path) -> dict[str, bytes]:
    """Every file by its name, but for what a clock wrote."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("timings.csv", "checkpoint.pt"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loop", "after"), [(Search, 0), (Retrain, 1)])
def test_the_command_that_an_interrupted_search_prints_goes_on(
    tiny: Path, search: list[str], capfd: pytest.CaptureFixture[str], loop: type, after: int
) -> None:
    """In the first epoch there is no checkpoint yet; in the retrain the search is done."""
    settings = ["--set", "data.root=two words"]
    words = interrupted([*search, *settings], capfd, loop, after)
    assert words == [*search, *settings, "--resume"]
    assert interrupted([*search, *settings, "--force"], capfd, loop, after) == words
    assert run(words) == 0
    assert run([*search[:-1], str(tiny / "whole"), *settings]) == 0
    assert content(tiny / "s") == content(tiny / "whole")
    assert run(words) == 0  # done
    assert "holds a finished search" in mistake(capfd, [*search, *settings])


def test_the_command_that_an_interrupted_retrain_prints_goes_on(
    tiny: Path, retrain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    words = interrupted(retrain, capfd, Retrain, 1)
    assert words == [*retrain, "--resume"]
    assert run(words) == 0
    assert run([*retrain[:-1], str(tiny / "whole")]) == 0
    assert content(tiny / "r") == content(tiny / "whole")


def test_what_was_not_begun_is_not_resumed(
    tiny: Path, search: list[str], retrain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments in (search, retrain):
        assert "nothing to resume" in mistake(capfd, [*arguments, "--resume"])
    assert not (tiny / "s").exists() and not (tiny / "r").exists()


def test_other_settings_are_named_with_both_values(
    tiny: Path, search: list[str], retrain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    interrupted(search, capfd, Search, 1)
    interrupted(retrain, capfd, Retrain, 1)
    before = content(tiny)
    err = mistake(capfd, [*search, "--resume", "--set", "search.lr=0.02", "--set", "seed=9", "--set", "name=other"])
    assert "seed was 0, is 9; search.lr was 0.005, is 0.02;" in err and str(tiny / "s") in err and 'tiny"' not in err
    err = mistake(capfd, [*retrain, "--resume", "--set", "retrain.lr=0.1"])
    assert "retrain.lr was 0.05, is 0.1;" in err and str(tiny / "r") in err
    other = {**GENOTYPE, "cells": [{"edges": [["sep_conv_3x3", 0, 2]], "concat": [2]}] * 3}
    (tiny / "other.json").write_text(json.dumps(other))
    assert "another genotype" in mistake(capfd, ["retrain", str(tiny / "other.json"), *retrain[2:], "--resume"])
    (tiny / "other.json").unlink()
    assert content(tiny) == before


@pytest.mark.parametrize("begun", [True, False])
def test_a_second_ctrl_c_does_not_hide_how_a_sweep_goes_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], begun: bool
) -> None:
    """Ray takes the first one; the second comes out of the sweep. Without a study there is nothing to go on with."""
    study = tiny / "two words" / "tiny"

    def run_sweep(*_: object, **__: object) -> None:
        if begun and not study.exists():
            write_study(study)
        raise KeyboardInterrupt

    monkeypatch.setattr("ddarts_tuning.driver.sweep.run_sweep", run_sweep)
    monkeypatch.setattr("ddarts_tuning.driver.sweep.resume_sweep", run_sweep)
    space = "space={search.lr: {type: float, low: 0.1, high: 0.2}}"
    assert run(["sweep", str(tiny / "tiny.yaml"), "--set", space, "--set", f"storage={study.parent}"]) == 130
    line = f"go on: ddarts resume '{study}'\n"
    assert (line in capfd.readouterr().out) == begun
    if begun:
        assert run(["resume", str(study)]) == 130
        assert line in capfd.readouterr().out


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    code = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
sys.argv = ["ddarts", "methods"]
from ddarts_cli.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


# --- replaced ---------------------------------------------------------------------------------------------------------


def test_a_replaced_retrain_leaves_nothing_behind(
    tiny: Path, retrain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither weights nor a random genotype nor an export of the one before; files of others stay."""
    assert run([*retrain, "--seeds", "2", "--random-baseline"]) == 0
    assert run(["export", str(tiny / "r")]) == 0
    (tiny / "r" / "export" / "notes").write_text("mine")
    (tiny / "r" / "genotype-seed-x").mkdir()
    settings = ["--set", "seed=5", "--set", "retrain.lr=0.1"]
    assert run([*retrain, *settings, "--force"]) == 0
    assert {path.name for path in (tiny / "r").iterdir()} == {
        *("config.yaml", "data.json", "genotype.json", "result.json", "confusion.json", "mistakes.json"),
        *("genotype-seed-5", "genotype-seed-x", "export"),
    }
    assert [path.name for path in (tiny / "r" / "export").iterdir()] == ["notes"]
    assert run(["export", str(tiny / "r")]) == 0
    assert "trained with seed 5" in (tiny / "r" / "export" / "README.md").read_text()


def test_weights_are_those_of_a_seed_that_the_result_lists(tiny: Path, retrain: list[str]) -> None:
    assert run([*retrain, "--set", "seed=5"]) == 0
    stale = tiny / "r" / "genotype-seed-0"
    stale.mkdir()
    checkpoint.save(stale / "weights.pt", {})
    (tiny / "r" / "genotype-seed-x").mkdir()
    (tiny / "r" / "genotype-seed-x" / "weights.pt").touch()
    weights = find_weights(tiny / "r")
    assert weights is not None and weights.seed == 5
    (tiny / "r" / "config.yaml").write_text("serch: {}")
    with pytest.raises(UserError, match=r"r/config\.yaml.*serch"):
        find_weights(tiny / "r")


def test_a_search_is_replaced_with_its_retrain(
    tiny: Path, search: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(search) == 0
    settings = ["--set", "seed=3"]
    words = interrupted([*search, *settings, "--force"], capfd, Search, 1)
    assert run(words) == 0
    assert [path.name for path in (tiny / "s" / "retrain").glob("*-seed-*")] == ["genotype-seed-3"]


def test_a_retrain_that_is_there_is_refused_before_the_search(
    tiny: Path, search: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["retrain", str(tiny / "g.json"), "--config", search[1], "--out", str(tiny / "s" / "retrain")]) == 0
    before = content(tiny)
    assert "holds a finished retrain" in mistake(capfd, search)
    assert content(tiny) == before


def test_a_folder_of_the_other_kind_is_refused(
    tiny: Path, search: list[str], retrain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([word for word in search if word != "--retrain"]) == 0
    assert run(retrain) == 0
    before = content(tiny)
    assert "holds a search" in mistake(capfd, [*retrain[:-1], str(tiny / "s"), "--force"])
    assert "holds a retrain" in mistake(capfd, [*search[:-1], str(tiny / "r"), "--force"])
    assert content(tiny) == before


@pytest.mark.parametrize("kind", [SearchFolder, RetrainFolder, TransferFolder])
def test_every_kind_of_folder_is_refused_to_the_others(kind: type[RunFolder], tmp_path: Path) -> None:
    """Also with --force, which replaces a run of the same kind only."""
    for name, what in {**LAST, "study.json": "study of a sweep"}.items():
        folder = tmp_path / what
        folder.mkdir()
        (folder / name).write_text("{}")
        if what == kind.what:
            kind(folder).check(resolve({}), resume=False, force=True)
            with pytest.raises(UserError, match=f"holds a finished {what}: write elsewhere"):
                kind(folder).check(resolve({}), resume=False, force=False)
        else:
            with pytest.raises(UserError, match=f"holds (a|the) {what}: choose another folder"):
                kind(folder).check(resolve({}), resume=False, force=True)


# --- refused ----------------------------------------------------------------------------------------------------------


REFUSED = [
    (["--cells", "2"], "cannot derive 2 cells"),
    (["--set", "retrain.batch_size=300"], "retrain.batch_size 300 exceeds the 100 images of split train"),
    (["--set", "retrain.validation_fraction=0.999"], "retrain.validation_fraction"),
    (["--set", "retrain.validation_fraction=0.5", "--set", "retrain.batch_size=60"], "exceeds the 50 images"),
    (["--set", "retrain.amp=fp16"], "retrain.amp fp16"),
    (["--set", "retrain.reductions=[7]"], "reductions"),
]


def test_a_retrain_that_is_refused_changes_no_folder(
    tiny: Path, retrain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in REFUSED:
        assert words in mistake(capfd, [*retrain, *arguments])
        assert not (tiny / "r").exists()
    assert run(retrain) == 0
    before = content(tiny)
    for arguments, words in REFUSED:
        assert words in mistake(capfd, [*retrain, *arguments, "--force"])
        assert content(tiny) == before


@pytest.mark.parametrize("setting", ["retrain.batch_size=300", "retrain.validation_fraction=0.999", "retrain.amp=fp16"])
def test_what_the_retrain_would_refuse_is_refused_before_the_search(
    tiny: Path, search: list[str], capfd: pytest.CaptureFixture[str], setting: str
) -> None:
    assert setting.partition("=")[0] in mistake(capfd, [*search, "--set", setting])
    assert not (tiny / "s").exists()


# --- next -------------------------------------------------------------------------------------------------------------


def test_the_next_commands_of_a_retrain_run(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With more seeds in the same folder; what is trained already is kept, whatever is asked for then."""
    folder = tiny / "two words"
    given = ["retrain", str(tiny / "g.json"), "--config", str(tiny / "tiny.yaml"), "--out", str(folder)]
    assert run([*given, "--set", "retrain.epochs=1", "--set", "seed=2"]) == 0
    weights = (folder / "genotype-seed-2" / "weights.pt").read_bytes()
    lines = capfd.readouterr().out.partition("next:\n")[2].splitlines()
    commands = [shlex.split(line)[1:] for line in lines]
    assert [words[0] for words in commands] == ["export", "cost", "retrain"]
    for words in commands:
        assert run(words) == 0
    assert "--random-baseline" not in capfd.readouterr().out.rpartition("next:\n")[2]
    result = json.loads((folder / "result.json").read_text())
    assert result["seeds"] == [2, 3, 4, 5] and set(result["test"]) == {"genotype", "random"}
    assert (folder / "genotype-seed-2" / "weights.pt").read_bytes() == weights
    before = content(folder)
    assert run([*given, "--set", "retrain.epochs=1", "--set", "seed=2", "--resume"]) == 0
    assert content(folder) == before
