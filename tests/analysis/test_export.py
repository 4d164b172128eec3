from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ddarts_analysis.export import best, export, numbers
from ddarts_analysis.report_text import ranking, with_a_place
from ddarts_analysis.study import limits_of, read_study

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import resolve
from ddarts_core.settings.hashing import config_hash
from tests.analysis.conftest import MakeStudy, Parsed, genotype_of, write_trial


def test_best_genotypes_come_out_complete_and_in_order(study: Path):
    exported = export(study, top=2)
    assert [e.folder for e in exported] == [
        study / "export" / f"01_{genotype_of(5).hash}",
        study / "export" / f"02_{genotype_of(4).hash}",
    ]
    folder = exported[0].folder
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.yaml",
        "cost.json",
        "genotype.json",
        "genotype.png",
        "genotype.svg",
        "genotype.txt",
    ]
    assert Genotype.load(folder / "genotype.json") == Genotype.load(folder / "genotype.txt") == genotype_of(5)
    assert (folder / "genotype.png").read_bytes()[:4] == b"\x89PNG"


def test_no_alphas_are_kept_to_export(study: Path, parsed: Parsed):
    assert len(export(study, top=3)) == 3
    assert len(parsed.files) == 9 and parsed.alphas == 0


def test_the_configuration_is_the_trials_and_valid_without_the_exporters_places(study: Path):
    trial = study / "trials/00005/trial.json"
    known = json.loads(trial.read_text())
    known["config"] |= {"storage": "/home/me/runs", "data": {**known["config"]["data"], "root": "/home/me/own photos"}}
    trial.write_text(json.dumps(known))
    folder = export(study, top=1)[0].folder
    config = resolve(yaml.safe_load((folder / "config.yaml").read_text()))
    assert config.data.root == "own photos" and config_hash(config) == config_hash(resolve(known["config"]))
    assert not [file.name for file in folder.iterdir() if b"/home/me" in file.read_bytes()]
    card = (folder / "README.md").read_text()
    assert "--out retrain --data-root 'own photos'" in card and "--set 'data.root=own photos'" in card


def test_readme_has_the_numbers_and_exact_commands(study: Path):
    folder = export(study, top=1)[0].folder
    text = (folder / "README.md").read_text()
    for expected in ("00005 of study toy", "0.65", "65.00 %", "1,050", "5,175", genotype_of(5).hash):
        assert expected in text
    assert "ddarts retrain genotype.json --config config.yaml" in text and str(folder.parent) not in text
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "other" and "Intended use: " in text and "Licence: not stated" in text
    assert "None" not in text and not re.search(r"\{[a-z]", text)


def test_the_card_names_the_plugins_that_it_needs(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch):
    """As files in its folder, or as modules."""
    study = make_study("COMPLETED")
    info = json.loads((study / "study.json").read_text())
    info["plugins"] = [
        {"name": "my_plugin", "sha256": "0" * 64, "files": {"my_plugin.py": "0"}},
        {"name": "of_old", "sha256": "0" * 64},
        {"name": "installed", "sha256": "0" * 64, "files": {"installed.py": "0"}},
        {"name": "mine", "sha256": "0" * 64, "files": {"mine/__init__.py": "0", "mine/ops.py": "0"}},
    ]
    (study / "study.json").write_text(json.dumps(info))
    here = SimpleNamespace(source=SimpleNamespace(name="installed"), folder=None)
    monkeypatch.setattr("ddarts_analysis.card.loaded", lambda: (here,))
    text = (export(study, top=1)[0].folder / "README.md").read_text()
    commands = [
        line.strip() for line in text.splitlines() if line.strip().startswith(("ddarts retrain", "ddarts search"))
    ]
    named = "--plugin my_plugin.py --plugin of_old.py --plugin installed --plugin mine"
    assert len(commands) == 2 and all(line.endswith(named) for line in commands), commands
    assert (
        "It was made with plug-ins: my_plugin.py, of_old.py, installed, mine. Put their files into this folder" in text
    )


