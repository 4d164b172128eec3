from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ddarts_analysis.collect import FEW_ROWS, collect, load, read_table
from ddarts_analysis.schema import SCHEMAS, VERSION, VERSION_KEY
from ddarts_analysis.study import read_study, with_alphas

from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import read_jsonl, write_jsonl
from ddarts_core.settings.config import resolve
from tests.analysis.conftest import CELLS, EPOCHS, MakeStudy, Parsed, genotype_of, record_of, write_study, write_trial


def test_all_tables_have_the_rows_of_the_folder(study: Path):
    done = collect(study)
    assert done.folder == study / "dataset"
    records = 6 * EPOCHS + 3 * 2  # finished trials, and two epochs of each that did not finish
    assert done.rows["trials"] == 9
    of_trial_3 = EPOCHS  # one metric more than the others have
    assert done.rows["epochs"] == records * (len(record_of(0, 0).metrics) + 1) + of_trial_3
    assert done.rows["contributions"] == records * CELLS
    assert done.rows["alphas"] == records * CELLS * 14 * 7
    assert done.rows["genotypes"] == sum(genotype_of(n).num_edges for n in range(6))
    assert not list(study.glob("dataset/**/.*"))


def test_collecting_holds_the_alphas_of_a_trial_or_two_at_a_time(study: Path, parsed: Parsed):
    done = collect(study)
    assert parsed.alphas == 6 * EPOCHS + 3 * 2 and done.rows["alphas"] == parsed.alphas * CELLS * 14 * 7
    assert parsed.most <= 2 * EPOCHS


def test_a_study_read_without_alphas_lacks_nothing_else(study: Path):
    whole, lean = read_study(study), read_study(study, alphas=False)
    for one, other in zip(whole.trials, lean.trials, strict=True):
        assert other.info == one.info and other.genotype == one.genotype
        assert [record.to_dict() for record in other.records] == [
            record.to_dict() | {"alphas": []} for record in one.records
        ]
        assert with_alphas(lean, other).records[0] == one.records[0] and one.records[0].alphas


def test_only_the_tables_that_are_named_are_built(study: Path, parsed: Parsed):
    lean = load(study, tables=("trials", "epochs"))
    assert parsed.alphas == 0
    whole = load(study)
    pd.testing.assert_frame_equal(lean.trials, whole.trials)
    pd.testing.assert_frame_equal(lean.epochs, whole.epochs)
    assert len(lean.alphas) == 0 < len(whole.alphas) and lean.alphas.columns.tolist() == whole.alphas.columns.tolist()


def test_values_survive(study: Path):
    collect(study)
    trials = read_table(study / "dataset", "trials").set_index("number")
    assert trials.loc[3, "study"] == "toy" and trials.loc[3, "method"] == "fairdarts"
    assert trials.loc[3, "derived_accuracy"] == pytest.approx(0.59)
    assert trials.loc[3, "held_out_accuracy"] == record_of(3, EPOCHS - 1).metrics["held_out/accuracy"]
    assert [trials.loc[number, "recalibration_batches"] for number in (2, 3)] == [0, 4]
    assert (trials.loc[3, "parameters"], trials.loc[3, "macs"]) == (1030, 5063)
    assert json.loads(trials.loc[3, "params_json"])["ablation.weight"] == 0.25
    assert trials.loc[3, "w_ablation"] == 0.0  # fairdarts has no ablation loss, whatever its weight says
    assert trials.loc[2, "w_ablation"] == 0.75
    assert trials["state"].value_counts().to_dict() == {"COMPLETED": 6, "PRUNED": 1, "FAILED": 1, "RUNNING": 1}
    genotypes = read_table(study / "dataset", "genotypes")
    text = genotypes[genotypes.trial_id == "00002"]["genotype_json"].iloc[0]
    assert Genotype.from_text(text) == genotype_of(2)
    alphas = read_table(study / "dataset", "alphas")
    row = alphas[(alphas.trial_id == "00000") & (alphas.epoch == 1) & (alphas.cell == 0) & (alphas.edge == 6)]
    assert row[["source", "target"]].iloc[0].tolist() == [1, 4] and row.op.tolist()[3] == "sep_conv_3x3"


def test_a_rewritten_epoch_counts_once_with_its_last_values(study: Path):
    epochs = load(study).epochs
    keys = epochs[["trial_id", "epoch", "phase", "split", "metric"]]
    assert not keys.duplicated().any()
    last = epochs[(epochs.trial_id == "00005") & (epochs.epoch == EPOCHS - 1) & (epochs.split == "alpha")]
    assert math.isnan(last["value"].iloc[0])


def test_gates_are_those_of_the_record_and_else_the_sigmoid_of_alpha(study: Path):
    path = study / "trials/00001/records.jsonl"
    first, *others = read_jsonl(path)
    softmax = tuple(tuple(tuple((op + 1) / 28 for op in range(7)) for _ in cell) for cell in first.alphas)
    write_jsonl(path, [replace(first, gates=softmax, parameters={"edges": [[0.5] * 14] * CELLS}), *others], timing=True)
    assert read_jsonl(path)[0].parameters["edges"][0][0] == 0.5
    rows = load(study).alphas.query("trial_id == '00001'")
    assert rows[rows.epoch == 0].gate.tolist()[:7] == pytest.approx([(op + 1) / 28 for op in range(7)])
    later = rows[rows.epoch == 1]
    assert later.gate.to_numpy() == pytest.approx(1 / (1 + np.exp(-later.alpha.to_numpy())))


