"""`ddarts distance`, `ddarts op-weights`, and what a search that has a start leaves beside what it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddarts_cli.main import run
from ddarts_core.training.retrain import Retrain
from tests.test_cli import mistake

MEASURE = [
    "op-weights",
    "experiments/dartopti.yaml",
    "--places",
    "1",
    *("--set", "search.start=experiments/starts/vgg.json", "--set", "search.space=S"),
    *("--set", "data.num_train=60", "--set", "retrain.batch_size=24"),
    *("--set", "retrain.channels=2", "--set", "retrain.epochs=1"),
]


def test_distance_of_two_genotypes_and_of_their_cells(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair = ["distance", "zoo:ResNet18", "zoo:ResNet50"]
    assert run(pair) == 0
    assert capfd.readouterr().out.splitlines()[0] == "distance: 0.0836"
    assert run(["distance", "zoo:ResNet18", "zoo:Xception", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["space"] == "S_o" and len(found["cells"]) == 13 and found["cells"][4:] == [1.0] * 9
    weights = tmp_path / "weights.json"
    weights.write_text('{"skip_connect": 1}')
    assert "conv_3x1_1x3 of search.space S_o has no weight" in mistake(capfd, *pair, "--weights", weights)
    assert "two shared cells" in mistake(capfd, "distance", "zoo:DARTS_V2", "zoo:DD_5")


def test_weights_are_measured_on_where_they_were_interrupted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "weights.json"
    scored = []
    evaluate = Retrain.evaluate

    def interrupted(run: Retrain, images: object) -> object:
        scored.append(run.genotype.hash)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return evaluate(run, images)

    monkeypatch.setattr(Retrain, "evaluate", interrupted)
    assert run([*MEASURE, "--out", str(out)]) == 130
    assert len(json.loads(out.read_text())["trainings"]) == 2
    assert run([*MEASURE, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [each["operation"] for each in found["trainings"]] == [
        *(
            "max_pool_3x3",
            "avg_pool_3x3",
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
        )
    ]
    assert scored[2] == scored[3] and len(set(scored)) == 7, "each operation makes another network, at one place"
    assert all(found["weights"][e["operation"]] == 100 * e["accuracy"] for e in found["trainings"])
    capfd.readouterr()
    assert "holds another measurement" in mistake(capfd, *MEASURE, "--set", "seed=7", "--out", out)
    assert run(["distance", "zoo:DD_4", "zoo:DD_5", "--weights", str(out)]) == 0


def test_a_search_trains_its_start_beside_what_it_finds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With the same recipe, images and seed: as a retrain of the start alone."""
    small = ["data.num_train=120", "search.channels=2", "search.warmup_epochs=0", "search.epochs=1"]
    small += ["search.batch_size=20", "retrain.channels=2", "retrain.epochs=1", "retrain.batch_size=50"]
    given = [word for setting in small for word in ("--set", setting)]
    search = ["search", "experiments/dartopti.yaml", "--retrain", "--out", str(tmp_path / "found"), *given]
    assert run(search) == 0
    said = capfd.readouterr().out
    assert "test accuracy of the start architecture (" in said and "the genotype and the start" in said.lower()
    retrain = tmp_path / "found" / "retrain"
    result = json.loads((retrain / "result.json").read_text())
    assert list(result["test"]) == ["genotype", "start"] and result["comparison_start"]["method"] == "none"
    alone = [
        "retrain",
        "zoo:ResNet18",
        "--config",
        str(tmp_path / "found" / "config.yaml"),
        "--out",
        str(tmp_path / "r"),
    ]
    assert run(alone) == 0
    own = json.loads((tmp_path / "r" / "result.json").read_text())["test"]["genotype"]
    assert {**result["test"]["start"]} == own
    assert run([*search, "--resume"]) == 0
    assert "holds this retrain, finished" in capfd.readouterr().out
