"""The command line as a contract: mistakes are one sentence and status 2, and a seed fixes every byte."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ddarts_cli.main import run
from ddarts_core.exports.export import read_safetensors
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.genotypes.published_text import to_published_text
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import parse_override
from ddarts_core.loops.confusion import accuracy, balanced_accuracy, read_confusion

ROOT = Path(__file__).parent.parent
TINY = {
    "name": "tiny",
    "data": {"name": "digits", "num_train": 200},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 2, "batch_size": 32},
    "discretise": {"on_dead_cell": "connect"},
    "retrain": {"epochs": 1, "channels": 2},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def mistake(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence on standard error of a command that must fail with status 2."""
    status = run([str(argument) for argument in arguments])
    err = capfd.readouterr().err
    assert status == 2, err
    assert err.startswith("Error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("serch.epochs=2", "serch"),
        ("search.epoch=2", "search.epochs"),
        ("search.epochs=many", "search.epochs.*many"),
        ("search.channels=-4", "search.channels.*-4"),
        ("data.name=mnits", "mnits.*digits"),
        ("discretise.threshold=1.5", "discretise.threshold.*1.5"),
        ("search.num_cells=2", "num_cells 2"),
        ("data.name=fashion_mnist", "fashion_mnist"),
        ("method=dartz", "dartz.*fairdarts"),
        ("search.epochs", "search.epochs"),
        ("search.batch_size=5000", "batch"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    out = tmp_path / "out"
    root = f"data.root={tmp_path / 'nothing'}"
    err = mistake(capfd, "search", tiny, "--out", out, "--set", root, "--set", setting)
    assert re.search(words, err), err
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("distance", "zoo:FBNetV2_F1", "zoo:ResNet18"),
        ("transfer", "zoo:FBNetV2_F1"),
        ("compare", "zoo:FBNetV2_F1", "zoo:ResNet18"),
        ("config", "experiments/dartopti.yaml", "--set", "search.start=zoo:FBNetV2_F1"),
        ("retrain", "zoo:FBNetV2_F1", "--data", "digits", "--random-baseline", "1"),
    ],
)
def test_what_is_for_cells_alone_refuses_a_genotype_of_stages(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert "needs a genotype of layout individual or normal_reduce, this one is of layout stages" in mistake(
        capfd, *arguments
    )


def test_the_same_mistakes_in_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    for text, words in [
        ("serch: {epochs: 2}", "serch"),
        ("search: {epochs: many}", "search.epochs"),
        ("search: 3", "search"),
        ("- a list", "mapping"),
        ("search: {epochs: [", "YAML"),
    ]:
        path.write_text(text)
        err = mistake(capfd, "config", path)
        assert words in err and "wrong.yaml" in err
    assert "missing.yaml" in mistake(capfd, "search", tmp_path / "missing.yaml")
    assert str(tmp_path) in mistake(capfd, "config", tmp_path)


URI = "s3://bucket/studies"


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "FILE", "--set", f"storage={URI}"],
        ["search", "FILE", "--out", URI],
        ["collect", "tiny", "--out", URI],
        ["export", "tiny", "--out", URI],
    ],
)
def test_a_uri_is_no_folder(tiny: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    err = mistake(capfd, *(tiny if argument == "FILE" else argument for argument in arguments))
    assert URI in err and "is a URI" in err and "file system that all machines share" in err
    assert not Path("s3:").exists()


@pytest.mark.parametrize(
    ("out", "storage", "name"),
    [
        ("runs/2024-01-15", "runs", "2024-01-15"),
        ("runs/2024", "runs", "2024"),
        ("s3://bucket/1e3", "s3://bucket", "1e3"),
    ],
)
def test_a_name_that_looks_like_a_number(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, out: str, storage: str, name: str
) -> None:
    taken: dict[str, object] = {}

    def load_sweep(file: Path, overrides: tuple[str, ...]) -> None:
        taken.update(parse_override(text) for text in overrides)
        raise UserError("seen")

    monkeypatch.setattr("ddarts_tuning.settings.config.load_sweep", load_sweep)
    assert run(["sweep", str(tiny), "--out", out]) == 2
    assert str(taken["storage"]).endswith(storage) and taken["name"] == name


def test_places_that_are_none(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for out in ("/", "s3://bucket"):
        assert f"--out {out}: a study needs a folder of its own" in mistake(capfd, "sweep", tiny, "--out", out)
    (tmp_path / "5").write_text("")
    arguments = ["retrain", "zoo:DARTS_V2", "--data", "cifar10", "--data-root", "5", "--out", tmp_path / "out"]
    assert re.search("cannot read cifar10 in '.*/5'", mistake(capfd, *arguments))


GENOTYPE = {
    "schema": 1,
    "layout": "individual",
    "reductions": [1],
    "cells": [{"edges": [["skip_connect", 0, 2]], "concat": [2]}] * 3,
}


@pytest.mark.parametrize("command", ["retrain", "cost"])
@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (["sep_conv_9x9", 0, 2], "sep_conv_9x9.*sep_conv_3x3"),
        (["skip_connect", 3, 2], "3->2"),
        (["skip_connect", "0", 2], "'0'"),
        (None, "not a genotype"),
    ],
)
def test_a_wrong_genotype_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, edge: list[object] | None, words: str
) -> None:
    path = tmp_path / "genotype.json"
    cells = [{"edges": [edge], "concat": [2]}] * 3
    path.write_text("no genotype {" if edge is None else json.dumps({**GENOTYPE, "cells": cells}))
    assert re.search(words, mistake(capfd, command, path))