def test_order_can_be_chosen_and_pareto_too(study: Path):
    read = read_study(study)
    assert [row["number"] for row, _, _ in best(read, 2, "params")] == [0, 1]
    assert [row["number"] for row, _, _ in best(read, 9, "pareto")] == [5, 4, 3, 2, 1, 0]


def test_those_within_limits_alone_if_wished(make_study: MakeStudy):
    folder = make_study("COMPLETED")
    with pytest.raises(UserError, match=r"study 'toy' has no tune\.limits: leave --within-limits out"):
        best(read_study(folder), within=True)
    info = json.loads((folder / "study.json").read_text())
    info["config"]["tune"]["limits"] = {"parameters": 1005, "macs": None}
    (folder / "study.json").write_text(json.dumps(info))
    write_trial(folder, 1, beyond=["parameters"])
    study = read_study(folder)
    rows = [row for row, _, _ in best(study)]
    assert [row["number"] for row in rows] == [0, 1], "trial 1 is more accurate"
    assert ("beyond a limit of the sweep", "parameters") in numbers(rows[1])
    assert [row["number"] for row, _, _ in best(study, within=True)] == [0]
    placed = with_a_place(rows, study.info["objectives"])
    page = ranking(rows, len(placed), study.info["objectives"], limits_of(study))
    assert "1 of 2 completed trials is beyond tune.limits (parameters 1,005): it comes last, without a place." in page
    assert "<td>parameters</td>" in page
    shutil.rmtree(folder / "trials" / "00000")
    with pytest.raises(
        UserError, match=r"all 1 completed trials of study 'toy' are beyond tune.limits \(parameters 1,0"
    ):
        best(read_study(folder), within=True)


def test_equal_genotypes_are_exported_once(make_study: MakeStudy):
    study = make_study("COMPLETED")
    twin = write_trial(study, 7)
    shutil.copy(study / "trials/00000/genotype.json", twin)
    (item,) = export(study, top=5)
    assert item.row["number"] == 7 and item.also == ("00000",)
    assert "Trials 00000 found the same" in (item.folder / "README.md").read_text()


def test_a_second_export_removes_only_what_the_first_wrote(study: Path):
    first = export(study, top=2)
    (first[1].folder / "retrain").mkdir()
    (study / "export" / "notes").mkdir()
    export(study, top=1)
    assert sorted(p.name for p in (study / "export").iterdir()) == sorted(
        [first[0].folder.name, first[1].folder.name, "notes"]
    )
    assert [p.name for p in first[1].folder.iterdir()] == ["retrain"]


def test_without_a_published_form_there_is_no_text_file(make_study: MakeStudy):
    study = make_study("COMPLETED")
    plain = Cell((Edge(2, 0, "skip_connect"), Edge(3, 1, "skip_connect")), (2, 3))
    other = Cell(plain.edges, (3,))
    (study / "trials/00000/genotype.json").write_text(Genotype((plain, other)).to_json())
    (item,) = export(study)
    assert not (item.folder / "genotype.txt").exists() and "genotype.txt" not in (item.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ((), "no trials yet"),
        (("FAILED", "FAILED", "PRUNED"), "of its 3 trials, 2 failed, 1 pruned"),
        (("RUNNING",), "of its 1 trial, 1 running"),
    ],
)
def test_nothing_to_export_is_one_sentence(make_study: MakeStudy, states, message):
    study = make_study(*states)
    with pytest.raises(UserError, match=message):
        export(study)
    assert not (study / "export").exists()


def test_mistakes_are_one_sentence(study: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"no completed trial has a metric 'speed'.*derived_accuracy"):
        export(study, by="-speed")
    with pytest.raises(UserError, match="at least 1"):
        export(study, top=0)
    with pytest.raises(UserError, match="does not exist"):
        export(tmp_path / "nowhere")


def test_only_completed_trials_count(study: Path):
    assert [row["state"] for row, _, _ in best(read_study(study))] == ["COMPLETED"] * 6