def test_a_cut_off_last_line_is_left_out_but_a_damaged_line_is_an_error(study: Path):
    assert load(study).epochs.query("trial_id == '00008'").epoch.max() == 1
    path = study / "trials/00008/records.jsonl"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=r"records.jsonl: line 3 is not an epoch record"):
        load(study)


OTHERS = """
import sys
import duckdb, polars
files = sys.argv[1] + "/**/*.parquet"
for table in (
    polars.scan_parquet(files, hive_partitioning=True).collect().to_pandas(),
    duckdb.sql(f"select * from read_parquet('{files}', hive_partitioning = true)").df(),
):
    trials, studies = sorted(set(table["trial"].astype(int))), set(table["study"])
    print(len(table), float(table["value"].sum()), *trials, *studies, *sorted(table))
"""


def test_opens_in_pandas_polars_and_duckdb(study: Path):
    """The latter two in a process of their own: one that had run all tests before this once died in them."""
    collect(study)
    folder = study / "dataset" / "epochs"
    ours = read_table(study / "dataset", "epochs")
    with_pandas = pd.read_parquet(folder)
    assert len(with_pandas) == len(ours) and set(with_pandas.columns) == {*ours.columns, "trial"}
    assert set(with_pandas["trial"].astype(int)) == set(range(9)) and set(with_pandas["study"]) == {"toy"}
    assert with_pandas["value"].sum() == pytest.approx(ours["value"].sum())
    done = subprocess.run([sys.executable, "-c", OTHERS, str(folder)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        rows, total, *rest = line.split()
        assert int(rows) == len(ours) and float(total) == pytest.approx(ours["value"].sum())
        assert rest == [*map(str, range(9)), "toy", *sorted({*ours.columns, "trial"})]


def test_files_of_many_rows_are_zstd_and_all_have_the_documented_schema(study: Path):
    collect(study)
    for table, schema in SCHEMAS.items():
        file = pq.ParquetFile(study / "dataset" / table / "study=toy" / "trial=3" / "part-0.parquet")
        many = file.metadata.num_rows > FEW_ROWS
        assert file.metadata.row_group(0).column(0).compression == ("ZSTD" if many else "UNCOMPRESSED")
        assert many == (table == "alphas")
        assert file.schema_arrow.equals(schema, check_metadata=False)
        assert file.schema_arrow.metadata[VERSION_KEY] == b"2.5"
        for field in file.schema_arrow:
            assert field.metadata[b"description"]


def test_the_document_has_every_column_with_type_unit_and_meaning():
    text = (Path(__file__).parents[2] / "docs/analysis.md").read_text(encoding="utf-8")
    rows = []
    for table, schema in SCHEMAS.items():
        for field in schema:
            kind = "string" if pa.types.is_dictionary(field.type) else str(field.type)
            about = [field.metadata[key].decode() for key in (b"unit", b"description")]
            rows.append(" | ".join((f"| `{table}`", f"`{field.name}`", kind, *about)) + " |")
    expected = "\n".join(rows)
    found = "\n".join(line for line in text.splitlines() if re.match(r"\| `\w+` \| `\w+` \|", line))
    assert found == expected, f"the table of columns in docs/analysis.md should be\n{expected}"
    assert f"This is schema {VERSION}." in text


def test_collecting_again_replaces_and_studies_share_a_dataset(make_study: MakeStudy, tmp_path: Path):
    one, two = make_study("COMPLETED", name="one"), make_study("COMPLETED", "FAILED", name="two")
    out = tmp_path / "both"
    collect(one, out)
    write_trial(one, 5)
    for study in (one, two, two):
        collect(study, out)
    trials = read_table(out, "trials")
    assert trials.groupby("study").size().to_dict() == {"one": 2, "two": 2}
    assert len(load(one, two).trials) == 4


def test_collecting_again_adds_what_is_new_and_removes_what_is_gone(make_study: MakeStudy):
    study = make_study("COMPLETED", "COMPLETED")
    collect(study)
    files = study / "dataset/epochs/study=toy"
    old_layout = files / "part-0.parquet"
    old_layout.write_bytes((files / "trial=0/part-0.parquet").read_bytes())
    write_trial(study, 7)
    shutil.rmtree(study / "trials/00001")
    collect(study)
    assert sorted(path.relative_to(files).as_posix() for path in files.rglob("*")) == [
        "trial=0",
        "trial=0/part-0.parquet",
        "trial=7",
        "trial=7/part-0.parquet",
    ]
    assert set(read_table(study / "dataset", "alphas")["trial_id"]) == {"00000", "00007"}


def test_shapley_values_are_null_where_nobody_measured_them(make_study: MakeStudy):
    study = make_study("COMPLETED")
    records = [record_of(0, epoch) for epoch in range(2)]
    records[1] = replace(records[1], shapley=(-0.3, 0.1, 0.0, 0.2), shapley_errors=(0.01, 0.02, 0.03, 0.04))
    write_jsonl(study / "trials/00000/records.jsonl", records)
    collect(study)
    found = read_table(study / "dataset", "contributions").set_index(["epoch", "cell"])
    assert found.loc[0][["shapley", "shapley_error"]].isna().all(axis=None)
    assert found.loc[1]["shapley"].tolist() == [-0.3, 0.1, 0.0, 0.2]
    assert found.loc[1]["shapley_error"].tolist() == [0.01, 0.02, 0.03, 0.04]


@pytest.mark.parametrize("states", [(), ("FAILED", "FAILED"), ("RUNNING",)], ids=str)
def test_studies_without_a_result_have_tables_with_all_columns(make_study: MakeStudy, states):
    study = make_study(*states)
    collect(study)
    for table, schema in SCHEMAS.items():
        assert read_table(study / "dataset", table).columns.tolist() == ["study", *schema.names]
        assert getattr(load(study), table).columns.tolist() == ["study", *schema.names]
    assert len(load(study).trials) == len(states)


def _corrupt(study: Path, name: str, content: str) -> None:
    (study / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "study.json").unlink(), "is not a study"),
        (lambda s: _corrupt(s, "study.json", "{"), "cannot read .*study.json"),
        (lambda s: _corrupt(s, "study.json", '{"schema": 99, "name": "x"}'), "schema 99: this version reads 1"),
        (lambda s: _corrupt(s, "trials/00000/trial.json", "[]"), "trial.json must hold a JSON object"),
        (lambda s: _corrupt(s, "trials/00000/trial.json", '{"schema": 1}'), "lacks 'trial_id'"),
        (lambda s: _corrupt(s, "trials/00000/genotype.json", "rubbish"), "genotype.json: not a genotype"),
        (lambda s: _corrupt(s, "trials/00000/records.jsonl", "rubbish\n"), "line 1 is not an epoch record"),
    ],
)
def test_damage_is_one_sentence(study: Path, damage, message):
    damage(study)
    with pytest.raises(UserError, match=message) as caught:
        collect(study)
    assert "\n" not in str(caught.value)
    assert not (study / "dataset").exists()


