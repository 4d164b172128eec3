"""Commands on studies that have little or nothing to show, and on files that are damaged: use, or one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ddarts_analysis.collect import read_table
from ddarts_analysis.schema import SCHEMAS
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.store.locks import lock

from ddarts_cli.main import run
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.genotypes.zoo import resolve_genotype
from ddarts_core.ground.errors import UserError
from tests.analysis.conftest import genotype_of, write_study, write_trial


def _rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _study(*states: str, damage: Callable[[Path], object] | None = None) -> Callable[[Path], Path]:
    """A maker of a study with a trial per state, damaged by a function of its folder."""

    def make(folder: Path) -> Path:
        study = write_study(folder)
        for number, state in enumerate(states):
            write_trial(study, number, state)
        if damage is not None:
            damage(study)
        return study

    return make


STUDIES = {
    "empty": _study(),
    "running": _study("RUNNING", "RUNNING"),
    "one": _study("COMPLETED"),
    "failed": _study("FAILED", "FAILED"),
    "no genotype": _study("COMPLETED", damage=lambda s: (s / "trials/00000/genotype.json").unlink()),
    "old study": _study("COMPLETED", damage=lambda s: _rewrite(s / "study.json", schema=0)),
    "old trial": _study("COMPLETED", damage=lambda s: _rewrite(s / "trials/00000/trial.json", schema=0)),
    "damaged": _study("COMPLETED", damage=lambda s: (s / "trials/00000/records.jsonl").write_text("{}\n{}\n")),
}

COMMANDS = {
    "collect": ["collect"],
    "report": ["report"],
    "export": ["export"],
    "rank by an unknown metric": ["export", "--by", "-speed"],
    "table": ["table", "--by", "search.w_zero_one"],
    "table of an unknown metric": ["table", "--by", "search.w_zero_one", "--metric", "speed"],
    "table by an unknown setting": ["table", "--by", "search.speed"],
    "figure of epochs": ["figure", "accuracy"],
    "figure of trials": ["figure", "pareto"],
    "figure of one trial": ["figure", "gates"],
    "figure of two trials": ["figure", "distances"],
    "status": ["status"],
    "ui": ["ui"],
}

_NOTHING = "no trial is completed: there is nothing to tabulate yet"
_UI = "MLflow database .*mlflow.db is missing"
_UNKNOWN = "metric 'speed'.*choose from accuracy, .*parameters"

#: The sentence by command and study; what is not here must succeed.
SENTENCES = {
    "export": {
        "empty": "nothing to export: it has no trials yet",
        "running": "nothing to export: of its 2 trials, 2 running",
        "failed": "nothing to export: of its 2 trials, 2 failed",
        "no genotype": "of its 1 trial, 1 completed, and the genotype.json of 1 completed is missing",
    },
    "rank by an unknown metric": {
        "empty": "nothing to export",
        "running": "nothing to export",
        "failed": "nothing to export",
        "no genotype": "nothing to export",
        "one": _UNKNOWN,
    },
    "report": {"empty": "study 'empty' is finished and has no trial: there is nothing to report"},
    "table": dict.fromkeys(("empty", "running", "failed"), _NOTHING),
    "table of an unknown metric": {
        **dict.fromkeys(("empty", "running", "failed"), _NOTHING),
        **dict.fromkeys(("one", "no genotype"), "unknown metric 'speed': choose one of .*held_out/accuracy"),
    },
    "table by an unknown setting": {
        **dict.fromkeys(("empty", "running", "failed"), _NOTHING),
        **dict.fromkeys(("one", "no genotype"), "no trial has a setting 'search.speed': .*search.w_zero_one"),
    },
    "figure of epochs": {"empty": "no trial recorded held_out/accuracy: there is no epoch yet"},
    "figure of trials": dict.fromkeys(("empty", "running", "failed"), "no completed trial has both parameters and"),
    "figure of one trial": dict.fromkeys(("empty", "running", "failed"), "no completed trial to show.*--trial"),
    "figure of two trials": dict.fromkeys(
        ("empty", "running", "failed", "one", "no genotype"), "two completed trials with a genotype"
    ),
    "ui": dict.fromkeys(("empty", "running", "failed", "one", "no genotype", "old trial", "damaged"), _UI),
}

#: Of any command that reads the file.
DAMAGE = {
    "old study": r"study\.json.* schema 0: this version reads 1",
    "old trial": r"trials/00000/trial\.json has schema 0: this version reads 1",
    "damaged": r"records\.jsonl: line 1 is not an epoch record",
}

#: Commands that need only the head of each trial, or none.
SHALLOW = {"status": {"damaged"}, "ui": set()}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {name: make(root / name.replace(" ", "-")) for name, make in STUDIES.items()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", STUDIES)
def test_a_command_is_of_use_or_says_why_not(
    studies: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    verb, *options = COMMANDS[command]
    target = {"collect": "dataset", "report": "page.html", "export": "best", "figure": "figure.png"}.get(verb)
    arguments = [verb, str(studies[name]), *options] + (["--out", str(tmp_path / target)] if target else [])
    status = run(arguments)
    out, err = capfd.readouterr()
    sentence = SENTENCES.get(command, {}).get(name)
    if sentence is None and name not in SHALLOW.get(command, ()):
        sentence = DAMAGE.get(name)
    if sentence is None:
        assert status == 0, err
        assert out.strip() and (target is None or (tmp_path / target).exists())
        return
    assert status == 2
    assert err.startswith("Error: ") and err.count("\n") == 1 and re.search(sentence, err), err
    assert list(tmp_path.iterdir()) == []  # nothing half done is left


def test_a_study_on_a_server_is_looked_at_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = STUDIES["one"](tmp_path / "far")
    _rewrite(study / "study.json", tracking_uri="http://10.0.0.1:5000/", experiment_id="7")
    assert run(["ui", str(study)]) == 0
    link = "http://10.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=ddarts"
    assert link in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["collect", "STUDY", "--out", "STUDY"], "is the folder of a study, and the dataset would mix"),
        (["report", "STUDY", "--out", "page.pdf"], "--out page.pdf: a report is an HTML page: give a name .* .html"),
        (
            ["table", "STUDY", "--by", "method", "--out", "t.png"],
            "--out t.png: a table is Markdown: .* .md",
        ),
        (["export", "STUDY", "--out", "/proc/x"], "no folder can be made at /proc/x/.*: choose another path"),
        (["studies", "--storage", "hdfs://x"], "storage 'hdfs://x' cannot be used: .*: choose a path, s3://"),
        (["ui", "STUDY"], "its MLflow database .*mlflow.db is damaged: `ddarts rebuild .* --mlflow` makes it again"),
    ],
)
def test_what_cannot_be_written_or_read_there_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: list[str],
    sentence: str,
) -> None:
    study = STUDIES["one"](tmp_path / "one")
    _rewrite(study / "study.json", tracking_uri=f"sqlite:///{study}/mlflow.db")
    (study / "mlflow.db").write_bytes(b"rubbish" * 500)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run([word.replace("STUDY", str(study)) for word in command]) == 2
    err = capfd.readouterr().err
    assert err.startswith("Error: ") and err.count("\n") == 1 and re.search(sentence, err), err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_table_is_told_to_readers_and_mended_by_collect(
    studies: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["collect", str(studies["one"]), "--out", str(tmp_path)]
    assert run(arguments) == 0
    (file,) = (tmp_path / "alphas").rglob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    status, err = run(["compare", str(file), "zoo:DARTS_V2"]), capfd.readouterr().err
    assert status == 2 and err.startswith("Error: ") and err.count("\n") == 1, err
    with pytest.raises(ValueError, match=r"part-0\.parquet is damaged: .*collect the study again"):
        read_table(tmp_path, "alphas")
    assert run(arguments) == 0
    assert {name: len(read_table(tmp_path, name)) > 0 for name in SCHEMAS} == dict.fromkeys(SCHEMAS, True)


@pytest.mark.parametrize("command", ["status", "resume", "report"])
@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        ("study.json", {"objectives": None}, "study.json is damaged: 'objectives' is None, and should be of type list"),
        ("study.json", {"config": 3}, "study.json is damaged: 'config' is 3, and should be of type dict"),
        ("study.json", {"config": {}}, "study.json is damaged: it lacks 'config.tune'"),
        ("study.json", {"base": None}, "study.json is damaged: 'base' is None, and should be of type dict"),
        ("study.json", "{}", "study.json has schema None"),
        ("study.json", '{"schema": 1}', "study.json is damaged: it lacks 'name'"),
        ("study.json", "", "cannot read .*study.json"),
        ("trials/00000/trial.json", '{"schema": 1}', "00000/trial.json is damaged: it lacks 'trial_id'"),
        (
            "trials/00000/trial.json",
            {"number": "0"},
            "trial.json is damaged: 'number' is '0', and should be of type int",
        ),
        (
            "trials/00000/trial.json",
            {"objectives": {"derived/held_out/accuracy": "good"}},
            "trial.json is damaged: 'objectives' holds 'good', which is no number",
        ),
        ("trials/00000/trial.json", {"state": "DONE"}, "state 'DONE' is none of RUNNING, COMPLETED, PRUNED, FAILED"),
        ("trials/00000/trial.json", {"objectives": None}, "trial.json is damaged: .*lack 'derived/held_out/accuracy'"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, damage: object, sentence: str, command: str
) -> None:
    study = STUDIES["one"](tmp_path / "one")
    if isinstance(damage, dict):
        _rewrite(study / file, **damage)
    else:
        (study / file).write_text(str(damage))
    assert run([command, str(study)]) == 2
    err = capfd.readouterr().err
    assert err.startswith("Error: ") and err.count("\n") == 1 and re.search(sentence, err), err


@pytest.mark.parametrize("command", [["status"], ["rebuild", "--optuna"]], ids=" ".join)
def test_a_record_that_is_cut_off_does_not_count(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    study = _study("RUNNING", "PRUNED")(tmp_path / "one")
    space = {path: {"type": "float", "low": 0, "high": 2} for path in ("search.w_zero_one", "ablation.weight")}
    _rewrite(study / "study.json", config=resolve_sweep({"name": "one", "space": space}).model_dump(mode="json"))
    files = [*study.glob("trials/*/records.jsonl")]
    for epochs, accuracy in ((2, 51), (1, 41)):
        assert run([command[0], str(study), *command[1:]]) == 0
        out = capfd.readouterr().out
        words = f"trial 00000 stopped at epoch {epochs} of", f"held out {accuracy}.00 % at last"
        assert all((word in out) == (command == ["status"]) for word in words)
        for file in files:
            file.write_text(file.read_text()[:-9])
    for file in files:
        file.write_text("{}\n" + file.read_text())
    assert run([command[0], str(study), *command[1:]]) == 2
    assert re.fullmatch(r"Error: .*records\.jsonl: line 1 is not an epoch record .*\n", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("state", "words"), [("INTERRUPTED", "trial 00000 stopped at epoch 2 of "), ("RUNNING", "trial 00000 stopped at")]
)
def test_a_trial_of_a_sweep_that_is_gone_has_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], state: str, words: str
) -> None:
    study = _study("RUNNING")(tmp_path / "one")
    _rewrite(study / "study.json", state=state)
    assert run(["status", str(study)]) == 0
    out = capfd.readouterr().out
    assert words in out and "per minute" not in out and f"ddarts resume {study}" in out
    with lock(study):
        _rewrite(study / "study.json", state="RUNNING")
        assert run(["status", str(study)]) == 0
    assert "trial 00000 runs: epoch 2 of" in capfd.readouterr().out


def test_a_narrow_terminal_leaves_no_column_out(
    studies: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["status", str(studies["one"])]) == 0
    out = re.sub(r"\x1b\[[\d;]*m", "", capfd.readouterr().out)
    assert re.search(r" 1 .* 00000 .* completed .* 50\.00 % .* 1,000\s+search\.w_zero_one=0", out), out


def test_one_damaged_study_hides_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        STUDIES["one"](tmp_path / name)
    (tmp_path / "two/study.json").write_text('{"schema": 1}')
    (tmp_path / "one/trials/00000/trial.json").write_text("{}")  # a list opens no trial
    assert run(["studies", "--storage", str(tmp_path)]) == 0
    damaged, reason, whole = capfd.readouterr().out.splitlines()
    assert re.search(r"DAMAGED +1 trials .*two$", damaged) and "FINISHED" in whole
    assert reason.strip().endswith("two/study.json is damaged: it lacks 'name'")
    assert run(["studies", "--storage", str(tmp_path), "--json"]) == 0
    found = {study["name"]: study for study in json.loads(capfd.readouterr().out)}
    assert found["two"]["state"] == "DAMAGED" and "lacks 'name'" in found["two"]["damage"]
    assert (found["one"]["state"], found["one"]["damage"], found["one"]["trials"]) == ("FINISHED", None, 1)
    assert run(["status", "nope", "--storage", str(tmp_path)]) == 2
    assert "(studies: two, one)" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["garbage\n", "[]\n", "3\n", '{"op_code": 0}\n\x00\n', "[" * 3000 + "\n"])
def test_a_damaged_journal_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str) -> None:
    study = STUDIES["one"](tmp_path / "one")
    (study / "optuna.log").write_text(text)
    assert run(["report", str(study)]) == 0, "a report asks the records, not the journal"
    capfd.readouterr()
    assert run(["resume", str(study)]) == 2
    err = capfd.readouterr().err
    remedy = f"`ddarts rebuild {study} --optuna` makes it again"
    assert err.count("\n") == 1 and re.search(rf"optuna\.log is damaged in line \d: {re.escape(remedy)}", err), err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a genotype"),
        ('{"schema": 1, "cells": ' + "[" * 100_000, "not a genotype: bad JSON"),
        ("{}", "not a genotype.*'schema'"),
        ("PAR1\x00\xff", "cannot read genotype"),
        (genotype_of(0).to_json().replace('"schema": 1', '"schema": 0'), "schema"),
        (None, "missing.json"),
    ],
    ids=["empty", "deep", "other JSON", "binary", "old schema", "missing"],
)
@pytest.mark.parametrize("command", ["compare", "cost", "zoo"])
def test_a_genotype_that_is_none_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, text: str | None, sentence: str
) -> None:
    path = tmp_path / ("missing.json" if text is None else "genotype.json")
    if text is not None:
        path.write_text(text, encoding="latin-1")
    arguments = {"compare": ["zoo:DARTS_V2", str(path)], "cost": [str(path)], "zoo": [str(path)]}[command]
    assert run([command, *arguments]) == 2
    err = capfd.readouterr().err
    wanted = sentence if command != "zoo" else "DARTS_V2"  # zoo takes names only, and lists them
    assert err.startswith("Error: ") and err.count("\n") == 1 and re.search(wanted, err), err


def _cells(cells: object, reductions: object = ()) -> str:
    return json.dumps({"schema": 1, "layout": "individual", "cells": cells, "reductions": reductions})


_CELL = {"edges": [["skip_connect", 0, 2]], "concat": [2]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (_cells(12), "`cells` must be a list of"),
        (_cells([3]), "`cells` must be a list of"),
        (_cells([{"edges": [["skip_connect", 0]], "concat": [2]}]), "`cells` must be a list of"),
        (_cells([_CELL], 3), "`reductions` a list of positions"),
        ("Genotype_nested(genes=12, concat=[2], reductions=[])", "its genes are lists of"),
        (
            "Genotype_opt(genes=[[('skip_connect', 2, 0)]], seq=[5], concat=[2], reductions=[])",
            "its genes are lists of",
        ),
        ("Genotype_nested(genes=list(5), concat=[2], reductions=[])", r"list\(...\) takes one list"),
        ("Genotype_nested(genes=[], concat=range(1, 2, 0), reductions=[])", r"range\(...\) takes one to three"),
    ],
)
def test_a_genotype_of_another_form(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as said:
        Genotype.from_text(text)
    assert not re.search("Error|iterable|index|unpack|subscript", str(said.value))


def test_names_of_genotypes(tmp_path: Path) -> None:
    for name, sentence in (
        ("zoo:darts_v2", "unknown zoo genotype 'darts_v2': .*; did you mean 'DARTS_V2'?"),
        ("", "the name of a genotype is empty"),
        (str(tmp_path / "no.json"), f"^cannot read genotype '{tmp_path}/no.json': No such file or directory; give a"),
    ):
        with pytest.raises(UserError, match=sentence):
            resolve_genotype(name)
    (tmp_path / "genotype.json").write_text(_cells([_CELL]), encoding="utf-8-sig")
    assert resolve_genotype(str(tmp_path / "genotype.json")).num_cells == 1
