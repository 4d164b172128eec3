"""Commands that read a study or a genotype and write what people look at."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uvicorn
from ddarts import load_export
from ddarts_analysis.collect import load, read_table
from ddarts_analysis.gallery import FIGURES
from ddarts_tuning.store.study import find_study
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel, scoring_server
from onnxruntime import InferenceSession
from PIL import Image

from ddarts_cli.main import run
from ddarts_cli.sweeping import ATTACHED, attach_report
from ddarts_core.exports.export import Blueprint, read_safetensors, untrained
from ddarts_core.exports.serving import Predictor
from ddarts_core.genotypes.dead_cells import dead_cells
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.nested import read_yaml
from ddarts_core.loops import checkpoint
from ddarts_core.settings.config import resolve
from tests.analysis.conftest import EPOCHS, MakeStudy, Parsed, genotype_of, make_study, parsed, study
from tests.analysis.test_mlflow_source import log_study

__all__ = ["make_study", "parsed", "study"]  # fixtures


#: A search of seconds, and the network that it would retrain.
ONE = {
    "data": {"num_train": 100},
    "search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 2, "batch_size": 20},
    "discretise": {"on_dead_cell": "connect"},
    "retrain": {"channels": 2},
}
COUNTED = ("--channels", "2", "--image-size", "8", "--in-channels", "1", "--on-dead-cell", "connect")


def out_of(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Standard output of a command that must succeed."""
    status = run([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert status == 0, captured.err
    return captured.out


def mistake(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence of a command that must fail."""
    status = run([str(argument) for argument in arguments])
    err = capfd.readouterr().err
    assert status == 2 and err.startswith("Error: ") and err.count("\n") == 1, err
    return err


# --- compare ----------------------------------------------------------------------------------------------------------


def test_compare_shows_operations_distance_and_parameters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = []
    for number in (0, 1):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(genotype_of(number).to_json())
    document = json.loads(out_of(capfd, "compare", *paths, "--channels", "4", "--json"))
    assert not document["identical"] and 0 < document["distance"] <= 1
    counted = json.loads(out_of(capfd, "cost", paths[1], "--channels", "4", "--json"))
    assert document["b"]["parameters"] == counted["parameters"] and document["b"]["macs"] == counted["macs"]
    text = out_of(capfd, "compare", *paths, "--channels", "4")
    assert f"+ {paths[1]}: 4 cells, {genotype_of(1).num_edges} operations, {counted['parameters']:,} parameters" in text
    assert f"distance: {document['distance']:.3f}" in text and "cell 0: " in text
    op, source, target = document["cells"][0]["only_a"][0]
    assert f"  - {op} {source}->{target}\n" in text


def test_compare_knows_equals_and_both_layouts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "the same genotype" in out_of(capfd, "compare", "zoo:DARTS_V2", "zoo:DARTS_V2")
    path = tmp_path / "g.json"
    path.write_text(genotype_of(0).to_json())
    assert "distance: " in out_of(capfd, "compare", "zoo:DARTS_V2", path, "--channels", "4")
    assert "DARTS_V2" in mistake(capfd, "compare", "zoo:DARTS_V2", "zoo:DARTS_V9")


# --- figure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")], ids=["png", "svg", "pdf"]
)
def test_a_figure_in_each_format(
    study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, start: bytes
) -> None:
    path = tmp_path / f"pareto.{suffix}"
    assert f"wrote {path}" in out_of(capfd, "figure", study, "pareto", "--out", path)
    assert path.read_bytes().startswith(start)


def test_figures_are_listed_and_go_to_the_study(study: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert [line.split(":")[0] for line in out_of(capfd, "figure", study).splitlines()] == list(FIGURES)
    out_of(capfd, "figure", study, "gates", "--trial", "00001", "--cell", "3")
    assert (study / "figures" / "gates.png").stat().st_size > 10_000
    out_of(capfd, "figure", study, "distances")
    assert (study / "figures" / "distances.png").exists()


def test_a_trial_is_known_by_its_number(study: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out_of(capfd, "figure", study, "gates", "--trial", "1")
    assert "unknown trial '99': choose one of 00000" in mistake(capfd, "figure", study, "gates", "--trial", "99")


def test_contributions_are_those_of_the_best_trial_that_has_some(
    make_study: MakeStudy, capfd: pytest.CaptureFixture[str]
) -> None:
    study = make_study("COMPLETED", "COMPLETED")
    best = study / "trials/00001/records.jsonl"
    records = [json.loads(line) for line in best.read_text().splitlines()]
    best.write_text("".join(json.dumps({**record, "contributions": []}) + "\n" for record in records))
    out_of(capfd, "figure", study, "contributions")
    assert "'00001' recorded no contributions" in mistake(capfd, "figure", study, "contributions", "--trial", "1")


def test_contributions_of_a_pruned_trial_do_where_no_other_has_some(
    make_study: MakeStudy, capfd: pytest.CaptureFixture[str]
) -> None:
    study = make_study("COMPLETED", "PRUNED")
    best = study / "trials/00000/records.jsonl"
    records = [json.loads(line) for line in best.read_text().splitlines()]
    best.write_text("".join(json.dumps({**record, "contributions": []}) + "\n" for record in records))
    out_of(capfd, "figure", study, "contributions")


def test_mistakes_about_figures(study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "pareto" in mistake(capfd, "figure", study, "fig9")
    assert "leave that --reference out" in mistake(capfd, "figure", study, "pareto", "--reference", "macs=5")
    assert "parameters=NUMBER or macs=NUMBER" in mistake(capfd, "report", study, "--reference", "parameters=0")
    assert ".svg, .png or .pdf" in mistake(capfd, "figure", study, "pareto", "--out", tmp_path / "x.bmp")
    assert "ten completed trials" in mistake(capfd, "figure", study, "importance")
    assert "skip_connections" in mistake(capfd, "figure", study, "skips")
    assert "pareto is not about one trial: leave --trial" in mistake(capfd, "figure", study, "pareto", "--trial", "1")
    assert "not about one trial" in mistake(capfd, "figure", study, "distances", "--trial", "1")
    assert "not about one cell: leave --cell" in mistake(capfd, "figure", study, "operations", "--cell", "0")
    assert "name of a figure" in mistake(capfd, "figure", study, "--out", tmp_path / "x.png")


# --- collect ----------------------------------------------------------------------------------------------------------


def test_a_study_in_one_file_gives_what_its_folder_gives_or_says_what_it_lacks(
    make_study: MakeStudy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study, file = make_study(*["COMPLETED"] * 12), tmp_path / "toy.parquet"
    facts = json.loads((study / "study.json").read_text())
    paths = ("search.w_zero_one", "ablation.weight")
    facts["config"]["space"] = {path: {"type": "float", "low": 0, "high": 2} for path in paths}
    facts["earlier"] = {"00003": {"apart": ["search.epochs"]}}
    (study / "study.json").write_text(json.dumps(facts))
    out_of(capfd, "collect", study, "--out", file)
    for name, what in (("folder", study), ("file", file)):
        out_of(capfd, "figure", what, "importance", "--out", tmp_path / f"{name}.svg")
    assert (tmp_path / "file.svg").read_bytes() == (tmp_path / "folder.svg").read_bytes()
    for name in ("confusion", "mistakes"):
        assert f"in one file, which does not keep what the figure {name} shows" in mistake(capfd, "figure", file, name)
    pages = []
    for what in (study, file):
        assert ("ddarts export" in out_of(capfd, "report", what, "--out", tmp_path / "r.html")) == (what == study)
        pages.append((tmp_path / "r.html").read_text())
    assert all("Importance of each setting" in page for page in pages)
    assert ["ddarts export" in page for page in pages] == [True, False]
    assert ["This page was made of a study in one file" in page for page in pages] == [False, True]
    assert f"ddarts export {study}\n" in out_of(capfd, "report", file, study, "--out", tmp_path / "r.html")


def test_collect_from_mlflow_alone(study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    log_study(uri, study)
    capfd.readouterr()
    assert out_of(capfd, "collect", "--tracking-uri", uri) == "toy\n"
    out = tmp_path / "from_mlflow"
    assert f"wrote {out}" in out_of(capfd, "collect", "toy", "--tracking-uri", uri, "--out", out)
    assert "wrote" in out_of(capfd, "collect", study)
    one, two = (read_table(folder, "epochs") for folder in (out, study / "dataset"))
    assert len(one) > 100 and one["value"].sum() == pytest.approx(two["value"].sum())
    assert "toy" in mistake(capfd, "collect", "other", "--tracking-uri", uri)
    assert "no MLflow database" in mistake(capfd, "collect", "toy", "--tracking-uri", "sqlite:///nowhere.db")
    assert "name the study" in mistake(capfd, "collect")


# --- table ------------------------------------------------------------------------------------------------------------


def test_published_tables_have_the_papers_columns_and_numbers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = out_of(capfd, "table", "--published", "1")
    assert "| Models | Params (M) | Loss | Top-1 (%) | Layers | Cost |" in first
    assert (
        "| DD-4 ◇ | 7.6 | L_T | 97.75 | 14 | 0.5 |" in first and "| U-DARTS | 3.3 | L_CE | 97.41 | 20 | N.D. |" in first
    )
    third = out_of(capfd, "table", "--published", "3", "--out", tmp_path / "t.md")
    assert "| DO-2-ResNet18 | 53.4 | 8619 | sparse | L_T | 77.0 | 4 | 0.3 | S_o | CIFAR-100 |" in third
    assert (tmp_path / "t.md").read_text().strip() in third
    counts = [
        sum(line.startswith("| ") for line in out_of(capfd, "table", "--published", n).splitlines()) for n in "123"
    ]
    assert counts == [15, 13, 18]  # rows and the head
    assert "**" not in first + third and "own retrains: the mean" not in first + third
    assert "--by" in mistake(capfd, "table", "study")
    assert "--published" in mistake(capfd, "table", "--published", "6")
    assert "no finished retrain" in mistake(capfd, "table", "--published", "1", tmp_path)


# --- report -----------------------------------------------------------------------------------------------------------


def test_report_and_figures_are_attached_to_the_studys_run(study: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    parent = log_study(uri, study)
    data = json.loads((study / "study.json").read_text()) | {"tracking_uri": uri, "parent_run_id": parent}
    (study / "study.json").write_text(json.dumps(data))
    assert attach_report(find_study(study)) == study / "report.html"
    client = MlflowClient(tracking_uri=uri)
    assert [file.path for file in client.list_artifacts(parent)] == ["figures", "report.html"]
    names = [file.path for file in client.list_artifacts(parent, "figures")]
    assert names == [f"figures/{name}.png" for name in sorted({*ATTACHED} - {"confusion"})]  # the toy study has none


def test_the_end_of_a_sweep_reads_each_trial_once_and_the_alphas_of_one(
    study: Path, parsed: Parsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the study's tracking URI is a file here
    attach_report(find_study(study))
    assert sorted(parsed.files) == sorted([f"{number:05d}" for number in range(9)] + ["00005"])  # its gates are shown
    assert parsed.alphas == EPOCHS
    assert {path.stem for path in (study / "figures").iterdir()} == {*ATTACHED} - {"confusion"}


def test_figures_and_tables_keep_no_alphas_but_of_the_gates(
    study: Path, parsed: Parsed, capfd: pytest.CaptureFixture[str]
) -> None:
    out_of(capfd, "figure", study, "distances")
    out_of(capfd, "table", study, "--by", "method")
    assert parsed.alphas == 0
    out_of(capfd, "figure", study, "gates", "--trial", "1")
    assert parsed.alphas == EPOCHS


def test_a_store_that_is_away_costs_only_a_warning(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = json.loads((study / "study.json").read_text()) | {"tracking_uri": "http://127.0.0.1:9"}
    (study / "study.json").write_text(json.dumps(data))
    assert attach_report(find_study(study)).exists()
    assert "report of the study" in caplog.text


# --- export -----------------------------------------------------------------------------------------------------------

TINY = {"data": {"num_train": 100}, "retrain": {"epochs": 1, "channels": 2, "device": "cpu"}}


IMAGES = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)


def logits_of(folder: Path) -> np.ndarray:
    return Predictor(folder / "weights.safetensors").predict(IMAGES)


def served(model: PyFuncModel, card: str, capfd: pytest.CaptureFixture[str]) -> None:
    """MLflow's server of the model on the loopback interface answers the card's own code as `load_export` does."""
    server = uvicorn.Server(uvicorn.Config(scoring_server.init(model), "127.0.0.1", 0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        Image.fromarray(np.arange(300, dtype=np.uint8).reshape(20, 15)).save("image.png")
        (block,) = (code for code in re.findall(r"```python\n(.*?)```", card, re.S) if "invocations" in code)
        capfd.readouterr()
        found: dict[str, Any] = {}
        exec(block.replace(":5001", f":{port}"), found)
        ((name, _),) = load_export(".").classify(["image.png"], top=1)[0]
        assert capfd.readouterr().out == f"{name}\n"
        np.testing.assert_allclose(found["logits"], load_export(".").predict("image.png")[0], rtol=1e-6)
    finally:
        server.should_exit = True
        thread.join()


def test_export_with_weights_onnx_program_and_registry(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From a study over a retrain to a registered model: the day of a user."""
    study = make_study("COMPLETED")
    out_of(capfd, "export", study, "--top", "1")
    (folder,) = (study / "export").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert "weights.safetensors" not in names and "model.onnx" not in names
    cost = json.loads((folder / "cost.json").read_text())
    assert cost["parameters"] == 1000 and cost["dead_cells"] == list(
        dead_cells(Genotype.load(folder / "genotype.json").cells)
    )
    assert "trained weights" in mistake(capfd, "export", study, "--top", "1", "--register", "digits")

    settings = [f"--set={group}.{key}={value}" for group, part in TINY.items() for key, value in part.items()]
    retrain = folder / "retrain"
    arguments = [folder / "genotype.json", "--config", folder / "config.yaml", "--seeds", "2", "--out", retrain]
    out_of(capfd, "retrain", *arguments, *settings)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    text = out_of(
        capfd, "export", study, "--top", "1", "--onnx", "--program", "--register", "digits", "--tracking-uri", uri
    )
    assert "registered digits, version 1, alias best" in text
    logits = logits_of(folder)
    session = InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["logits"], {"images": IMAGES})[0], logits, atol=1e-4)
    program = torch.export.load(folder / "model.pt2").module()
    np.testing.assert_allclose(program(torch.from_numpy(IMAGES)).detach().numpy(), logits, atol=1e-5)
    card = (folder / "README.md").read_text()
    result = json.loads((retrain / "result.json").read_text())["test"]["genotype"]
    assert f"| test accuracy of these weights | {100 * result['accuracies'][0]:.2f} % |" in card
    assert "trained with seed 0" in card and "- `model.onnx`: the trained network" in card

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    loaded = mlflow.pyfunc.load_model("models:/digits@best")
    (spec,) = loaded.metadata.signature.inputs.inputs
    assert (spec.type, spec.shape) == (np.float32, (-1, 1, 8, 8))
    pixels = (255 * IMAGES).astype(np.uint8)
    of_pixels = Predictor(folder / "weights.safetensors").predict(pixels)
    for given, answer in ((IMAGES, logits), (IMAGES.astype(np.float64), logits), (pixels, of_pixels)):
        np.testing.assert_array_equal(loaded.predict(given), answer)
    np.testing.assert_array_equal(loaded.predict(pixels.astype(np.int64)), of_pixels)
    assert loaded.predict(loaded.input_example).shape == (1, 10)
    version = MlflowClient(uri).get_model_version_by_alias("digits", "best")
    assert version.tags["weights"] == "ddarts retrain"
    assert float(version.tags["test/accuracy"]) == pytest.approx(result["accuracies"][0], rel=1e-5)
    assert f"{100 * result['accuracies'][0]:.2f} %" in version.description
    monkeypatch.chdir(folder)
    served(loaded, card := (folder / "README.md").read_text(), capfd)
    assert f"MLFLOW_TRACKING_URI={uri} {re.findall('mlflow models serve .*', card)[0]}" in text

    assert (tmp_path / "mlartifacts").is_dir()  # beside the database, not where the command was run

    one = tmp_path / "alone"
    text = out_of(capfd, "export", retrain, "--out", one, "--register", "digits", "--tracking-uri", uri)
    assert "version 2" in text
    np.testing.assert_array_equal(logits_of(one), logits)
    client = MlflowClient(tracking_uri=uri)
    version = client.get_model_version_by_alias("digits", "best")
    assert str(version.version) == "2" and version.tags["genotype_hash"] == genotype_of(0).hash
    card = (one / "README.md").read_text()
    counted = json.loads((one / "cost.json").read_text())
    assert f"| parameters (without auxiliary head) | {counted['parameters']:,} |" in card
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chosen")
    assert "version 3" in out_of(capfd, "export", retrain, "--out", one, "--register", "digits")
    run = client.get_run(client.get_model_version("digits", "3").run_id)
    assert run.data.metrics["test/accuracy"] == result["accuracies"][0]
    assert client.get_experiment(run.info.experiment_id).name == "chosen"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "--tracking-uri" in mistake(capfd, "export", retrain, "--register", "digits")

    table = out_of(capfd, "table", "--published", "1", retrain).strip()
    last = table.splitlines()[-3]
    assert last.startswith("| retrain (here: digits, 2 seeds) | 0.0") and " ± " in last and "| 4 | N.D. |" in last
    assert table.endswith("; Top-1 of own retrains: the mean over their seeds ± the standard deviation.")
    small = out_of(capfd, "table", "--published", "3", retrain).strip().splitlines()[-3]
    assert re.search(r"\| 0\.0\d+ \| 0\.0*[1-9]\d? \|", small), small  # parameters and multiply-adds in millions


def test_an_untrained_model_says_so_and_old_models_go(
    make_study: MakeStudy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = make_study("COMPLETED")
    out_of(capfd, "export", study, "--program")
    (folder,) = (study / "export").iterdir()
    assert (folder / "model.pt2").exists()
    card = (folder / "README.md").read_text()
    assert "freshly initialised, not trained" in card and "the untrained network as a torch.export program" in card
    out_of(capfd, "export", study)
    assert not (folder / "model.pt2").exists() and "model.pt2" not in (folder / "README.md").read_text()

    genotype, config = Genotype.load(folder / "genotype.json"), resolve(read_yaml(folder / "config.yaml"))
    network = untrained(Blueprint.of(genotype, config), 0)
    kept = {"weights": network.state_dict(), "genotype": genotype.to_json()}
    checkpoint.save(study / "trials" / "00000" / "weights.pt", kept)  # as a sweep does of its best trial
    out_of(capfd, "export", study)
    exported, _ = read_safetensors(folder / "weights.safetensors")
    assert all(torch.equal(exported.state_dict()[name], value) for name, value in network.state_dict().items())
    assert "of the trial's own short training, " in (folder / "README.md").read_text()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    text = out_of(capfd, "export", study, "--top", "1", "--register", "digits", "--tracking-uri", uri)
    assert "registered digits, version 1, alias best: a trial's own short training" in text
    tags = MlflowClient(uri).get_model_version("digits", "1").tags
    assert "short training" in tags["weights"] and "test/accuracy" not in tags


def test_one_chosen_trial_is_exported_beside_the_best(study: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At its place in the order; also one that others found before it."""
    out_of(capfd, "export", study, "--top", "1")
    (study / "trials/00004/genotype.json").write_bytes((study / "trials/00001/genotype.json").read_bytes())
    assert "trial 00001" in out_of(capfd, "export", study, "--trial", "1")
    names = sorted(folder.name for folder in (study / "export").iterdir())
    assert names == [f"01_{genotype_of(5).hash}", f"02_{genotype_of(1).hash}"]
    assert "Trials 00004 found the same" in (study / "export" / names[1] / "README.md").read_text()
    assert "unknown trial '99'" in mistake(capfd, "export", study, "--trial", "99")
    assert "'00006' is pruned and left no genotype" in mistake(capfd, "export", study, "--trial", "6")
    assert "choose one of 00000, 00001" in mistake(capfd, "export", study, "--trial", "7")  # failed
    assert "--top" in mistake(capfd, "export", study, "--trial", "1", "--top", "2")
    (study.parent / "result.json").write_text("{}")
    assert "is a retrain" in mistake(capfd, "export", study.parent, "--trial", "1")


def test_an_export_says_when_there_are_fewer_than_wanted(
    make_study: MakeStudy, capfd: pytest.CaptureFixture[str]
) -> None:
    study = make_study("COMPLETED", "PRUNED", "PRUNED")
    said = out_of(capfd, "export", study, "--top", "3")
    assert "no more than 1 distinct genotype to export: of its 3 trials, 1 completed, 2 pruned" in said
    assert "no more than" not in out_of(capfd, "export", study, "--top", "1")


def test_a_retrain_without_weights_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert "no trained weights" in mistake(capfd, "export", tmp_path)


# --- a single search --------------------------------------------------------------------------------------------------


def test_a_single_search_is_a_study_of_one_trial(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its epochs and its genotype are those of its own files; one that has not ended is told how to go on."""
    file, folder = tmp_path / "one.yaml", tmp_path / "runs" / "one"
    file.write_text(json.dumps({"name": "one", "storage": str(folder.parent), **ONE}))
    out_of(capfd, "search", file)
    records = pq.read_table(folder / "records.parquet").to_pylist()
    shown = json.loads(out_of(capfd, "status", folder, "--json"))
    assert (shown["state"], shown["epochs"], shown["num_epochs"]) == ("FINISHED", 2, 2)
    assert shown["metrics"]["held_out/accuracy"] == records[-1]["held_out/accuracy"]
    assert f"genotype {shown['genotype_hash']}" in out_of(capfd, "status", folder)

    frames = load(folder)
    (trial,) = frames.trials.to_dict("records")
    assert (trial["objective"], trial["num_epochs"]) == (records[-1]["held_out/accuracy"], 2)
    counted = json.loads(out_of(capfd, "cost", folder / "genotype.json", *COUNTED, "--json"))
    assert trial["parameters"] == counted["parameters"]
    assert list(frames.contributions["contribution"]) == [m for row in records for m in row["contributions"]]
    assert len(frames.alphas) == sum(len(edge) for row in records for cell in row["alphas"] for edge in cell)

    assert f"wrote {folder / 'report.html'}" in out_of(capfd, "report", folder)
    assert "1 of 1" in (folder / "report.html").read_text(encoding="utf-8")
    for name in ("contributions", "gates", "accuracy"):
        assert f"wrote {folder / 'figures' / name}.png" in out_of(capfd, "figure", folder, name)
    out_of(capfd, "collect", folder)
    assert list(read_table(folder / "dataset", "trials")["objective"]) == list(frames.trials["objective"])
    tabulated = out_of(capfd, "table", folder, "--by", "method")
    assert f"| ddarts | 1 | {records[-1]['held_out/accuracy']:.4f} |" in tabulated
    out_of(capfd, "export", folder)
    (exported,) = (folder / "export").iterdir()
    assert (exported / "genotype.json").read_bytes() == (folder / "genotype.json").read_bytes()
    assert "without trained weights" in mistake(capfd, "export", folder, "--register", "name")

    (folder / "search.json").unlink()
    for command in ("report", "export"):
        assert "has not come to its end" in mistake(capfd, command, folder)
    assert "UNFINISHED, epoch 2 of 2" in out_of(capfd, "status", folder)
