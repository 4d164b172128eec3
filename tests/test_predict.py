"""What comes out can be used: predict, preprocessing and card code of an export, on digits and on one's own images."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ddarts_cli.main import run
from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import load_test
from ddarts_core.exports.preprocessing import MARGIN, Preprocessing
from ddarts_core.exports.serving import Predictor
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.confusion import accuracy, read_confusion
from ddarts_core.loops.mistakes import MOST, read_mistakes
from ddarts_core.settings.data_settings import DataConfig

SETTINGS = ["--set", "retrain.epochs=1", "--set", "retrain.channels=4", "--set", "retrain.device=cpu"]

# As few layers as show all: writing ONNX costs a good second for every ten of them.
WHOLE = Cell((Edge(2, 0, "dil_conv_3x3"), Edge(3, 1, "skip_connect")), (2, 3))
HALVES = Cell((Edge(2, 1, "max_pool_3x3"), Edge(3, 2, "skip_connect")), (2, 3))
GENOTYPE = Genotype((WHOLE, HALVES), reductions=(1,))


def out_of(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Standard output of a command that must succeed."""
    assert run([str(argument) for argument in arguments]) == 0
    return capfd.readouterr().out


def mistake(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence of a command that must fail; nothing is printed before."""
    assert run([str(argument) for argument in arguments]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("Error: ") and captured.err.count("\n") == 1 and not captured.out, captured
    return captured.err


class Export:
    """An exported network, and the test images that it was scored on as files in a folder per class."""

    def __init__(self, folder: Path, pictures: Path, scored: float) -> None:
        self.folder, self.pictures, self.scored = folder, pictures, scored


def write_digits(root: Path) -> Path:
    """The test images of digits as PNG files."""
    test = load_test(DataConfig(name="digits"))
    for place, (image, label) in enumerate(zip(test.images[:, 0], test.labels.tolist(), strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(root / str(label) / f"{place:04}.png")
    return root


def write_own(root: Path) -> Path:
    """Colour pictures of several sizes, of classes that differ in colour; the test images' folder."""
    random = np.random.default_rng(0)
    for split, number in (("train", 24), ("test", 12)):
        for place, name in enumerate(("ant", "bee", "cow")):
            (root / split / name).mkdir(parents=True)
            for i in range(number):
                height, width = random.integers(16, 30, 2)
                pixels = random.integers(0, 170, (height, width, 3), dtype=np.uint8)
                pixels[..., place] += 40
                Image.fromarray(pixels).save(root / split / name / f"{i:02}.png")
    return root / "test"


@pytest.fixture(scope="module", params=["digits", "folder"])
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    root = tmp_path_factory.mktemp(request.param)
    own = request.param == "folder"
    pictures = write_own(root / "own") if own else write_digits(root / "test")
    more = ["--data", "folder", "--data-root", str(root / "own"), "--set", "retrain.batch_size=24"] if own else []
    (root / "genotype.json").write_text(GENOTYPE.to_json())
    out = root / "retrain"
    assert run(["retrain", str(root / "genotype.json"), "--out", str(out), *SETTINGS, *more]) == 0
    assert run(["export", str(out), "--onnx"]) == 0
    _, (one,) = read_confusion(out / "confusion.json")
    yield Export(out / "export", pictures, accuracy(one.matrix))


@pytest.mark.parametrize("backend", ["weights", "onnx"])
def test_predictions_of_the_test_files_score_as_the_evaluation_did(
    export: Export, capfd: pytest.CaptureFixture[str], backend: str
) -> None:
    text = out_of(capfd, "predict", export.folder, export.pictures, "--top", "1", "--json", "--backend", backend)
    document = json.loads(text)
    right = [Path(row["file"]).parent.name == row["classes"][0]["class"] for row in document["predictions"]]
    assert len(right) == len(list(export.pictures.rglob("*.png"))) and sum(right) / len(right) == export.scored
    assert document["broken"] == []


def test_a_table_and_comma_separated_values(export: Export, capfd: pytest.CaptureFixture[str]) -> None:
    file = next(export.pictures.rglob("*.png"))
    rows = list(csv.DictReader(io.StringIO(out_of(capfd, "predict", export.folder, file, "--top", "2", "--csv"))))
    assert [(row["file"], row["place"]) for row in rows] == [(str(file), "1"), (str(file), "2")]
    shares = [float(row["probability"]) for row in rows]
    logits = torch.from_numpy(Predictor(export.folder / "weights.safetensors").predict(file))
    np.testing.assert_allclose(shares, F.softmax(logits.double(), 1)[0].sort(descending=True).values[:2], atol=1e-6)
    (line,) = out_of(capfd, "predict", export.folder / "model.onnx", file).splitlines()
    assert line.startswith(f"{file}  {rows[0]['class']} {100 * shares[0]:.1f} %, {rows[1]['class']} ")


def test_broken_files_are_named(export: Export, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = next(export.pictures.rglob("*.png")).read_bytes()
    (tmp_path / "p" / "deep").mkdir(parents=True)
    for name, data in (("a.png", good), ("cut.png", good[:60]), ("deep/note.txt", b"words"), (".hidden", b"")):
        (tmp_path / "p" / name).write_bytes(data)
    sentence = mistake(capfd, "predict", export.folder, tmp_path / "p")
    assert "2 of 3 files cannot be read" in sentence and "cut.png" in sentence and "deep/note.txt" in sentence
    document = json.loads(out_of(capfd, "predict", export.folder, tmp_path / "p", "--skip-broken", "--json"))
    assert [Path(row["file"]).name for row in document["predictions"]] == ["a.png"] and len(document["broken"]) == 2
    assert "there is no file or folder" in mistake(capfd, "predict", export.folder, tmp_path / "none.png")
    assert "weights.safetensors or model.onnx" in mistake(capfd, "predict", tmp_path, tmp_path / "p")
    assert "choose one" in mistake(capfd, "predict", export.folder, tmp_path / "p", "--csv", "--json")


def test_the_cards_code_runs_as_it_is_printed(
    export: Export, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the exported folder, on image.png there; the second one where neither ddarts nor torch can be imported."""
    card = (export.folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.S)
    assert len(blocks) == 2
    picture = Image.open(sorted(export.pictures.rglob("*.png"))[7]).convert("RGBA").resize((31, 24))
    picture.putalpha(200)
    picture.save(export.folder / "image.png")
    monkeypatch.chdir(export.folder)
    exec(blocks[0], {})  # here, where torch has been imported
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({['ddarts_core', 'torch', 'torchvision']}))\n"
    done = subprocess.run([sys.executable, "-c", blocked + blocks[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ((best, *_),) = Predictor(export.folder / "weights.safetensors").classify(export.folder / "image.png")
    for printed in (capfd.readouterr().out, done.stdout):
        assert printed.splitlines()[0] == f"{best[0]}: {best[1]:.1%}" and len(printed.splitlines()) == 3
    (export.folder / "image.png").unlink()


def test_paths_bytes_and_arrays_are_one_picture(export: Export) -> None:
    file = next(export.pictures.rglob("*.png"))
    predictor = Predictor(export.folder / "weights.safetensors")
    pixels = np.asarray(Image.open(file))
    expected = predictor.predict(str(file))
    classes = len(predictor.setup.classes)
    assert expected.shape == (1, classes)
    forms = [file, file.read_bytes(), [str(file)], pixels, pixels[None], pixels.tolist()]
    forms += [pixels.astype(kind) for kind in ("int64", "uint16")]
    forms += [pd.DataFrame({"image": [file.read_bytes()]}), np.array([str(file)])]
    if pixels.shape == (8, 8):  # that of the network's own inputs
        forms += [pixels[None, None], pixels[..., None]]
        forms += [(pixels / 255).astype(kind) for kind in ("float32", "float64")]
    for form in forms:
        np.testing.assert_allclose(predictor.predict(form), expected, rtol=1e-5, atol=1e-6)
    both = predictor.predict([str(file), pixels[::-1]])
    assert both.shape == (2, classes) and not np.allclose(both[0], both[1])
    for wrong, sentence in (
        (pixels.astype("float32") + 2, "must be of 0..1"),
        (pixels.astype("int64") - 300, "they must lie in 0..255"),
        (np.zeros((2, 2, 8, 8), "uint8"), r"\[2, 2, 8, 8\]"),
        (np.zeros(3, complex), "complex128"),
        (b"no picture", "10 bytes: no picture"),
        ([], "no images"),
    ):
        with pytest.raises(UserError, match=sentence):
            predictor.predict(wrong)


def test_imagenet_is_prepared_as_it_is_evaluated() -> None:
    """Torchvision's resize and centre crop, pixel by pixel, also of pictures with odd sides."""
    from torchvision.transforms import v2

    setup = Preprocessing.of(DataInfo("imagenet", 2, 3, 32, (0.5,) * 3, (0.5,) * 3))
    assert setup.margin == MARGIN and setup.shorter_side == 37
    evaluated = v2.Compose([v2.Resize(37), v2.CenterCrop(32), v2.PILToTensor()])
    random = np.random.default_rng(0)
    for height, width in ((60, 91), (91, 60), (37, 50), (20, 20)):
        picture = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        np.testing.assert_array_equal(setup.of_picture(picture), evaluated(picture).numpy())


def test_every_kind_of_file_has_the_names_and_the_preparation(
    export: Export, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx

    written = json.loads((export.folder / "preprocessing.json").read_text())
    setups = [Predictor(export.folder / name).setup for name in ("weights.safetensors", "model.onnx")]
    setups.append(Preprocessing.from_dict(written, "here"))
    assert len({str(setup) for setup in setups}) == 1 and len(setups[0].classes) in (3, 10)
    assert set(setups[0].classes) == {path.name for path in export.pictures.iterdir()}
    model = onnx.load(export.folder / "model.onnx")
    card = (export.folder / "README.md").read_text()
    assert "](confusion.png)" in card and "mean recall of the classes" in card
    picture = export.folder.parent / "figures" / "confusion.png"
    assert f"wrote {picture}" in out_of(capfd, "figure", export.folder.parent, "confusion")
    assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(export.folder / "confusion.png")))
    listed = out_of(capfd, "figure", export.folder.parent).splitlines()
    assert [line.split(":")[0] for line in listed] == ["confusion", "mistakes"] and "test images" in listed[0]
    assert "has the figures confusion and mistakes" in mistake(capfd, "figure", export.folder.parent, "pareto")
    classes, wrong = read_mistakes(export.folder.parent / "mistakes.json")
    assert 0 < len(wrong) <= MOST and classes == setups[0].classes
    pixels = [np.asarray(Image.open(io.BytesIO(one.png))) for one in wrong]
    answers = Predictor(export.folder / "weights.safetensors").classify(pixels, top=1)
    for one, ((name, share),) in zip(wrong, answers, strict=True):  # what is exported makes the same mistakes
        assert name == classes[one.predicted] != classes[one.true] and share == pytest.approx(one.probability, abs=1e-3)
    assert "figures/mistakes.png" in out_of(capfd, "figure", export.folder.parent, "mistakes")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == written["classes"]