def test_mistakes_when_reading_are_one_sentence(study: Path, tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="at least one study"):
        load()
    with pytest.raises(UserError, match="same name"):
        load(study, study)
    with pytest.raises(UserError, match="unknown table 'runs'"):
        read_table(study / "dataset", "runs")
    with pytest.raises(UserError, match="ddarts collect"):
        read_table(study / "dataset", "trials")
    collect(study)
    path = study / "dataset/trials/study=toy/trial=3/part-0.parquet"
    old = pq.ParquetFile(path).read()
    pq.write_table(old.replace_schema_metadata({VERSION_KEY: b"0.3"}), path)
    with pytest.raises(UserError, match=r"schema 0.3: this version reads 2.5"):
        read_table(study / "dataset", "trials")
    path.write_bytes(b"PAR1 rubbish")
    with pytest.raises(UserError, match="is damaged") as caught:
        read_table(study / "dataset", "trials")
    assert "\n" not in str(caught.value)


def test_alphas_of_a_network_without_cells_are_by_block_and_decision(tmp_path: Path):
    study = write_study(tmp_path / "blocks")
    options = {"blocks": [{"channels": [4, 6, 8]}, {"channels": [8], "kernel": [3, 5]}], "resolutions": [1, 2]}
    config = resolve({"method": "fbnetv2", "search": {"options": options}}).model_dump(mode="json")
    trial = write_trial(study, 0, config=config)
    (first, *_) = read_jsonl(trial / "records.jsonl")
    alphas, gates = (
        (((0.5, 0.25),), ((1.0, 2.0, 3.0),), ((4.0, 5.0),)),
        (((0.6, 0.4),), ((0.1, 0.2, 0.7),), ((0.3, 0.7),)),
    )
    write_jsonl(trial / "records.jsonl", [replace(first, alphas=alphas, gates=gates)], timing=True)
    rows = load(study).alphas
    assert list(zip(rows.cell, rows.edge, rows.op, rows.alpha, strict=True)) == [
        (0, 0, "step=1", 0.5),
        (0, 0, "step=2", 0.25),
        (0, 1, "channels=4", 1.0),
        (0, 1, "channels=6", 2.0),
        (0, 1, "channels=8", 3.0),
        (1, 0, "kernel=3", 4.0),
        (1, 0, "kernel=5", 5.0),
    ]
    assert rows.gate.tolist() == pytest.approx([0.6, 0.4, 0.1, 0.2, 0.7, 0.3, 0.7])
    write_jsonl(trial / "records.jsonl", [replace(first, alphas=alphas[:2], gates=gates)], timing=True)
    with pytest.raises(UserError, match="5 alphas and 7 gates where there are 7 options"):
        load(study)
