"""Images of one's own: what is read, what is chosen, what is refused, and that it is the same however it is read."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddarts_cli.commands.retrain import _facts_of
from ddarts_cli.loop import run_loop
from ddarts_cli.main import run
from ddarts_core.data.images import DataInfo, ImageSet
from ddarts_core.data.sets import data_facts, data_info, data_notes, load_test, load_train
from ddarts_core.data.splits import hold_out, split
from ddarts_core.datasets import cache, decode, own, scan, sources
from ddarts_core.datasets.facts import check_unchanged, document, other_images, write_facts
from ddarts_core.ground.errors import UserError
from ddarts_core.search.search import Search, build_search
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.tensors.seeding import generator
from tests.benchmarks.images import DEBIAN, write_pngs


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    own._look.cache_clear()
    return home


def picture(random: np.random.RandomState, height: int = 12, width: int = 12, colours: bool = True) -> Image.Image:
    shape = (height, width, 3) if colours else (height, width)
    return Image.fromarray(random.randint(0, 256, shape).astype(np.uint8))


def write(
    root: Path, splits: tuple[str, ...] = ("train", "test"), classes: tuple[str, ...] = ("ant", "bee"), number: int = 6
) -> Path:
    """Small colour pictures, all different; no split is ''."""
    random = np.random.RandomState(len(splits))
    for split_name in splits:
        for name in classes:
            folder = root / split_name / name
            folder.mkdir(parents=True)
            for i in range(number):
                picture(random).save(folder / f"{split_name}{i}.png")
    return root


def config(root: Path, name: str = "folder", **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"name": name, "root": str(root), "num_workers": 0, **settings})


def pixels_of(images: Any, info: Any) -> torch.Tensor:
    return torch.cat([x for x, _ in images.batches(5, info=info)])


# --- the same search ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_written_out_gives_the_same_search(tmp_path: Path) -> None:
    """To the bit, from the first 300 of its images: same order, same pixels, the published statistics given."""
    published = DataConfig(name="fashion_mnist", root=str(DEBIAN))
    info, train = load_train(published)
    assert isinstance(train, ImageSet)
    first = train.subset(range(300))
    write_pngs(tmp_path, "train", first)
    write_pngs(tmp_path, "test", first.subset(range(40)))  # never read by a search; here only to be there
    folder = {"name": "folder", "root": str(tmp_path), "mean": info.mean, "std": info.std}
    settings: dict[str, Any] = {
        "search": {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 1, "batch_size": 32, "device": "cpu"}
    }
    experiment: ExperimentConfig = resolve({**settings, "data": folder})
    search = build_search(experiment)
    _, images = load_train(experiment.data)
    assert isinstance(images, ImageSet)
    assert torch.equal(images.images, first.images) and torch.equal(images.labels, first.labels)
    measured = data_info(config(tmp_path))
    exact = first.images.double() / 255
    assert measured.mean[0] == pytest.approx(float(exact.mean()), abs=1e-9)
    assert measured.std[0] == pytest.approx(float(exact.std(correction=0)), abs=1e-9)

    other = Search(experiment, info, split(first, experiment.data, experiment.seed))
    assert next(search.records()).to_dict() == next(other.records()).to_dict()
    assert torch.equal(search.alphas, other.alphas)
    for one, same in zip(search.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(one, same)


def test_streamed_and_in_memory_are_the_same_pixels(tmp_path: Path) -> None:
    """Pictures of any size; also the order of an epoch, so without augmentation a whole search."""
    random = np.random.RandomState(0)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(6):
            picture(random, 10 + 7 * i, 40 - 3 * i, colours=i > 2).save(tmp_path / name / f"{i}.png")
    streamed, kept = (config(tmp_path, image_size=16, in_memory=in_memory) for in_memory in (False, True))
    assert data_info(streamed) == data_info(kept) and data_info(kept).channels == 3
    info = data_info(kept)
    for load in (lambda c: load_train(c)[1], load_test):
        one, two = load(streamed), load(kept)
        assert torch.equal(pixels_of(one, info), pixels_of(two, info)) and torch.equal(one.labels, two.labels)
    one, two = (
        [x for x, _ in load_train(c)[1].batches(3, info=info, generator=generator(1))] for c in (streamed, kept)
    )
    assert all(torch.equal(x, same) for x, same in zip(one, two, strict=True))


def test_one_processes_facts_are_those_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, number=40)
    alone = data_info(config(tmp_path))
    monkeypatch.setattr(scan, "FEW", 0)
    monkeypatch.setattr(scan, "CHUNK", 11)
    own._look.cache_clear()
    for file in cache.folder().iterdir():
        file.unlink()
    heard: list[tuple[str, int, int]] = []
    with scan.watched(lambda *told: heard.append(told)):
        assert data_info(config(tmp_path)) == alone
    assert ("reading", 160, 160) in heard and ("looking at", 11, 160) in heard


# --- kinds of picture -----------------------------------------------------------------------------------------------


def test_every_kind_of_picture_is_eight_bits_and_upright(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    sixteen = (ramp.astype(np.uint16) << 8) + 255
    Image.fromarray(sixteen).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(decode.upright(tmp_path / "deep.png")), ramp)
    Image.fromarray(ramp).convert("P").save(tmp_path / "palette.png")
    assert np.array_equal(np.asarray(decode.upright(tmp_path / "palette.png"))[..., 0], ramp)
    clear = np.dstack([ramp, ramp, ramp, np.where(ramp < 128, 0, 255).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = np.asarray(decode.upright(tmp_path / "clear.png"))
    assert (seen[:8] == 255).all() and np.array_equal(seen[8:, :, 0], ramp[8:])  # over white
    wide = Image.fromarray(ramp[:8])
    exif = Image.Exif()
    exif[0x0112] = 6  # hangs upright when it is turned clockwise by a quarter
    wide.save(tmp_path / "turned.png", exif=exif)
    assert decode.head(tmp_path / "turned.png") == (8, 16, 0)
    assert np.array_equal(np.asarray(decode.upright(tmp_path / "turned.png")), np.rot90(ramp[:8], -1))
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="no range"):
        decode.upright(tmp_path / "float.tiff")
    middle = np.asarray(decode.view(Image.fromarray(np.tile(ramp, (1, 3))), 1, 16))
    assert np.array_equal(middle, ramp)


@pytest.mark.parametrize(
    ("sides", "size"),
    [([(28, 28)] * 3, 28), ([(500, 375), (375, 500), (90, 90)], 224), ([(50, 50)] * 2, 32), ([(9, 30)] * 2, 8)],
)
def test_the_size_that_is_chosen(sides: list[tuple[int, int]], size: int) -> None:
    found, why = own.choose_size(np.array(sides))
    assert found == size and ("x" in why or "median" in why)


# --- layouts and splits ---------------------------------------------------------------------------------------------


def test_a_fifth_of_each_class_is_the_test_split_whatever_the_files_are_called(tmp_path: Path) -> None:
    write(tmp_path, ("",), ("ant", "bee", "cat"), 10)
    one = config(tmp_path)
    info, train = load_train(one)
    test = load_test(one)
    assert test.labels.bincount().tolist() == [2, 2, 2] and train.labels.bincount().tolist() == [8, 8, 8]
    assert info.classes == ("ant", "bee", "cat")
    assert isinstance(train, ImageSet) and isinstance(test, ImageSet)

    def rows(images: ImageSet) -> set[bytes]:
        return {image.numpy().tobytes() for image in images.images}

    assert not rows(train) & rows(test)
    before = rows(test)
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{number:03d}.png"))
    assert rows(load_test(one)) == before  # type: ignore[arg-type]
    twin = next((tmp_path / "ant").iterdir())
    for number in range(5):
        (tmp_path / "ant" / f"twin{number}.png").write_bytes(twin.read_bytes())
    assert not rows(load_train(one)[1]) & rows(load_test(one))  # type: ignore[arg-type]


def test_what_val_is(tmp_path: Path) -> None:
    """Without a test folder it is the test split; beside one, more training images."""
    write(tmp_path, ("train", "val"))
    assert (len(load_train(config(tmp_path))[1]), len(load_test(config(tmp_path)))) == (12, 12)
    write(tmp_path, ("test",), number=2)
    assert (len(load_train(config(tmp_path))[1]), len(load_test(config(tmp_path)))) == (24, 4)
    assert any("val has training images" in note for note in data_notes(config(tmp_path)))


def test_what_systems_leave_in_folders_is_ignored_and_counted(tmp_path: Path) -> None:
    write(tmp_path)
    ant = tmp_path / "train" / "ant"
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    for name in ("._train0.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (ant / name).write_bytes(b"no picture")
    (ant / "more").mkdir()
    (ant / "train0.png").rename(ant / "more" / "moved.PNG")
    os.symlink(ant, ant / "more" / "loop")
    assert len(load_train(config(tmp_path))[1]) == 12
    assert any(note.startswith("1 file ignored") for note in data_notes(config(tmp_path)))


def test_the_same_picture_in_two_splits_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    for number in range(2):
        image = Image.open(tmp_path / "train" / "bee" / f"train{number}.png")
        image.save(tmp_path / "test" / "bee" / f"copy{number}.bmp")  # other bytes, same pixels
    (warning,) = [note for note in data_notes(config(tmp_path)) if "warning" in note]
    assert warning.startswith("warning: 2 of 14 test images are among the training images too")


@pytest.mark.parametrize("in_memory", [True, False])
def test_copies_of_a_picture_are_in_one_split(tmp_path: Path, in_memory: bool) -> None:
    """Dealt one by one, some of the copies would score what others trained; without copies nothing changes."""
    write(tmp_path, number=12)
    settings = config(tmp_path, in_memory=in_memory)
    assert load_train(settings)[1].pictures is None
    for number in range(6):
        image = Image.open(tmp_path / "train" / "bee" / f"train{number}.png")
        for copy in range(3):
            image.save(tmp_path / "train" / "bee" / f"copy{number}-{copy}.bmp")
    info, train = load_train(settings)
    assert any(note.startswith("18 training images are copies of others") for note in data_notes(settings))
    assert data_facts(settings, info, train)["train_copies"] == 18
    for seed in range(5):
        parts = split(train, settings, seed)
        seen = [{x.numpy().tobytes() for x in pixels_of(part, info)} for part in vars(parts).values()]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 24
        assert sum(len(part) for part in vars(parts).values()) == len(train) == 42
        trained, kept = hold_out(train, 0.3, seed, info.classes)
        assert not {*trained.pictures.tolist()} & {*kept.pictures.tolist()}  # type: ignore[union-attr]  # both have copies
        joined = parts.weights.joined(parts.alphas)
        assert joined.pictures is not None and len(joined.pictures) == len(joined)


def test_another_library_may_round_the_same_pictures_otherwise(tmp_path: Path) -> None:
    info = DataInfo("folder", 2, 1, 8, (0.5,), (0.25,), ("ant", "bee"))
    write_facts(tmp_path, document(info, [3, 4]))
    check_unchanged(tmp_path, document(replace(info, mean=(0.50009,), std=(0.24992,)), [3, 4]))
    for other, counts in (
        (replace(info, mean=(0.5002,)), [3, 4]),
        (replace(info, std=(0.26,)), [3, 4]),
        (info, [4, 3]),
    ):
        with pytest.raises(UserError, match=r"images are not those that .* was begun with \((mean|std|train_counts)"):
            check_unchanged(tmp_path, document(other, counts))
    older = {key: value for key, value in document(info, [3, 4]).items() if key != "train_copies"}
    write_facts(tmp_path, older)
    check_unchanged(tmp_path, document(info, [3, 4]))
    copies = document(info, [3, 4], copies=2)
    check_unchanged(tmp_path, copies, deals=False)
    with pytest.raises(
        UserError, match=r"begun by a version that dealt copies .*: begin anew .*the images have 2 copies"
    ):
        check_unchanged(tmp_path, copies)


def test_names_of_classes_are_compared_as_they_are_read(tmp_path: Path) -> None:
    """Some file systems store an accent as a letter of its own: then the folder's name looks the same and is not."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    info = DataInfo("folder", 2, 1, 8, (0.5,), (0.25,), ("c1", composed))
    write_facts(tmp_path, document(info, [3, 4]))
    check_unchanged(tmp_path, document(replace(info, classes=("c1", apart)), [3, 4]))
    for classes in ((apart, "c1"), ("c1", "cafe")):
        with pytest.raises(UserError, match=r"^the images are not those .*\(classes \['c1', 'caf\u00e9'\] then"):
            check_unchanged(tmp_path, document(replace(info, classes=classes), [3, 4]))