def test_other_doors(tmp_path: Path, tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.json" in mistake(capfd, "cost", tmp_path / "nowhere.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "binary" in mistake(capfd, "cost", tmp_path / "binary")
    assert "DARTS_V2" in mistake(capfd, "cost", "zoo:DARTS_V9")
    assert "--reductions" in mistake(capfd, "cost", "zoo:DARTS_V2", "--reductions", "two")
    assert "recipe" in mistake(capfd, "retrain", "zoo:DARTS_V2", "--recipe", "slow")
    for command in ("status", "resume", "export", "report", "collect", "ui"):
        assert "nothing" in mistake(capfd, command, "nothing", "--storage", tmp_path)
    assert "search" in mistake(capfd, "serach")
    assert "FILE" in mistake(capfd, "search")
    assert "storage" in mistake(capfd, "studies", "--set", "search.epochs=3")
    assert "space" in mistake(capfd, "sweep", tiny)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(yaml.safe_dump({"space": {"search.lr": {"type": "float", "low": 0.1, "high": 0.2}}}))
    assert "ddarts sweep" in mistake(capfd, "search", sweep)
    assert "search.width" in mistake(
        capfd, "sweep", sweep, "--set", "space={search.width: {type: int, low: 1, high: 2}}"
    )


# --- what works -------------------------------------------------------------------------------------------------------


def test_a_genotype_of_any_form_is_drawn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Beside its file unless told otherwise; equal genotypes give equal pictures."""
    published = tmp_path / "darts.txt"
    published.write_text(to_published_text(ZOO["DARTS_V2"].genotype))
    assert run(["draw", str(published)]) == 0
    assert capfd.readouterr().out.startswith(f"wrote {tmp_path / 'darts.svg'}\nnext:\n  ddarts cost ")
    named = tmp_path / "named.svg"
    assert run(["draw", "zoo:DARTS_V2", "--out", str(named)]) == 0
    assert named.read_bytes() == (tmp_path / "darts.svg").read_bytes() != b""
    capfd.readouterr()
    assert ".svg, .png or .pdf" in mistake(capfd, "draw", "zoo:DARTS_V2", "--out", tmp_path / "darts.gif")
    assert not (tmp_path / "darts.gif").exists()


def test_config_prints_what_it_reads(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["config", str(tiny), "--set", "method=fairdarts", "--set", "search.lr_min=1e-4"]) == 0
    text = capfd.readouterr().out
    data = yaml.safe_load(text)
    assert (data["search"]["w_zero_one"], data["search"]["lr_min"], data["method"]) == (10.0, 1e-4, "fairdarts")
    again = tmp_path / "again.yaml"
    again.write_text(text)
    assert run(["config", str(again)]) == 0
    assert capfd.readouterr().out == text


SECRET = "S3cR"
SECRETS = [
    f"http://me:{SECRET}@host:5000",
    f"postgresql://me:a/{SECRET}#b@host/db",
    f"postgresql://host/db?password={SECRET}",
]


@pytest.mark.parametrize("uri", SECRETS)
@pytest.mark.parametrize("by", ["file", "set"])
def test_config_prints_no_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str], uri: str, by: str) -> None:
    space = {"search.lr": {"type": "float", "low": 0.002, "high": 0.01}}
    data = {"space": space, "tracking": {"uri": uri} if by == "file" else {}}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(data))
    assert run(["config", str(path), *(["--set", f"tracking.uri={uri}"] if by == "set" else [])]) == 0
    text = capfd.readouterr().out
    assert SECRET not in text and "tracking.uri is without its secrets" in text.splitlines()[1]
    path.write_text(text)
    assert run(["config", str(path)]) == 0
    assert "secrets" not in capfd.readouterr().out


@pytest.mark.parametrize("uri", SECRETS[:2])
@pytest.mark.parametrize("command", ["config", "sweep", "estimate", "search"])
def test_no_mistake_shows_a_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str], uri: str, command: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("space: {search.lr: {type: float, low: 0.002, high: 0.01}}")
    for wrong in (f"tracking.uri=[{uri}]", f"tracking={uri}", f'tracking.uri="{uri}', f"tracking.url={uri}", uri):
        assert SECRET not in mistake(capfd, command, path, "--set", wrong), wrong
    for text in (
        f"tracking: {{uri: [{uri!r}]}}",
        f"tracking: {uri!r}",
        f'tracking: {{uri: "{uri}',
        f"tracking:\n  uri: {uri}\n wrong: [",
        f"tracking: {{{uri!r}: 1}}",
        f"tracking: {{uri: @{uri}}}",
        f"{'x' * 40} {uri}: {{",
    ):
        path.write_text(f"space: {{search.lr: {{type: float, low: 0.002, high: 0.01}}}}\n{text}")
        assert SECRET not in mistake(capfd, command, path), text
    assert SECRET not in mistake(capfd, command, path, uri)
    assert SECRET not in mistake(capfd, command, path, f"--uri={uri}")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_experiment_files_resolve(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["config", str(path)]) == 0
    assert yaml.safe_load(capfd.readouterr().out)["name"] == path.stem


def test_json_is_one_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    documents = {}
    for arguments in (
        ["space"],
        ["methods"],
        ["zoo"],
        ["studies", "--storage", str(tmp_path)],
        ["cost", "zoo:DARTS_V2", "--channels", "36", "--cells", "20"],
    ):
        assert run([*arguments, "--json"]) == 0
        documents[arguments[0]] = json.loads(capfd.readouterr().out)
    assert documents["space"]["per_cell"] == 1_037_664_180
    assert documents["space"]["individual_cells"] == 1_037_664_180**8
    assert documents["cost"]["parameters"] == 3_349_342
    assert documents["studies"] == []
    assert "ddarts" in documents["methods"] and "DARTS_V2" in documents["zoo"]


def test_space_in_powers_of_ten(capfd: pytest.CaptureFixture[str]) -> None:
    from ddarts_cli.commands.space import scientific

    assert scientific(1_037_664_180, 4) == "1.0377e9"
    assert scientific(999_999) == "1.0e6"
    assert run(["space"]) == 0
    text = capfd.readouterr().out
    assert "1.0377e9" in text and "e18" in text and "e72" in text


def test_zoo_prints_a_genotype(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["zoo", "DARTS_V2"]) == 0
    assert Genotype.from_text(capfd.readouterr().out).layout == "normal_reduce"


def test_a_published_file_that_is_not_read_as_written_is_noted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "published.txt"
    file.write_text("Genotype_nested([[('skip_connect', 2, 0), ('skip_connect', 3, 2)]], concat=[3], reductions=[])")
    assert run(["cost", str(file), "--channels", "2", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["cells"] == 1
    assert err.startswith(f"Note on {file}: concat [3] of the text is ignored") and len(err.splitlines()) == 1


def test_dead_cells_are_counted_connected_or_refused(capfd: pytest.CaptureFixture[str]) -> None:
    deeper = ["cost", "zoo:DD_5", "--cells", "14", "--channels", "2"]
    assert run([*deeper, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["dead_cells"] == [10, 12]
    assert run(deeper) == 0
    assert "2 of 14 cells are dead (10, 12)" in capfd.readouterr().out
    assert run([*deeper, "--json", "--on-dead-cell", "connect"]) == 0
    assert json.loads(capfd.readouterr().out)["dead_cells"] == []
    assert "2 of 14 cells are dead (10, 12)" in mistake(capfd, *deeper, "--on-dead-cell", "error")


FILES = ("genotype.json", "records.parquet", "config.yaml", "data.json")


def test_same_seed_same_bytes_and_resume(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        assert run(["search", str(tiny), "--out", str(out)]) == 0
    text = capfd.readouterr().out
    assert f"wrote {outs[0] / 'genotype.json'}" in text and "ddarts retrain" in text
    for name in FILES:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    other = tmp_path / "other"
    assert run(["search", str(tiny), "--out", str(other), "--set", "seed=1"]) == 0
    assert (other / "records.parquet").read_bytes() != (outs[0] / "records.parquet").read_bytes()

    summary = json.loads((outs[0] / "search.json").read_text())
    assert summary["genotype_hash"] == Genotype.load(outs[0] / "genotype.json").hash
    assert "finished" in mistake(capfd, "search", tiny, "--out", outs[0])
    assert "seed was 0, is 9" in mistake(capfd, "search", tiny, "--out", outs[0], "--resume", "--set", "seed=9")
    assert "nothing to resume" in mistake(capfd, "search", tiny, "--out", tmp_path / "c", "--resume")


def test_interrupted_search_goes_on_to_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    arguments = ["search", str(tiny), "--set", "search.epochs=12"]
    command = [sys.executable, "-m", "ddarts_cli", *arguments]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    process = subprocess.Popen(
        [*command, "--out", str(stopped)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (stopped / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (stopped / "search.json").exists()
    assert run([*arguments, "--out", str(stopped), "--resume"]) == 0
    assert run([*arguments, "--out", str(whole)]) == 0
    for name in FILES:
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_retrain_beside_a_random_genotype(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    genotype = tmp_path / "genotype.json"
    genotype.write_text(json.dumps(GENOTYPE))
    out = tmp_path / "retrain"
    arguments = ["retrain", str(genotype), "--config", str(tiny), "--out", str(out)]
    assert run([*arguments, "--seeds", "2", "--random-baseline"]) == 0
    text = capfd.readouterr().out
    assert "test accuracy of the genotype" in text and "test accuracy of a random genotype" in text
    assert "The genotype and the random genotype cannot be told apart: " in text and "fewer than 3 runs" in text
    assert "The random genotype is one architecture" in text
    result = json.loads((out / "result.json").read_text())
    assert set(result["test"]) == {"genotype", "random"}
    assert result["comparison"]["low"] is None and {test["test_images"] for test in result["test"].values()} == {359}
    for contender in result["test"].values():
        assert len(contender["accuracies"]) == 2 and contender["edges"] == 3 and contender["interval_95"] >= 0
    classes, matrices = read_confusion(out / "confusion.json")
    assert [(one.network, one.seed, one.split) for one in matrices] == [
        (name, seed, "test") for name in result["test"] for seed in result["seeds"]
    ]
    for name, test in result["test"].items():
        own = [one.matrix for one in matrices if one.network == name]
        assert [accuracy(matrix) for matrix in own] == test["accuracies"]
        assert [balanced_accuracy(matrix) for matrix in own] == test["balanced_accuracies"]
    assert len(classes) == 10 and sum(map(sum, matrices[0].matrix)) == 359  # all test images of digits
    for name in ("genotype-seed-0", "genotype-seed-1", "random-seed-0", "random-seed-1"):
        assert (out / name / "weights.pt").exists() and (out / name / "records.parquet").exists()
    assert "finished" in mistake(capfd, *arguments)

    assert run([*arguments, "--resume", "--random-baseline", "3"]) == 0  # two more, and nothing of these again
    text = capfd.readouterr().out
    assert "3 random genotypes cannot be told apart" in text and "Random genotypes differ by" in text
    more = json.loads((out / "result.json").read_text())
    assert set(more["test"]) == {"genotype", "random", "random-2", "random-3"} and len(more["standard_deviations"]) == 2
    assert {name: more["test"][name] for name in result["test"]} == result["test"]
    assert len({test["genotype_hash"] for test in more["test"].values()}) == 4

    facts = json.loads((out / "data.json").read_text())
    assert sum(facts["train_counts"]) == 200
    (out / "data.json").write_text(json.dumps({**facts, "name": "gone", "classes": list("abcdefghij")}))
    assert run(["export", str(out)]) == 0  # reads the facts, not the data
    _, blueprint = read_safetensors(out / "export" / "weights.safetensors")
    assert (blueprint.info.name, blueprint.info.classes) == ("gone", tuple("abcdefghij"))
    assert json.loads((out / "export" / "data.json").read_text())["name"] == "gone"
    (out / "data.json").unlink()  # as of a run before there were such files
    assert run(["export", str(out)]) == 0
    assert not (out / "export" / "data.json").exists()
    assert read_safetensors(out / "export" / "weights.safetensors")[1].info.name == "digits"


UNREAD = """
import sys
from ddarts_cli.sweeping import board_of, watch
from ddarts_tuning.driver.events import SweepEvent
with watch(board_of(None, 1), "") as listener:
    for _ in range(3):
        listener(SweepEvent("started", "00000", 0, {}))
sys.stderr.write("went on")
"""


def test_output_that_nobody_reads_ends_no_sweep() -> None:
    process = subprocess.Popen([sys.executable, "-c", UNREAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"went on" and process.wait() == 0
