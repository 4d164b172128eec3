"""docs/results.md says what its data say: its tables and verdicts on the truth are made again from docs/results/."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from ddarts_analysis.regret import judge, markdown
from ddarts_analysis.study import Study, read_study
from ddarts_analysis.truth import truth_of
from ddarts_tuning.settings.config import load_sweep
from ddarts_tuning.settings.truth import load_truth

from ddarts_cli.main import run
from ddarts_core.settings.hashing import config_hash

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "results"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
FIGURES = sorted((DATA / "figures").glob("*.parquet"))
#: Every `ddarts table` of a kept study on the page, with the table below it.
TABLES: list[tuple[str, str]] = re.findall(
    r"^    ddarts table (docs/results/\S+\.parquet .*)\n\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE
)


@pytest.fixture(scope="module", params=["digits", "fashion"])
def images(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def studies(images: str) -> dict[str, Study]:
    return {name: read_study(DATA / images / f"{name}.parquet") for name in ("truth", "regret")}


@pytest.mark.parametrize(("name", "load"), [("truth", load_truth), ("regret", load_sweep)])
def test_the_data_belong_to_the_settings_of_today(
    studies: dict[str, Study], images: str, name: str, load: Callable[[Path], Any]
) -> None:
    """A setting that is new or has another default changes the hash: the study is to be run again then."""
    info, file = studies[name].info, f"experiments/{name}_{images}.yaml"
    assert info["config_hash"] == config_hash(load(ROOT / file))
    assert file in WORDS and f"hash {info['config_hash']}" in WORDS
    assert all(f"{package} {info['versions'][package]}" in WORDS for package in ("python", "torch", "ray"))


@pytest.mark.parametrize("file", FIGURES, ids=lambda file: file.stem)
def test_the_figures_belong_to_the_settings_of_today(file: Path) -> None:
    info = read_study(file).info
    assert info["config_hash"] == config_hash(load_sweep(ROOT / "experiments" / "evidence" / f"{file.stem}.yaml"))
    assert f"experiments/evidence/{file.stem}.yaml" in WORDS and f"hash {info['config_hash']}" in WORDS


@pytest.mark.parametrize(("arguments", "table"), TABLES, ids=[arguments for arguments, _ in TABLES])
def test_a_command_prints_the_table_below_it(
    arguments: str, table: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(["table", *arguments.split()]) == 0
    assert capfd.readouterr().out.startswith(table)


def test_every_figure_has_its_tables_and_its_picture() -> None:
    assert len(FIGURES) == 3
    for file in FIGURES:
        assert f"(results/figures/{file.stem}.png)" in PAGE and file.with_suffix(".png").exists()
        assert any(file.name in arguments for arguments, _ in TABLES)


def test_the_data_are_small() -> None:
    assert sum(file.stat().st_size for file in DATA.rglob("*.parquet")) < 2_000_000


def test_the_tables_and_verdicts_are_those_of_the_data(studies: dict[str, Study]) -> None:
    found = judge(truth_of(studies["truth"]), [studies["regret"]])
    words, *tables = markdown(found).split("\n\n")
    assert words in WORDS
    assert len(tables) == 4 and not [table for table in tables if table not in PAGE]
    assert not [sentence for sentence in verdicts(found) if sentence not in WORDS]


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """What the answers of the page rest on, in its words."""
    methods = {one["method"]: one["difference"] for one in found["methods"]}
    correlations = {name.replace("_", " "): one for name, one in {**found["cells"], **found["predictors"]}.items()}
    for what in ("one_shot", "gates"):
        correlations |= {f"{what.replace('_', '-')} of {one['method']}": one[what] for one in found["methods"]}
    best = [one["method"] for one in found["searches"] if one["regret"] == 0]
    return [
        "Searches that ended at the best genotype: "
        + (", ".join(f"{name} {best.count(name)}" for name in dict.fromkeys(best)) or "none")
        + ".",
        *(
            f"{sum(one[what]['low'] > 0 for one in known)} of {len(known)}"
            for what in ("one_shot", "gates")
            if (known := [one for one in found["methods"] if not isnan(one[what]["mean"])])
        ),
        "Better than random search of the same cost: " + listed(methods, lambda one: one["high"] < 0),
        "Worse: " + listed(methods, lambda one: one["low"] > 0),
        "Not to be told apart: " + listed(methods, lambda one: one["low"] <= 0 <= one["high"]),
        "An interval above 0 have: " + listed(correlations, lambda one: one["low"] > 0),
        "An interval below 0 have: " + listed(correlations, lambda one: one["high"] < 0),
        "An interval that holds 0 have: " + listed(correlations, lambda one: one["low"] <= 0 <= one["high"]),
    ]


def listed(rows: Mapping[str, Mapping[str, float]], fits: Callable[[Mapping[str, float]], bool]) -> str:
    return (", ".join(name for name, one in rows.items() if fits(one)) or "none") + "."
