"""A study that was packed into one file is the study that was packed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ddarts_analysis.collect import collect
from ddarts_analysis.packed import OF_THE_MACHINE
from ddarts_analysis.study import read_study, with_alphas

from ddarts_core.ground.errors import UserError
from tests.analysis.conftest import MakeStudy


@pytest.mark.parametrize("states", [(), ("COMPLETED", "FAILED", "RUNNING", "COMPLETED")])
def test_all_that_a_study_recorded_is_in_its_file(make_study: MakeStudy, tmp_path: Path, states: tuple[str, ...]):
    folder, file = make_study(*states), tmp_path / "toy.parquet"
    assert collect(folder, file).rows == {"trials": len(states)}
    before, after = read_study(folder), read_study(file, alphas=False)
    assert [trial.info for trial in after.trials] == [
        {name: value for name, value in trial.info.items() if name not in OF_THE_MACHINE} for trial in before.trials
    ]
    for old, new in zip(before.trials, after.trials, strict=True):
        lines = [record.line for record in old.records]  # `==` of records leaves their seconds out
        assert [record.line for record in with_alphas(after, new).records] == lines and lines
        assert new.genotype == old.genotype
    left_out = {"command", "base", "tracking_uri", "experiment_id", "parent_run_id"}
    kept = {name: value for name, value in before.info.items() if name not in left_out}
    assert {**after.info, "config": kept["config"]} == kept
    assert after.info["config"] == kept["config"]


def test_others_read_its_columns(study: Path, tmp_path: Path):
    collect(study, tmp_path / "toy.parquet")
    rows = pd.read_parquet(tmp_path / "toy.parquet").set_index("number")
    assert (rows["method"][1], rows["derived_accuracy"][2], rows["parameters"][3]) == ("fairdarts", 0.56, 1030)


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path: Path):
    file = tmp_path / "other.parquet"
    with pytest.raises(UserError, match="there is no such file"):
        read_study(file)
    pd.DataFrame({"number": [1]}).to_parquet(file)
    with pytest.raises(UserError, match=r"is not a study: ddarts collect STUDY --out FILE\.parquet"):
        read_study(file)
    file.write_bytes(b"PAR1 rubbish")
    with pytest.raises(UserError, match="is damaged") as caught:
        read_study(file)
    assert "\n" not in str(caught.value)


def test_a_file_names_the_plug_ins_that_its_study_needs(study: Path, tmp_path: Path):
    facts = json.loads((study / "study.json").read_text())
    facts["plugins"] = [{"name": "blur", "sha256": "0" * 64}]
    (study / "study.json").write_text(json.dumps(facts))
    collect(study, tmp_path / "toy.parquet")
    table = pq.read_table(tmp_path / "toy.parquet")
    texts = [str(text).replace("sep_conv_3x3", "blur_3x3") for text in table["genotype_json"].to_pylist()]
    place = table.column_names.index("genotype_json")
    pq.write_table(table.set_column(place, "genotype_json", pa.array(texts)), tmp_path / "toy.parquet")
    with pytest.raises(UserError, match="plug-in 'blur'"):
        read_study(tmp_path / "toy.parquet")