@pytest.mark.parametrize("other", [{"channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3}, {"image_size": 12}])
def test_what_is_a_fact_of_all_images_is_not_said_of_the_training_images(other: dict[str, Any], tmp_path: Path) -> None:
    """One test image in colour, or a few larger ones, change how all images are read."""
    info = DataInfo("folder", 2, 1, 8, (0.5,), (0.25,))
    write_facts(tmp_path, document(info, [3, 4]))
    with pytest.raises(UserError, match=rf"^the images are not those .*\({next(iter(other))} "):
        check_unchanged(tmp_path, document(replace(info, **other), [3, 4]))
    with pytest.raises(UserError, match=r"^the training images are not those .*\(train_counts "):
        check_unchanged(tmp_path, document(info, [4, 3]))


def experiment(file: Path, root: Path) -> Path:
    """The file of a search of one epoch on small images of one's own."""
    search = {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 1, "batch_size": 4}
    data = {"name": "folder", "root": str(root), "image_size": 8}
    retrain = {"channels": 4, "epochs": 1, "batch_size": 4}
    discretise = {"on_empty_node": "best", "on_dead_cell": "connect"}
    groups = {"data": data, "search": search, "retrain": retrain, "discretise": discretise}
    file.write_text(json.dumps({"name": "x", **groups}))
    return file


CHANGES = ["added", "removed", "renamed", "class added", "file renamed", "pictures swapped", "test image added"]


@pytest.mark.parametrize("change", CHANGES)
def test_no_run_goes_on_with_other_images(change: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "images", number=10)
    Image.new("RGB", (8, 8), "red").save(root / "train" / "ant" / "train3.png")  # fewer bytes than the others
    file, out = experiment(tmp_path / "x.yaml", root), str(tmp_path / "run")
    assert run(["search", str(file), "--out", out]) == 0
    trained = ["retrain", f"{out}/genotype.json", "--config", f"{out}/config.yaml", "--out", str(tmp_path / "trained")]
    assert run([*trained, "--seeds", "1"]) == 0
    assert "beside the genotype" not in capfd.readouterr().out
    assert run(["search", str(file), "--out", out, "--resume"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("*/data.json")}
    if change == "added":
        picture(np.random.RandomState(9)).save(root / "train" / "ant" / "new.png")
    elif change == "removed":
        (root / "train" / "bee" / "train3.png").unlink()
    elif change == "file renamed":
        (root / "train" / "bee" / "train3.png").rename(root / "train" / "bee" / "a.png")
    elif change == "pictures swapped":
        one, other = (root / "train" / name / "train3.png" for name in ("ant", "bee"))
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second), other.write_bytes(first)
    elif change == "test image added":
        picture(np.random.RandomState(9)).save(root / "test" / "ant" / "new.png")
    else:
        for split_name in ("train", "test"):
            (root / split_name / "ant").rename(root / split_name / "cat")
    if change == "class added":
        write(root, classes=("ant",))
    capfd.readouterr()
    test = change == "test image added"
    which = "test images" if test else "images" if change in ("renamed", "class added") else "training images"
    assert run(["search", str(file), "--out", out, "--resume"]) == (0 if test else 2)
    assert (f"the {which} are not those that" in capfd.readouterr().err) != test
    assert run([*trained, "--seeds", "2", "--resume"]) == 2
    assert f"the {which} are not those that" in capfd.readouterr().err
    refused = [path for path in before if not test or path.parent.name == "trained"]
    assert refused and all(path.read_bytes() == before[path] for path in refused)
    assert run([*trained, "--force"]) == 0
    said = f"warning: the training images are not those of {out}/data.json, beside the genotype: "
    assert (said in capfd.readouterr().out) == (which == "training images")


def test_images_that_are_added_while_a_search_runs_are_told_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a test split, they make test images of some that trained."""
    file = experiment(tmp_path / "x.yaml", write(tmp_path / "images", splits=("",), number=10))

    def growing(*arguments: Any, **settings: Any) -> Any:
        picture(np.random.RandomState(9)).save(tmp_path / "images" / "ant" / "new.png")
        return run_loop(*arguments, **settings)

    for number in range(2):
        assert run(["search", str(file), "--out", str(tmp_path / str(number)), "--retrain"]) == 0
        assert ("not those of" in capfd.readouterr().out) == (number == 1)
        monkeypatch.setattr("ddarts_cli.loop.run_loop", growing)


def test_a_genotype_may_be_trained_on_other_images_on_purpose(tmp_path: Path) -> None:
    """Only a larger list of the same data set is told of; that of a trial may be its study's."""
    info = DataInfo("folder", 2, 1, 8, (0.5,), (0.25,), ("ant", "bee"))
    found, now = document(info, [3, 4]), document(info, [3, 5])
    assert other_images(tmp_path, now | {"train_listing": "b"}) == ""
    for before, today, is_said in (
        (found | {"train_listing": "a"}, now | {"train_listing": "b"}, True),
        (found | {"train_listing": "a"}, now | {"train_listing": "a"}, False),  # fewer by data.num_train
        (found, now | {"train_listing": "b"}, True),
        (found, found | {"train_listing": "b"}, False),
        (found, now, False),  # a published set, and data.num_train
        (found | {"train_listing": "a"}, now | {"name": "arrays", "train_listing": "b"}, False),
        (found | {"train_listing": "a"}, now | {"classes": ["ant", "cat"], "train_listing": "b"}, False),
        (found | {"train_listing": "a"}, now | {"image_size": 12, "train_listing": "b"}, True),
        ({"of": "another program"}, now | {"train_listing": "b"}, False),
    ):
        write_facts(tmp_path, before)
        assert bool(other_images(tmp_path, today)) == is_said, (before, today)
    trial = tmp_path / "trials" / "00003"
    trial.mkdir(parents=True)
    assert _facts_of(trial / "genotype.json") == tmp_path
    write_facts(trial, found)
    assert _facts_of(trial / "genotype.json") == trial


def test_broken_images_are_named_or_counted(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "train" / "bee" / "train3.png"
    file.write_bytes(file.read_bytes()[:200])
    (tmp_path / "train" / "ant" / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"broken .*and 1 more.*on_broken=skip"):
        data_info(config(tmp_path))
    found = config(tmp_path, on_broken="skip")
    assert len(load_train(found)[1]) == 11
    assert "2 broken images left out, as data.on_broken says" in data_notes(found)


# --- arrays and Parquet ---------------------------------------------------------------------------------------------


def test_arrays_of_every_layout_are_the_same(tmp_path: Path) -> None:
    random = np.random.RandomState(3)
    images = random.randint(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    labels = np.array([10, 2] * 10)
    np.savez(tmp_path / "last.npz", images=images, labels=labels)
    np.savez(tmp_path / "first.npz", images=images.transpose(0, 3, 1, 2), labels=labels.astype("U"))
    one, two = (load_train(config(tmp_path / name, "arrays")) for name in ("last.npz", "first.npz"))
    assert one[0].classes == ("2", "10") and two[0].classes == ("10", "2")  # numbers by size, text by letters
    assert torch.equal(one[1].images, two[1].images) and torch.equal(one[1].labels, 1 - two[1].labels)  # type: ignore[attr-defined]
    stored, grey = np.stack([images[..., 0]] * 3, axis=-1), "all pictures are grey, though stored with colours"
    np.savez(tmp_path / "stored.npz", images=stored, labels=labels)
    for name, said in (("stored.npz", True), ("last.npz", False)):
        found = config(tmp_path / name, "arrays")
        assert data_info(found).channels == 3
        assert any(note.startswith(grey) for note in data_notes(found)) == said
    np.savez(tmp_path / "grey.npz", images=images[..., 0], labels=labels)
    assert data_info(config(tmp_path / "grey.npz", "arrays")).channels == 1


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    random = np.random.RandomState(4)
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    encoded = []
    for part, number in (("train", 12), ("test", 4)):
        rows = []
        for _ in range(number):
            file = io.BytesIO()
            picture(random).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": None})
        encoded += rows
        table = pa.table({"image": rows, "label": [i % 2 for i in range(number)]})
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{part}-00000-of-00001.parquet")
    info, train = load_train(config(tmp_path, "parquet"))
    assert info.classes == ("cat", "dog") and len(train) == 12 and len(load_test(config(tmp_path, "parquet"))) == 4
    assert isinstance(train, ImageSet)
    expected = np.asarray(Image.open(io.BytesIO(encoded[5]["bytes"]))).transpose(2, 0, 1)
    assert np.array_equal(train.images[5].numpy(), expected) and int(train.labels[5]) == 1
    pq.write_table(pa.table({"img": [row["bytes"] for row in encoded], "label": ["a", "b"] * 8}), tmp_path / "x.pq")
    assert data_info(config(tmp_path / "x.pq", "parquet")).classes == ("a", "b")
    with pytest.raises(UserError, match=r"parquet cannot be streamed.*in_memory=true"):
        data_info(config(tmp_path, "parquet", in_memory=False))


# --- the cache ------------------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    first = load_train(config(tmp_path))[1]
    opened: list[Any] = []
    original = decode.opened
    monkeypatch.setattr(decode, "opened", lambda source: opened.append(source) or original(source))
    own._look.cache_clear()
    assert torch.equal(load_train(config(tmp_path))[1].images, first.images) and not opened  # type: ignore[attr-defined]
    picture(np.random.RandomState(9)).save(tmp_path / "train" / "ant" / "a.png")
    (tmp_path / "train" / "bee" / "train5.png").unlink()
    after = load_train(config(tmp_path))[1]
    assert {path.name for path in opened} == {"a.png"} and len(after) == 12
    for file in cache.folder().glob("*.npz"):
        file.write_bytes(b"damaged")
    own._look.cache_clear()
    assert torch.equal(load_train(config(tmp_path))[1].images, after.images)  # type: ignore[attr-defined]
    other = sorted(cache.folder().glob("*.npy"))
    assert len(other) == 1


def test_pictures_that_change_places_keep_their_labels(tmp_path: Path) -> None:
    """Classes whose folders are swapped, and shards that are renamed: sizes, names and times may be those of before."""
    flat = {name: Image.new("L", (8, 8), grey) for name, grey in (("ant", 40), ("bee", 200))}
    rows = [(name, i) for name in flat for i in range(6)]
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    shards.mkdir()
    for name, i in rows:
        (folder / name).mkdir(parents=True, exist_ok=True)
        flat[name].putpixel((i, 0), 0)
        flat[name].save(folder / name / f"{i}.bmp")
        os.utime(folder / name / f"{i}.bmp", ns=(10**18, 10**18))
    for number, (name, i) in enumerate(rows):
        table = pa.table({"image": [(folder / name / f"{i}.bmp").read_bytes()], "label": [name]})
        pq.write_table(table, shards / f"train-{number}.parquet")
    settings = (config(folder, image_size=8), config(shards, "parquet", image_size=8))

    def brightest(found: Any) -> set[int]:
        own._look.cache_clear()
        images = load_train(found)[1]
        return {int(label) for label, image in zip(images.labels, images.images, strict=True) if image.max() == 200}

    assert [brightest(one) for one in settings] == [{1}, {1}]
    for old, new in (("ant", "other"), ("bee", "ant"), ("other", "bee")):
        (folder / old).rename(folder / new)
    for number in range(10):  # 10 and 11 came before 2
        (shards / f"train-{number}.parquet").rename(shards / f"train-0{number}.parquet")
    assert [brightest(one) for one in settings] == [{0}, {1}]


def test_what_this_machine_could_not_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    original = decode.opened
    errors: list[Exception] = [PermissionError(13, "denied"), MemoryError(), OSError("Unable to locate Ghostscript")]

    def refused(source: Any) -> Any:
        if str(source).endswith("bee/train3.png"):
            raise errors[0]
        return original(source)

    found = config(tmp_path, on_broken="skip")
    while errors:
        monkeypatch.setattr(decode, "opened", refused)
        own._look.cache_clear()
        assert len(load_train(found)[1]) == 11
        del errors[0]
        monkeypatch.setattr(decode, "opened", original)
        own._look.cache_clear()
        assert len(load_train(found)[1]) == 12
        cache.path_of(tmp_path, "heads", "folder").unlink()


def test_rows_that_change_places_within_a_class_are_another_list(tmp_path: Path) -> None:
    random = np.random.RandomState(3)
    images, labels = random.randint(0, 256, (20, 8, 8)).astype(np.uint8), np.array([0] * 10 + [1] * 10)
    lists = []
    for name, order in (("a", range(20)), ("b", range(20)), ("c", [1, 0, *range(2, 20)])):
        (tmp_path / name).mkdir()
        for split_name in ("train", "test"):
            np.savez(tmp_path / name / f"{split_name}.npz", images=images[[*order]], labels=labels)
        found = config(tmp_path / name, "arrays")
        info, train = load_train(found)
        content = data_facts(found, info, train, tested=True)
        lists.append((content["train_listing"], content["test_listing"]))
    assert lists[0] == lists[1] and not {*lists[0]} & {*lists[2]}


def test_another_reader_of_the_same_files_looks_for_itself(tmp_path: Path) -> None:
    """A plug-in may open the same files otherwise, and is changed while it is written."""
    write(tmp_path)
    assert data_info(config(tmp_path)).channels == 3
    found = own.look(
        lambda root: replace(sources.folder(root), open=lambda i: np.full((8, 8), 7, np.uint8), in_files=False),
        tmp_path,
        own.Wanted(None, 8, None, False),
        "mine of plug-in 1",
    )
    assert found.info.channels == 1 and found.pixels is not None and (found.pixels == 7).all()


def test_what_a_killed_look_left_is_removed(tmp_path: Path) -> None:
    write(tmp_path)
    left = cache.path_of(tmp_path, "3x8", "folder").with_suffix("").name.removesuffix(f".v{cache.VERSION}")
    place = cache.folder() / f"{left}.v{cache.VERSION}-abc"
    place.mkdir(parents=True)
    load_train(config(tmp_path, image_size=8))
    assert not place.exists() and len(sorted(cache.folder().glob("*.npy"))) == 1


def test_without_a_cache_everything_works(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    expected = data_info(config(tmp_path))
    (own_cache / "file").write_bytes(b"")
    for nowhere in (own_cache / "file", Path("/proc/nowhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere))
        own._look.cache_clear()
        assert data_info(config(tmp_path)) == expected and len(load_train(config(tmp_path))[1]) == 12


# --- what is refused ------------------------------------------------------------------------------------------------


def _lacking(root: Path) -> None:
    for path in (write(root) / "test" / "ant").iterdir():
        path.unlink()
    (root / "test" / "ant").rmdir()


def _renamed(root: Path) -> None:
    (write(root) / "test" / "bee").rename(root / "test" / "Bee")


def _emptied(root: Path) -> None:
    (write(root) / "train" / "cat").mkdir()


def _beside(root: Path) -> None:
    picture(np.random.RandomState(0)).save(write(root) / "train" / "loose.png")


def _misnamed(root: Path) -> None:
    (write(root) / "test").rename(root / "validation")


def _only_test(root: Path) -> None:
    write(root, ("test",))


def _few(root: Path) -> None:
    write(root, ("",), number=1)


def _twins(root: Path) -> None:
    random = np.random.RandomState(0)
    for name in ("ant", "bee"):
        (root / name).mkdir()
        image = picture(random)
        for i in range(9):
            image.save(root / name / f"{i}.png")


def _text(root: Path) -> None:
    (write(root) / "train" / "ant" / "train1.png").write_text("404: not found")


def _huge(root: Path) -> None:
    """A head that promises 65,535 x 65,535 pixels."""
    file = write(root) / "train" / "ant" / "train1.png"
    data = bytearray(file.read_bytes())
    data[16:24] = (65_535).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    file.write_bytes(data)


def _dangling(root: Path) -> None:
    os.symlink(root / "nowhere.png", write(root) / "train" / "ant" / "link.png")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class that the test split lacks": (_lacking, r"test lacks the class 'ant' that train has"),
    "a class in another case": (_renamed, r"lacks the class 'Bee'|lacks the class 'bee'"),
    "an empty class": (_emptied, r"cat' is the folder of a class and has no images"),
    "images beside the classes": (_beside, r"1 image lies in .*train' beside the folders"),
    "a split under another name": (_misnamed, r"folder 'validation' beside 'train': call it 'val'"),
    "no training images": (_only_test, r"has the folder 'test' but none that is called 'train'"),
    "one image of a class": (_few, r"class 'ant' has 1 image: it needs some"),
    "nothing but copies": (_twins, r"class 'ant' has 9 images that are all the same"),
    "a page instead of a picture": (_text, r"train1.png' is broken \(it is no picture"),
    "a picture that would fill the memory": (_huge, r"train1.png' is broken \(Image size"),
    "a link to nothing": (_dangling, r"link.png' is broken \(No such file"),
    "one class": (lambda root: write(root, classes=("ant",)), r"has only the class 'ant'"),
    "nothing there": (lambda root: root.rmdir(), r"is not there: name the folder"),
    "only files": (lambda root: (root / "a.txt").write_text(""), r"has no folders: give each class"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_one_sentence(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, sentence = BROKEN[what]
    root = tmp_path / "images"
    root.mkdir()
    make(root)
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps({"name": "x", "storage": str(tmp_path / "runs"), "data": {"name": "folder"}}))
    assert run(["search", str(file), "--set", f"data.root={root}"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert re.search(sentence, error), error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": np.zeros((4, 8, 8), np.float32), "labels": np.arange(4)}, "images is float32"),
        ({"images": np.zeros((4, 5, 8, 7), np.uint8), "labels": np.arange(4)}, "neither end has 1 or 3 channels"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.arange(3)}, "4 images but 3 labels"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.ones(4)}, "labels is float64"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, "no array 'labels'"),
        ({"images": np.array([object()] * 4), "labels": np.arange(4)}, "cannot read"),
    ],
)
def test_wrong_arrays_are_one_sentence(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=sentence):
        data_info(config(tmp_path / "x.npz", "arrays"))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"image": [b"x"] * 4}, "columns image .binary.: expected"),
        ({"image": [b"x"] * 4, "label": [0, 1, None, 1]}, "column label lacks 1 values"),
        ({"image": [b"x"] * 4, "label": [0.5, 1, 2, 1]}, "column label is double"),
        ({"image": [b"x"] * 4, "label": [0, 1, 0, 1]}, "is broken .it is no picture"),
        ({"image": [{"bytes": None, "path": "x.png"}] * 4, "label": [0, 1, 0, 1]}, "column image lacks 4 values"),
    ],
)
def test_wrong_parquet_is_one_sentence(table: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=sentence):
        data_info(config(tmp_path / "x.parquet", "parquet"))


@pytest.mark.parametrize(
    ("metadata", "refused"),
    [
        ("{", None),
        ("[]", None),
        ("null", None),
        ('{"info": []}', None),
        ('{"info": {"features": {"label": 5}}}', None),
        ('{"info": {"features": {"label": {"names": [1, 2]}}}}', None),
        ('{"info": {"features": {"label": {"names": ["a", "a"]}}}}', "two classes have one name in its metadata .a, a"),
    ],
)
def test_metadata_that_name_no_classes_leave_numbers(metadata: str, refused: str | None, tmp_path: Path) -> None:
    random, rows = np.random.RandomState(4), []
    for _ in range(8):
        file = io.BytesIO()
        picture(random).save(file, "PNG")
        rows.append(file.getvalue())
    table = pa.table({"image": rows, "label": [0, 1] * 4}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    if refused is None:
        assert data_info(config(tmp_path / "x.parquet", "parquet")).classes == ("0", "1")
        return
    with pytest.raises(UserError, match=refused):
        data_info(config(tmp_path / "x.parquet", "parquet"))


def test_settings_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"data\.mean has 1 numbers: folder has 3 channels"):
        data_info(config(tmp_path, mean=[0.5]))
    with pytest.raises(UserError, match=r"data\.channels 3: digits has 1"):
        data_info(DataConfig(channels=3))
    with pytest.raises(UserError, match=r"data\.on_broken is for images of your own"):
        data_info(DataConfig(on_broken="skip"))
    with pytest.raises(UserError, match=r"none of class bee|none of class ant"):
        split(load_train(config(tmp_path, num_train=2))[1], config(tmp_path), 0)


# --- the process that reads -----------------------------------------------------------------------------------------


def test_the_worker_loads_no_torch() -> None:
    code = "import sys, ddarts_core.datasets.worker; print({'torch', 'pydantic', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_tells_and_draws(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "images", ("",), number=30)
    (root / "bee").rename(root / "a bee's")
    (root / "ant").rename(root / "ant\nhill")
    file = tmp_path / "x.yaml"
    data = {"name": "folder", "root": str(root), "flip": True, "crop_padding": 2}
    file.write_text(json.dumps({"name": "x", "storage": str(tmp_path / "runs"), "data": data}))
    small = ["--set", "search.batch_size=16", "--set", "retrain.batch_size=8"]
    assert run(["data", str(file), *small, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (
        found["classes"] == ["a bee's", "ant\nhill"]
        and found["train_counts"] == [24, 24]
        and found["test_counts"] == [6, 6]
    )
    assert found["splits"] == {"weights": 19, "alphas": 19, "held_out": 10} and found["refused"] == []
    sheet = np.asarray(Image.open(found["contact_sheet"]))
    assert sheet.shape == (3 * (72 + 14), 8 * (72 + 4), 3) and sheet.std() > 40
    assert run(["data", str(file), *small, "--out", str(tmp_path / "look")]) == 0
    assert f"  ddarts search {file} {' '.join(small)}\n" in capfd.readouterr().out
    assert run(["data", str(file), "--out", str(tmp_path / "look")]) == 2
    out, error = capfd.readouterr()
    assert "ddarts search" not in out
    assert (
        "the largest of 2 classes, a bee's, has 50.0 %" in out and "data.image_size 12: all images are 12 x 12" in out
    )
    assert "batch_size 128 exceeds" in error and list((tmp_path / "look").glob("*_contact_sheet.png"))
