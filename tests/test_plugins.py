"""Plug-ins: what the documents' one adds is searched with, whatever is wrong is refused whole, and nothing stays."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ddarts
import pytest
import torch
import yaml
from ddarts import plugins as for_plugins
from ddarts_analysis.drawing import cell_figure

from ddarts_cli.main import cli, run
from ddarts_core import methods
from ddarts_core.data.sets import load_train
from ddarts_core.extension.conformance import goes_on, laws, unlawful
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import OPERATION_NAMES, SPACES
from ddarts_core.ground import plugin_files, plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.operations import build
from ddarts_core.search.search import Search, build_search
from ddarts_core.settings import data_settings, retrain_settings
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.training.retrain import Retrain

TINY: Mapping[str, Any] = {
    "name": "tiny",
    "method": "entropic",
    "data": {"name": "digits", "num_train": 150},
    "search": {"num_cells": 3, "channels": 4, "steps": 1, "epochs": 1, "batch_size": 30, "device": "cpu"},
    "retrain": {"epochs": 1, "channels": 4, "batch_size": 30},
}


def code_of_the_documents() -> str:
    text = Path("docs/extending.md").read_text()
    (code,) = re.findall(r"```python\n(from pydantic import Field\n.*?)```", text, re.S)
    return str(code)


@pytest.fixture
def my_plugin(tmp_path: Path) -> Path:
    path = tmp_path / "my_plugin.py"
    path.write_text(code_of_the_documents())
    return path


def entries() -> dict[str, list[str]]:
    """Names of all tables that a plug-in may add to."""
    from ddarts_core.data.sets import DATASETS
    from ddarts_core.networks.operations import OPERATIONS

    tables = {table.kind: list(table) for table in (*methods.TABLES.values(), methods.METHODS, SPACES, DATASETS)}
    return {
        **tables,
        "operation": list(OPERATIONS),
        "names": sorted(OPERATION_NAMES),
        "sets": list(data_settings.DATA_SETS),
    }


@pytest.fixture
def unchanged() -> Iterator[None]:
    """The test leaves neither an entry nor a module nor a folder to import from."""
    before, modules, path = entries(), {"my_plugin", "my_package"} & set(sys.modules), list(sys.path)
    yield
    assert (entries(), {"my_plugin", "my_package"} & set(sys.modules), sys.path) == (before, modules, path)


def test_a_search_and_a_training_with_the_plugin_of_the_documents(
    my_plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its genotype is written, drawn, read and trained; in the readable form it is the same, byte for byte."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    assert run(["search", "tiny.yaml", "--plugin", "my_plugin.py", "--out", "found", "--retrain"]) == 0
    printed = capsys.readouterr().out
    (following,) = [line for line in printed.splitlines() if line.startswith("  ddarts retrain")]
    assert shlex.split(following)[-2:] == ["--plugin", "my_plugin.py"]
    (plugin,) = plugins.loaded()
    stated = f"sha256 {plugin.source.sha256}"
    for file in ("found/search.json", "found/retrain/result.json"):
        assert json.loads(Path(file).read_text())["versions"]["plug-in my_plugin"] == stated
    readable = ["--set", "search.implementation=readable"]
    assert run(["--plugin", "my_plugin.py", "search", "tiny.yaml", "--out", "readable", *readable]) == 0
    for file in ("genotype.json", "records.parquet"):
        assert Path("found", file).read_bytes() == Path("readable", file).read_bytes(), file

    chosen = ["--set", "discretise.rule=triple", "--set", "search.gates=sigmoid"]
    assert run(["config", "tiny.yaml", *chosen]) == 0 and "rule: triple" in capsys.readouterr().out
    assert run(["export", "found/retrain"]) == 0
    export = Path("found/retrain/export")
    assert "--seeds 1 --out retrain --plugin my_plugin.py\n" in (export / "README.md").read_text()
    capsys.readouterr()
    assert run(["export", "found"]) == 0
    assert re.search(r"\n  ddarts retrain .* --plugin my_plugin\.py\n$", capsys.readouterr().out)
    assert json.loads((export / plugins.FILE).read_text()) == {"plugins": plugins.records()}
    plugins.unload(plugin)

    def refused(*words: str) -> str:
        capsys.readouterr()
        assert run([*words]) == 2
        return capsys.readouterr().err

    assert "unknown method 'entropic': choose one of" in refused("search", "tiny.yaml", "--out", "without")
    assert not Path("without").exists()
    going_on = (
        ("search", "tiny.yaml", "--out", "found", "--resume"),
        ("retrain", "found/genotype.json", "--config", "found/config.yaml", "--out", "found/retrain", "--resume"),
    )
    reading = (("report", "found"), ("status", "found"), ("export", "found/retrain"), ("draw", "found/genotype.json"))
    missing = f"was made with the plug-in 'my_plugin' (sha256 {plugin.source.sha256[:12]}), which is not loaded: give"
    for words in (*going_on, *reading, ("predict", str(export), "my_plugin.py")):
        assert missing in refused(*words), words
    with pytest.raises(UserError, match=f"{export}/weights.safetensors was made with the plug-in 'my_plugin'"):
        ddarts.load_export(export)
    before = Path("found/config.yaml").read_bytes(), Path("found/retrain/result.json").read_bytes()
    my_plugin.write_text(my_plugin.read_text() + "# changed")
    for words in going_on:
        assert "with another content of the plug-in 'my_plugin': its" in refused(*words, "--plugin", "my_plugin.py")
    assert (Path("found/config.yaml").read_bytes(), Path("found/retrain/result.json").read_bytes()) == before
    assert run(["draw", "found/genotype.json", "--out", "found.svg"]) == 0  # to look at it, the names will do


def test_an_operation_of_a_plugin_is_drawn_by_its_name(my_plugin: Path) -> None:
    plugins.load(str(my_plugin))
    figure = cell_figure(Cell((Edge(2, 0, "grouped_conv_3x3"), Edge(2, 1, "skip_connect")), concat=(2,)))
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert "grouped_co…" in shown and "skip" in shown and "grouped_conv_3x3" in shown  # the last one in the legend


def test_every_command_takes_a_plugin() -> None:
    for name in cli.list_commands(None):  # type: ignore[arg-type]  # click asks for a context that it does not read
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert [option.name for option in command.params].count("plugin") == 1, name


REGISTERED = "def register(tables):\n    tables.space('S_first', ('skip_connect', 'sep_conv_3x3'))\n    "


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "plug-in 'my_plugin': it has no function `register`: give it one that takes the tables"),
        ("import nowhere_at_all", "plug-in 'my_plugin' failed in my_plugin.py, line 1: ModuleNotFoundError: No module"),
        ("import sys; sys.exit(3)", "plug-in 'my_plugin' failed in my_plugin.py, line 1: SystemExit: 3"),
        (
            "import helpers",
            "No module named 'helpers'; helpers lies beside it, and a plug-in of one file is run with",
        ),
        ("def register(tables:", "plug-in 'my_plugin' failed in my_plugin.py, line 1: SyntaxError"),
        ("def register(): pass", "plug-in 'my_plugin' failed"),
        ("1 / 0", "in my_plugin.py, line 3: ZeroDivisionError: division by zero"),
        ("tables.space('S', ('skip_connect',))", "there is a search space 'S' already: choose another name"),
        ("tables.space('S_2', ('skip', 'none'))", "space 'S_2' names an unknown operation 'skip': register it first"),
        ("tables.space('S_2', ('none',))", "space 'S_2' has no operation but none"),
        ("tables.space('S_2', 'skip_connect')", "give a list of names of operations, not 'skip_connect'"),
        ("tables.space('S_2', ['skip_connect'] * 2)", "space 'S_2' names an operation twice"),
        ("tables.operation('sep_conv_3x3', lambda c, s, a: None)", "there is an operation 'sep_conv_3x3' already"),
        ("tables.operation('mine', lambda c: None)", "operation 'mine': give a function (channels, stride, affine)"),
        ("tables.operation('two words', print)", "the name 'two words' of an operation should be up to 100 letters"),
        ("tables.method('mine', {'search': {}})", "method 'mine': give a ddarts.plugins.Method, not {'search'"),
        (
            "from ddarts_core.methods import Method; tables.method('mine', Method('a', 'b', {'search': {'epoch': 1}}))",
            "method 'mine': unknown setting 'search.epoch'; did you mean",
        ),
        ("tables.part(dict)", "give a subclass of one of Network, Gates, Edge, Regulariser, Ablation, Plan, Freezing"),
        ("from ddarts_core.methods import parts; tables.part(parts.Gates)", "part Gates has no name: give it one"),
        ("tables.data_set('mine')", "data set 'mine' has no name: give a Published or an OwnImages"),
    ],
)
def test_what_a_plugin_may_not_do(code: str, words: str, tmp_path: Path, unchanged: None) -> None:
    """One sentence says what and where, and nothing that was registered before it stays."""
    path = tmp_path / "my_plugin.py"
    (tmp_path / "helpers.py").touch()
    path.write_text(code if code.partition(" ")[0] in ("", "import", "def") else f"{REGISTERED}{code}\n")
    with pytest.raises(UserError) as refused:
        plugins.load(str(path))
    said = str(refused.value)
    assert words in said and "\n" not in said
    assert plugins.loaded() == ()


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nowhere.py", "cannot read the plug-in nowhere.py: No such file or directory"),
        ("json.py", "plug-in json.py: Python has a module 'json' already: rename the file"),
        ("two-words.py", "plug-in two-words.py: its name cannot be that of a Python module: rename it"),
        ("./folder", "plug-in folder: the folder has no __init__.py"),
        ("folder", "plug-in folder: the folder has no __init__.py"),
        ("./json", "plug-in json: Python has a module 'json' already: rename the folder"),
        (
            "json_",
            "no plug-in 'json_': it is neither a Python file, a package's folder nor an installed module; a file",
        ),
        ("mine", "nor an installed module; there is a file of this name: give mine.py"),
    ],
)
def test_what_is_no_plugin(
    reference: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchanged: None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("json").mkdir()
    Path("json", "__init__.py").write_text("")
    for name in ("json.py", "two-words.py", "mine.py"):
        Path(name).write_text("")
    with pytest.raises(UserError, match=re.escape(words)):
        plugins.load(reference)


def test_a_package_is_a_plugin_with_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchanged: None
) -> None:
    """By its folder or, installed, by its name; its hash is of the content, wherever the folder lies."""
    for place in ("here", "there"):
        package = tmp_path / place / "my_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from .inner import register\n")
        (package / "inner.py").write_text(
            f"from .names import SPACE\n{REGISTERED}tables.space(SPACE, ['skip_connect'])\n"
        )
        (package / "names.py").write_text("SPACE = 'S_second'\n")
    monkeypatch.chdir(tmp_path / "here")
    given = plugins.load("my_package")
    assert given.registry.names == {"space": ["S_first", "S_second"]} and given.folder is not None
    assert plugins.load(str(tmp_path / "here" / "my_package")) is given
    (tmp_path / "there" / "my_package" / "names.py").write_text("SPACE = 'S_third'\n")
    differs = r"'my_package' with another content \(changed, new or gone: my_package/names.py\) is loaded already"
    with pytest.raises(UserError, match=differs):
        plugins.load(str(tmp_path / "there" / "my_package"))
    plugins.unload(given)
    with monkeypatch.context() as patched:  # what is installed counts before a folder of its name
        patched.syspath_prepend(str(tmp_path / "there"))
        installed = plugins.load("my_package")
        assert installed.folder is None and "S_third" in SPACES
        plugins.unload(installed)
        del sys.modules["my_package"], sys.modules["my_package.inner"], sys.modules["my_package.names"]
    monkeypatch.setattr(plugin_files, "MOST_BYTES", 10)
    with pytest.raises(UserError, match="its files take more than"):
        plugins.load(str(tmp_path / "here" / "my_package"))


def test_what_is_no_file_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchanged: None) -> None:
    """Hidden files, and those of editors and of Python, neither count nor change it; what its code may read does."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text(f"{REGISTERED}pass\n")
    (package / "widths.json").write_text("[4, 8]")
    without = plugin_files.source_at(package)
    assert set(without.files) == {"my_package/__init__.py", "my_package/widths.json"} and not without.earlier
    left = [".git/HEAD", ".__init__.py.swp", "__init__.py~", ".ipynb_checkpoints/a.py", "#a.py#", "a.bak"]
    for name in (*left, "__pycache__/a.pyc"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(b"of another program")
    plugin = plugins.load(str(package))
    assert plugin.source.sha256 == without.sha256 and plugin.folder is not None
    assert {path.name for path in plugin.folder.glob("my_package/*")} >= {"__init__.py", "widths.json"}
    assert not (plugin.folder / "my_package" / ".git").exists()

    every = {f"my_package/{name}": (package / name).read_bytes() for name in (*left, "__init__.py", "widths.json")}
    of_then = {"name": "my_package", "sha256": plugin_files.Source("my_package", every).sha256}
    plugins.require([of_then], "a study of an earlier version")
    (plugin_record,) = plugins.records()
    plugins.require([plugin_record], "a study")
    plugins.unload(plugin)

    monkeypatch.setattr(plugin_files, "MOST_BYTES", sum(map(len, without.files.values())))
    (package / ".git" / "HEAD").write_text("another commit")
    plugin = plugins.load(str(package))  # what does not count does not count towards the most either
    plugins.require([plugin_record], "a study")
    with pytest.raises(UserError, match="was made with another content of the plug-in 'my_package': its sha256 was"):
        plugins.require([of_then], "a study of an earlier version")
    plugins.unload(plugin)
    (package / "widths.json").write_text("[4, 9]")
    (package / "new.py").touch()
    plugin = plugins.load(str(package))
    differ = r"it is \w{12} \(changed, new or gone: my_package/new.py, my_package/widths.json\); give the files of then"
    with pytest.raises(UserError, match=differ):
        plugins.require([plugin_record], "a study")
    plugins.unload(plugin)


# --- check-plugin ---------------------------------------------------------------------------------------------------


def test_the_plugin_of_the_documents_keeps_all_laws(my_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-plugin", str(my_plugin)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("plug-in my_plugin, sha256 ") and all(line.startswith("kept: ") for line in lines)
    found = [line.split(": ")[1] for line in lines]
    methods_laws = ["method entropic"] * 3
    assert found == [*["operation grouped_conv_3x3"] * 4, "space S_grouped", "rule triple", *methods_laws]


def test_what_a_plugin_imports_is_there() -> None:
    assert [name for name in for_plugins.__all__ if not hasattr(for_plugins, name)] == []


LAWLESS = """
from torch import nn

from ddarts_core.data.sets import DataInfo, Published
from ddarts_core.methods import Method, common, darts, parts, rules
from ddarts_core.ground.nested import merge
from ddarts_core.supernets.supernet import MixedOp


class Careless(nn.Module):
    def __init__(self, channels, stride, affine):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.register_buffer("passes", self.norm.weight.new_zeros(1))

    def forward(self, x):
        self.passes += 1
        return self.norm(x)


class Twice(MixedOp):
    def forward(self, x, gates):
        return 2 * super().forward(x, gates)


class Double(parts.Edge):
    name, summary = "double", "twice the mixed operation"

    def build(self, names, channels, stride):
        return Twice(names, channels, stride)


class Modest(rules.Complete):
    name, summary = "modest", "says one and keeps two"
    most_operations = 2

    def select(self, scores, operations, steps):
        Modest.most_operations = 2
        chosen = super().select(scores, operations, steps)
        Modest.most_operations = 1
        return chosen


class Wrong(parts.Regulariser):
    name, summary = "wrong", "has another gradient than its value"

    def value(self, parameters, gates):
        return (gates**2).sum((1, 2))

    def gradient(self, parameters, gates_of):
        return {name: values * 0 for name, values in parameters.items()}


class Counting(common.Softmax):
    name, summary = "counting", "gates that depend on how often they were asked"
    asked = 0

    def gates(self, parameters, progress):
        Counting.asked += 1
        return (parameters["alphas"] * Counting.asked).softmax(-1)


def read(root, train):
    raise OSError("nothing there")


def register(tables):
    tables.operation("careless", Careless)
    tables.space("S_careless", ["careless", "skip_connect"])
    tables.part(Double)
    tables.part(Modest)
    own = {"regularisers": {"wrong": {"weight": 1.0}}}
    tables.method("slanted", Method("a", "b", merge(darts.SETTINGS, {"search": own}), parts=(Wrong,)))
    forgetful = merge(darts.SETTINGS, {"search": {"gates": "counting"}})
    tables.method("forgetful", Method("a", "b", forgetful, parts=(Counting,)))
    tables.data_set(Published(DataInfo("mine", 3, 3, 8, (44.0,) * 3, (0.2,) * 3, ("a", "b", "c")), read, "mine.npz"))
"""

BROKEN = [
    "operation careless: keeps the channels, and halves the size at stride 2: UserError: operation 'careless' of ",
    "operation careless: has no weights in normalisations without affine: at stride 1 a normalisation has weights",
    "operation careless: leaves no trace of a pass that measures: at stride 1 it moved passes",
    "operation careless: is written, read and trained in a genotype: UserError: operation 'careless' of ",
    "space S_careless: is searched, and each of its operations can be found: UserError: operation 'careless' of ",
    "edge double: with one gate open is that operation: with the gate of ",
    "rule modest: keeps as many operations as it states: it keeps up to 2 operations of an edge, and states 1",
    "method slanted: follows the gradient of the loss that it states: the gradient of alphas gives a slope of ",
    "method forgetful: goes on after every epoch bit for bit: its ",
    "data set mine: states facts that fit, and says which files it wants: its means or deviations are not those",
]


def test_a_plugin_that_breaks_every_law(tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(LAWLESS)
    plugin = plugins.load(str(tmp_path / "my_plugin.py"))
    found = {}
    for law in laws(plugin.registry):
        if any(words.startswith(f"{law.entry}: {law.text}: ") for words in BROKEN):
            found[f"{law.entry}: {law.text}"] = unlawful(law)
    lacking = [words for words in BROKEN if not any(f"{law}: {how}".startswith(words) for law, how in found.items())]
    assert not lacking and len(found) == len(BROKEN), found


SETS = """
import torch

from ddarts.plugins import DataInfo, Published

IMAGES, LABELS = torch.arange(60 * 64).reshape(60, 1, 8, 8).mul(7).to(torch.uint8), torch.arange(60) % 3


def read(root, train):
    images, labels = (IMAGES if train else 255 - IMAGES), LABELS
    {code}


def register(tables):
    tables.data_set(Published(DataInfo("mine", 3, 1, 8, (0.3,), (0.2,), ("a", "b", "c")), read, "mine.npz"))
"""


@pytest.mark.parametrize(
    ("code", "words", "is_read"),
    [
        ("return images, labels", None, True),
        ("return images / 255, labels", None, True),
        ("return images, labels.int()", "its labels are int32, and wanted are int64", False),
        ("return images, labels + 5", "its labels are 5..7, and wanted are 0..2", False),
        ("return images, labels - 1", "its labels are -1..1, and wanted are 0..2", False),
        ("return images.float(), labels", "its images are float32 of 0..255, and wanted are images uint8, or", False),
        ("return images / 255 - 1, labels", "its images are float32 of -1..0, and wanted are images uint8, or", False),
        ("return images.long(), labels", "its images are int64, and wanted are images uint8, or float of 0..1", False),
        ("return images.repeat(1, 3, 1, 1), labels", "its images are [60, 3, 8, 8], and wanted are images uint", False),
        ("return images[:, 0], labels", "its images are [60, 8, 8], and wanted are images uint8, or float", False),
        ("return images, labels[:50]", "its images are [60, 1, 8, 8] and its labels [50]: each has one label", False),
        ("return images[:0], labels[:0]", "it gives no images", False),
        ("return images.numpy(), labels.numpy()", "it gives neither two tensors, images and labels, nor a data", False),
        ("return None", "it gives neither two tensors, images and labels, nor a data set with `targets`", False),
        ("labels.targets = labels + 1; return labels", "its labels are 1..3, and wanted are 0..2", False),
        ("return images, labels * 0", "it has no training images of b, c", True),
        ("return images, labels * 0 if not train else labels", "it has no test images of b, c", True),
        (
            "return images[torch.randperm(60)], labels",
            "it gives other images, or another order of them, at every",
            True,
        ),
        ("return IMAGES.flip(0) if not train else IMAGES, labels", "its test images are training images", True),
    ],
)
def test_what_a_reader_may_not_give(
    code: str, words: str | None, is_read: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A law says it, and so does whatever loads such images."""
    (tmp_path / "my_plugin.py").write_text(SETS.replace("{code}", code))
    plugin = plugins.load(str(tmp_path / "my_plugin.py"))
    facts, images = map(unlawful, laws(plugin.registry))
    assert facts is None
    assert (images is None) if words is None else words in (images or "")
    if is_read:
        load_train(data_settings.DataConfig(name="mine"))
        return
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "method": "darts", "data": {"name": "mine"}}))
    assert run(["search", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "found")]) == 2
    refused = f"Error: cannot use what the reader of the data set 'mine' gives for the training: {words}"
    assert capsys.readouterr().err.startswith(refused)


OWN = """
from ddarts.plugins import Found, OwnImages, UserError


def collect(root):
    if root.name == "empty":
        raise UserError("no picture is listed")
    return (root / "labels.csv").read_text()


def register(tables):
    tables.data_set(OwnImages("listed", collect, "labels.csv and the pictures that it names"))
"""


def test_files_that_own_images_of_a_plugin_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `ddarts.plugins` has is enough to keep the laws, and to tell a user what to mend."""
    (tmp_path / "my_plugin.py").write_text(OWN)
    assert run(["check-plugin", str(tmp_path / "my_plugin.py")]) == 0
    capsys.readouterr()
    expected = "(expected: labels.csv and the pictures that it names; see `ddarts data`)\n"
    for folder, words in (
        ("nowhere", f"'{tmp_path}/nowhere/labels.csv' cannot be read: No such file or directory"),
        ("empty", "no picture is listed"),
    ):
        file = {**TINY, "method": "darts", "data": {"name": "listed", "root": str(tmp_path / folder)}}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(file))
        assert run(["data", str(tmp_path / "tiny.yaml")]) == 2
        assert capsys.readouterr().err == f"Error: cannot use the images of data.name listed: {words} {expected}"


def test_a_broken_law_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = LAWLESS.partition("class Modest")[2].partition("class Wrong")[0]
    rule = rule.replace("steps):\n", "steps):\n        print('asked')\n")
    register = "print('imported')\ndef register(tables):\n    print('registered')\n    tables.part(Modest)\n"
    (tmp_path / "my_plugin.py").write_text(f"from ddarts_core.methods import rules\nclass Modest{rule}{register}")
    assert run(["check-plugin", str(tmp_path / "my_plugin.py"), "--json"]) == 1
    (plugin,) = plugins.loaded()
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert printed.err.split()[:3] == ["imported", "registered", "asked"]
    found = "it keeps up to 2 operations of an edge, and states 1 (most_operations)"
    law = {"entry": "rule modest", "law": "keeps as many operations as it states", "kept": False, "found": found}
    assert told == {"plugin": "my_plugin", "sha256": plugin.source.sha256, "laws": [law]}


# --- what fails in the middle of a run ------------------------------------------------------------------------------

FAILING = """
from torch import nn

from ddarts.plugins import Method, darts, parts, rules

passes = []


class Later(nn.Module):
    def __init__(self, channels, stride, affine):
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride, padding=1)

    def forward(self, x):
        passes.append(1)
        if x.shape[0] == 30 and len(passes) > 40:
            raise WHAT
        return self.pool(x)


class Blunt(parts.Regulariser):
    name, summary = "blunt", "fails"

    def value(self, parameters, gates):
        raise WHAT


class Torn(rules.BestEdges):
    name, summary = "torn", "fails"

    def select(self, scores, operations, steps):
        raise WHAT


def register(tables):
    tables.operation("later", Later)
    tables.space("S_later", ["later", "skip_connect"])
    tables.part(Torn)
    tables.method("blunted", Method("a", "b", darts.settings(search={"regularisers": {"blunt": {}}}), parts=(Blunt,)))
"""


@pytest.mark.parametrize("what", ["ValueError('two\\nlines')", "SystemExit(0)"])
@pytest.mark.parametrize(
    ("chosen", "which"), [("search.space=S_later", 0), ("method=blunted", 1), ("discretise.rule=torn", 2)]
)
def test_a_plugin_that_fails_in_a_run(
    chosen: str, which: int, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its author gets the traceback, and a user one sentence at its end that says where."""
    (tmp_path / "my_plugin.py").write_text(FAILING.replace("WHAT", what))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "method": "darts"}))
    words = ["search", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "found"), "--set", chosen]
    assert run([*words, "--plugin", str(tmp_path / "my_plugin.py")]) == 2
    told = capsys.readouterr().err
    number = [number for number, text in enumerate(FAILING.splitlines(), 1) if "WHAT" in text][which]
    said = "ValueError: two lines" if "two" in what else "SystemExit: 0"
    assert f'my_plugin.py", line {number}, in ' in told
    sentence = f"Error: plug-in 'my_plugin' failed in my_plugin.py, line {number}: {said}; mend it there and "
    assert told.splitlines()[-1].startswith(sentence)


# --- operations of every kind ---------------------------------------------------------------------------------------

OPERATIONS = """
import torch
from torch import nn


def noisy(channels, stride, affine):
    norm = nn.BatchNorm2d(channels, affine=affine)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1), norm, nn.Dropout2d(0.5))


class Bare(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride, :: self.stride].flip(3)


def register(tables):
    tables.operation("noisy", noisy)
    tables.operation("bare", lambda channels, stride, affine: Bare(stride))
    tables.operation("wide", lambda channels, stride, affine: nn.Conv2d(channels, 2 * channels, 1, stride))
    tables.operation("strict", lambda channels, stride, affine: nn.Conv2d(3, channels, 1, stride))
    tables.operation("broken", lambda channels, stride, affine: channels / 0)
    tables.operation("listed", lambda channels, stride, affine: [nn.Identity()])
    tables.space("S_odd", ["noisy", "bare", "skip_connect"])
"""


def test_operations_with_random_parts_or_without_weights_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    """Whatever else is drawn in between: their draws follow from the seed and the epoch."""
    (tmp_path / "my_plugin.py").write_text(OPERATIONS)
    plugins.load(str(tmp_path / "my_plugin.py"))

    def make(settings: ExperimentConfig) -> Search:
        torch.rand(1)
        search = settings.search.model_copy(update={"space": "S_odd"})
        return build_search(settings.model_copy(update={"search": search}))

    goes_on("darts", make)
    cell = Cell((Edge(2, 0, "noisy"), Edge(2, 1, "bare")), concat=(2,))
    settings = retrain_settings.RetrainConfig(epochs=2, channels=4, batch_size=30, device="cpu")
    info, images = load_train(data_settings.DataConfig(num_train=60))

    def training() -> Retrain:
        torch.rand(1)
        return Retrain(settings, Genotype((cell,) * 3, reductions=(1, 2)), info, images, None, 0)

    whole, stopped, resumed = training(), training(), training()
    records = list(whole.records())
    assert next(stopped.records()) == records[0]
    resumed.load_state_dict(stopped.state_dict())
    assert list(resumed.records()) == records[1:]
    assert all(map(torch.equal, whole.weights().values(), resumed.weights().values()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wide", "operation 'wide' of 4 channels and stride 2 makes [2, 8, 5, 4] of [2, 4, 9, 8]: an operation makes"),
        (
            "strict",
            "operation 'strict' of 4 channels and stride 2 fails on images of [2, 4, 9, 8]: RuntimeError: G",
        ),
        ("broken", "operation 'broken' of 4 channels and stride 2 cannot be made: ZeroDivisionError: division by zero"),
        ("listed", "operation 'listed' of 4 channels and stride 2: its factory makes [Identity()], which is no torch"),
    ],
)
def test_what_is_no_operation(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(OPERATIONS)
    plugins.load(str(tmp_path / "my_plugin.py"))
    with pytest.raises(UserError) as refused:
        build(name, 4, 2, False)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_folders_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    code = "import os; from ddarts_core.ground.own_folder import own_folder; print(own_folder('ddarts-x-'), flush=True)"
    own = dict(os.environ, TMPDIR=str(tmp_path))

    def start(then: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"{code}; {then}"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)

    with start("input()") as living:
        assert living.stdout is not None
        folder = Path(living.stdout.readline().strip())
        left, _ = start("os.kill(os.getpid(), 9)").communicate()
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, Path(left.strip()).name}
        start("pass").communicate()
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        living.communicate("\n")
    assert not list(tmp_path.iterdir())


# --- installed ------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_there_in_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module, and the file in which an installer notes that it is a plug-in."""
    module = tmp_path / "my_plugin.py"
    module.write_text(f"{REGISTERED}pass\n")
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ddarts.plugins]\nmine = my_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["settings", "search.space"]) == 0
    assert "S_first" in capsys.readouterr().out
    (plugin,) = plugins.loaded()
    assert plugin.reference is None and plugin.source.files.keys() == {"my_plugin.py"}
    assert run(["settings", "search.space", "--plugin", "my_plugin"]) == 0 and plugins.loaded() == (plugin,)
    plugins.unload(plugin)
    del sys.modules["my_plugin"]
    module.write_text(f"{REGISTERED}1 / 0\n")
    capsys.readouterr()
    assert run(["zoo"]) == 2
    said = "ZeroDivisionError: division by zero; the installed package 'mine' brings it: mend or uninstall that\n"
    assert capsys.readouterr().err.endswith(said) and plugins.loaded() == ()
    assert run(["--help"]) == 0
    sys.modules.pop("my_plugin", None)
