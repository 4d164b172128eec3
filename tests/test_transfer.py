"""`ddarts transfer`: its files, its page, its row in the paper's table, its run in MLflow, and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

from ddarts_cli.main import run
from ddarts_core.ground.nested import override
from ddarts_core.transfer import shapes
from ddarts_core.transfer.settings import TASKS
from tests.test_cli import mistake

TINY = {
    "network.channels": 2,
    "network.pyramid": 8,
    "training.epochs": 1,
    "training.batch_size": 2,
    "training.lr_epochs": [],
    "training.warmup_steps": 2,
    "training.shortest_side": [48, 48],
    "training.longest_side": 64,
}
SET = [word for path, value in TINY.items() for word in ("--set", override(path, value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    shapes.write("coco-detection", root, 3, 2)
    return root


def words(data: Path, out: Path, *more: str) -> list[str]:
    return [
        "transfer",
        "zoo:ResNet18",
        "--recipe",
        "retinanet-small",
        "--data-root",
        str(data),
        "--out",
        str(out),
        *more,
    ]


def test_a_training_leaves_files_a_page_a_row_and_a_run(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "found", f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert run(words(data, out, *SET, "--tracking-uri", store)) == 0
    said = capfd.readouterr().out
    assert "train2017: 3 images with" in said and f"ddarts table --published 4 {out}" in said
    result = json.loads((out / "transfer.json").read_text())
    (row,) = pq.read_table(out / "records.parquet").to_pylist()
    assert row["phase"] == "transfer" and row["held_out/box_ap50"] == result["scores"]["box_ap50"]
    assert result["classes"] == ["circle", "square", "triangle"] and result["images"] == {"train": 3, "held_out": 2}
    with Image.open(out / "predictions.png") as picture:
        assert picture.width > 320
    client = MlflowClient(store)
    (logged,) = client.search_runs([client.get_experiment_by_name("transfer").experiment_id])
    assert logged.info.status == "FINISHED" and logged.data.params["network.pyramid"] == "8"
    assert logged.data.metrics["held_out/box_ap50"] == row["held_out/box_ap50"]
    assert "predictions.png" in {file.path for file in client.list_artifacts(logged.info.run_id)}

    assert run(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "held_<wbr>out/<wbr>box_<wbr>ap50" in page
    capfd.readouterr()
    assert run(["table", "--published", "4", str(out)]) == 0
    table = capfd.readouterr().out
    own = next(line for line in table.splitlines() if line.startswith("| found (here: 2 held-out images"))
    assert own.split(" | ")[2] == f"{100 * result['scores']['box_ap50']:.1f}"
    assert "one seed" in table

    assert run(words(data, out, *SET, "--resume")) == 0
    assert "holds this transfer, finished" in capfd.readouterr().out
    assert "is of coco-detection: table 5 has cityscapes-instances" in mistake(capfd, "table", "--published", "5", out)
    assert "finished transfer" in mistake(capfd, *words(data, out, *SET))
    other = mistake(capfd, *words(data, out, *SET, "--resume", "--set", "training.lr=0.5"))
    assert "training.lr was 0.01, is 0.5" in other


def test_mistakes_are_one_sentence_and_leave_nothing(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "is missing: COCO's format has" in mistake(capfd, *words(tmp_path, out))
    assert "there is no file" in mistake(capfd, *words(data, out, "--weights", str(tmp_path)))
    assert "freezes statistics or stages of trained weights" in mistake(
        capfd, "transfer", "zoo:ResNet18", "--data-root", data, "--out", out
    )
    assert "unknown setting 'training.lrs'" in mistake(capfd, *words(data, out, "--set", "training.lrs=1"))
    fewer = ["--set", "network.reductions=[1, 2]", "--set", "network.form=imagenet-published"]
    strange = mistake(capfd, *words(data, out, *fewer))
    assert "a detector reads strides 4, 8, 16 and 32, and this network" in strange
    assert "fewer than training.batch_size 4" in mistake(capfd, *words(data, out))
    assert not out.exists()


def test_the_paper_s_tables_of_other_tasks(capfd: pytest.CaptureFixture[str]) -> None:
    rows = {"4": "34.2 | 52.1 | 36.6 | 19.1 | 38.3 | 45.3", "5": "44.0 | 69.6 | N.A. | 20.2 | 46.0 | 65.1"}
    for number, row in rows.items():
        assert run(["table", "--published", number]) == 0
        assert f"| DO-2-ResNet18 | {row} |" in capfd.readouterr().out


def test_the_command_knows_every_task() -> None:
    from ddarts_cli.commands.transfer import command

    (option,) = (parameter for parameter in command.params if parameter.name == "task")
    assert list(option.type.choices) == [*TASKS]
