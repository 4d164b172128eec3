"""A study's plug-ins: trials get them from the sweep, and whoever goes on with the study gives them again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ddarts_analysis.study import read_study
from ddarts_tuning.driver.extending import extend_sweep
from ddarts_tuning.driver.sweep import resume_sweep, run_sweep
from ddarts_tuning.store.plugins import _plain, _source

from ddarts_cli.main import run
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.plugin_files import Source

from .conftest import Make


def my_plugin(folder: Path, comment: str = "") -> Path:
    """That of the documents, with a space that leaves its operation as the only choice."""
    text = Path("docs/extending.md").read_text()
    (code,) = re.findall(r"```python\n(from pydantic import Field\n.*?)```", text, re.S)
    path = folder / "my_plugin.py"
    path.write_text(code.replace('(*S, "grouped_conv_3x3")', '("grouped_conv_3x3", "none")') + comment)
    return path


def test_files_are_sent_as_they_are() -> None:
    source = Source("mine", {"mine/__init__.py": b"import json", "mine/a.bin": b"\xff"}, "of an earlier version")
    assert _source(json.loads(json.dumps(_plain(source)))) == source


def test_a_sweep_with_a_plugin(
    make_sweep: Make, ray_cluster: None, my_searcher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = my_plugin(tmp_path)
    plugin, searcher = plugins.load(str(file)), plugins.load(str(my_searcher))
    file.unlink()  # what was loaded is what runs: nothing is read from there, or from the study's folder
    config = make_sweep(
        "own",
        method="entropic",
        search={"channels": 4, "epochs": 1},
        discretise={"rule": "darts"},
        space={"search.options.coldest": {"type": "float", "low": 0.1, "high": 0.9}},
        tune={"num_samples": 1, "objective": "supernet", "searcher": "mutation"},
    )
    study = run_sweep(config).study
    (trial,) = study.trials()
    assert (trial["state"], trial["reason"]) == ("COMPLETED", None), trial["reason"]
    genotype = Genotype.from_text((study.path / "trials" / "00000" / "genotype.json").read_text())
    assert {edge.op for cell in genotype.cells for edge in cell.edges} == {"grouped_conv_3x3"}
    made_with = [("my_plugin", plugin.source.sha256), ("my_searcher", searcher.source.sha256)]
    assert [(made["name"], made["sha256"]) for made in study.data["plugins"]] == made_with
    assert not list(study.path.rglob("*.py"))
    assert resume_sweep(study.path).study.state == "FINISHED"

    plugins.unload(plugin)
    wanted = (
        f"study 'own' was made with the plug-in 'my_plugin' (sha256 {plugin.source.sha256[:12]}), which is not loaded: "
        "give it again, with --plugin FILE, FOLDER or MODULE (in Python: ddarts.plugins.load)"
    )
    for go_on in (lambda: resume_sweep(study.path), lambda: extend_sweep(config, 1), lambda: read_study(study.path)):
        with pytest.raises(UserError) as refused:
            go_on()
        assert str(refused.value) == wanted
    assert run(["resume", str(study.path)]) == 2
    assert f"Error: {wanted}\n" in capsys.readouterr().err

    other = plugins.load(str(my_plugin(tmp_path, "# changed\n")))
    with pytest.raises(UserError, match="made with another content of the plug-in 'my_plugin': its sha") as told:
        resume_sweep(study.path)
    assert plugin.source.sha256[:12] in str(told.value) and other.source.sha256[:12] in str(told.value)
    assert read_study(study.path).trials[0].genotype == genotype  # to look at it, the names will do
    plugins.unload(other)
    assert run(["table", str(study.path), "--by", "method", "--plugin", str(my_plugin(tmp_path))]) == 0
