"""Data: readers on small generated files in the real formats, splits without leaks, seeded augmentation."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import DATASETS, ImageSet, Published, data_info, load_test, load_train
from ddarts_core.data.splits import check_batch, hold_out, split
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.data_settings import DataConfig, SplitConfig
from tests.core.numbered import numbered, numbers

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

PUBLISHED = {name: entry for name, entry in DATASETS.items() if isinstance(entry, Published)}


# --- files ----------------------------------------------------------------------------------------------------------


def _idx(values: np.ndarray[Any, Any]) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + np.asarray(values.shape, ">u4").tobytes() + values.tobytes()


def write_fashion_mnist(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    for prefix, number in (("train", 60), ("t10k", 20)):
        pixels = random.randint(0, 256, (number, 28, 28)).astype(np.uint8)
        for name, values in (("images-idx3", pixels), ("labels-idx1", (np.arange(number) % 10).astype(np.uint8))):
            path = folder / f"{prefix}-{name}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(_idx(values)))
            else:
                path.write_bytes(_idx(values))


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pickles as the published archive holds them; only the list of expected MD5 sums is ours, the check stays."""
    from torchvision import datasets

    reader: Any = getattr(datasets, name)
    classes, key = (10, "labels") if name == "CIFAR10" else (100, "fine_labels")
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    random = np.random.RandomState(1)

    def put(file: str, content: dict[str, Any]) -> str:
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    for attribute in ("train_list", "test_list"):
        entries = []
        for file, _ in getattr(reader, attribute):
            pixels = random.randint(0, 256, (2 * classes, 3072)).astype(np.uint8)
            labels = [i % classes for i in range(2 * classes)]
            entries.append([file, put(file, {"data": pixels, key: labels})])
        monkeypatch.setattr(reader, attribute, entries)
    meta = reader.meta
    names = {meta["key"]: [str(c) for c in range(classes)]}
    monkeypatch.setattr(reader, "meta", {**meta, "md5": put(meta["filename"], names)})
    return reader


def write_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits come with scikit-learn."""


def write_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few JPEG files in the folders of torchvision's reader, and the file of classes that it makes of the devkit."""
    wnids = [f"n{number:08d}" for number in range(3)]
    torch.save(({wnid: (f"class {wnid}", "synonym") for wnid in wnids}, [wnids[0]] * 6), root / "meta.bin")
    random = np.random.RandomState(2)
    for split_name, number in (("train", 8), ("val", 2)):
        for wnid in wnids:
            folder = root / split_name / wnid
            folder.mkdir(parents=True)
            for image in range(number):
                height, width = random.randint(40, 90, 2)
                grey = (height, width) if image == 1 else (height, width, 3)
                pixels = random.randint(0, 256, grey).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{image}.JPEG", quality=95)


def test_imagenet_has_as_many_outputs_as_folders_and_a_val_of_others_is_refused(tmp_path: Path) -> None:
    wnids = [f"n{number:08d}" for number in range(100)]
    names = {wnid: (f"class {wnid}",) for wnid in [*wnids, "n99999999"]}
    torch.save((names, [wnids[0]]), tmp_path / "meta.bin")
    for split_name in ("train", "val"):
        for wnid in wnids:
            (tmp_path / split_name / wnid).mkdir(parents=True)
            Image.new("RGB", (1, 1)).save(tmp_path / split_name / wnid / "1.JPEG")
    config = DataConfig(name="imagenet", root=str(tmp_path), num_workers=0)
    info = load_train(config)[0]
    assert info.num_classes == 100 and info.classes == tuple(wnids) and len(load_test(config)) == 100
    (tmp_path / "val" / wnids[0]).rename(tmp_path / "val" / "n99999999")
    with pytest.raises(UserError, match="the folders val and train have different classes: n00000000 and 1 more"):
        load_test(config)


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "digits": write_nothing,
    "fashion_mnist": lambda root, _: write_fashion_mnist(root, packed=True),
    "cifar10": lambda root, monkeypatch: write_cifar(root, "CIFAR10", monkeypatch),
    "cifar100": lambda root, monkeypatch: write_cifar(root, "CIFAR100", monkeypatch),
    "imagenet": write_imagenet,
}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "imagenet"])
def test_every_data_set_reads_what_its_entry_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    config = DataConfig(name=name, root=str(tmp_path))
    info, train = load_train(config)
    test = load_test(config)
    assert info == data_info(config) == PUBLISHED[name].info
    for images in (train, test):
        assert images.images.shape[1:] == (info.channels, info.image_size, info.image_size)
        assert (images.images.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
        assert set(images.labels.tolist()) == set(range(info.num_classes))
        assert images.images.float().std() > 10
    assert len(info.mean) == len(info.std) == info.channels


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "digits"])
def test_absent_files_name_the_folder_and_what_is_expected(name: str, tmp_path: Path) -> None:
    for load in (load_train, load_test):
        with pytest.raises(
            UserError, match=r"cannot read .*expected there .*nothing is downloaded.*data\.root"
        ) as error:
            load(DataConfig(name=name, root=str(tmp_path / "nowhere")))
        assert str(tmp_path / "nowhere") in str(error.value)
        assert "download=True" not in str(error.value)
    assert not (tmp_path / "nowhere").exists()


def test_an_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match="choose one of arrays, cifar10, cifar100, digits, fashion_mnist, folder, imagenet, parquet"
    ):
        DataConfig(name="mnist")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
def test_fashion_mnist_as_torchvision_reads_it(packed: bool, below: str, tmp_path: Path) -> None:
    from torchvision import datasets

    write_fashion_mnist(tmp_path / "ours" / below, packed)
    write_fashion_mnist(tmp_path / "theirs" / "FashionMNIST" / "raw", packed=False)
    theirs = datasets.FashionMNIST(tmp_path / "theirs", train=True)
    _, ours = load_train(DataConfig(name="fashion_mnist", root=str(tmp_path / "ours")))
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_of_debian() -> None:
    config = DataConfig(name="fashion_mnist", root=str(DEBIAN))
    info, train = load_train(config)
    assert (len(train), len(load_test(config))) == (60_000, 10_000)
    pixels = train.images.double() / 255
    assert float(pixels.mean()) == pytest.approx(info.mean[0], abs=1e-4)
    assert float(pixels.std(correction=0)) == pytest.approx(info.std[0], abs=1e-4)


@pytest.mark.parametrize(
    "damage", ["truncated", "garbage", "labels missing", "other header", "fewer labels", "bad deflate"]
)
def test_damaged_fashion_mnist_is_a_mistake(damage: str, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, packed=True)
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    if damage == "truncated":
        images.write_bytes(images.read_bytes()[:-100])
    elif damage == "garbage":
        images.write_bytes(b"garbage")
    elif damage == "bad deflate":
        data = images.read_bytes()
        images.write_bytes(data[:20] + bytes(50) + data[70:])
    elif damage == "labels missing":
        labels.unlink()
    elif damage == "other header":
        labels.write_bytes(gzip.compress(_idx(np.zeros((60, 1), np.uint8))))
    else:
        labels.write_bytes(gzip.compress(_idx(np.zeros(59, np.uint8))))
    with pytest.raises(UserError, match="cannot read fashion_mnist"):
        load_train(DataConfig(name="fashion_mnist", root=str(tmp_path)))


@given(cut=st.integers(0, 60 * 28 * 28 + 15))
def test_a_truncated_idx_file_is_never_read(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "idx"
    if not folder.exists():
        write_fashion_mnist(folder, packed=False)
        (folder / "whole").write_bytes((folder / "train-images-idx3-ubyte").read_bytes())
    (folder / "train-images-idx3-ubyte").write_bytes((folder / "whole").read_bytes()[:cut])
    with pytest.raises(UserError, match="not a whole idx file"):
        load_train(DataConfig(name="fashion_mnist", root=str(folder)))


def test_cifar_pixels_keep_their_channel_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = write_cifar(tmp_path, "CIFAR10", monkeypatch)
    _, train = load_train(DataConfig(name="cifar10", root=str(tmp_path)))
    first = pickle.loads((tmp_path / reader.base_folder / "data_batch_1").read_bytes())["data"][0]
    assert train.images[0].flatten().tolist() == first.tolist()  # red rows, green rows, blue rows
    assert len(train) == 5 * 20


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_cifar_file_that_is_not_the_published_one_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = write_cifar(tmp_path, "CIFAR10", monkeypatch)
    (tmp_path / reader.base_folder / "data_batch_3").write_bytes(pickle.dumps(_Attack(tmp_path / "attacked")))
    with pytest.raises(UserError, match="not found or corrupted"):
        load_train(DataConfig(name="cifar10", root=str(tmp_path)))
    assert not (tmp_path / "attacked").exists()


def test_digits_keep_their_grey_levels() -> None:
    info, train = load_train(DataConfig())
    assert len(train) + len(load_test(DataConfig())) == 1797
    assert len(train.images.unique()) == 17
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    pixels = train.images.double() / 255
    assert float(pixels.mean()) == pytest.approx(info.mean[0], abs=1e-4)
    assert float(pixels.std(correction=0)) == pytest.approx(info.std[0], abs=1e-4)


def test_digits_are_those_of_scikit_learn() -> None:
    """All of them, each once: training images, then test images, against what its own reader gives."""
    parts = (load_train(DataConfig())[1], load_test(DataConfig()))
    images = torch.cat([part.images.flatten(1) for part in parts])
    ours = torch.cat([images, torch.cat([part.labels for part in parts])[:, None]], 1)
    digits = load_digits()
    theirs = np.column_stack([(digits.data * 255 / 16).round(), digits.target])
    assert sorted(ours.tolist()) == sorted(theirs.astype(int).tolist())


# --- subsets, sizes, test set ---------------------------------------------------------------------------------------


def test_num_train_is_exact_stratified_and_nested() -> None:
    _, everything = load_train(DataConfig())
    _, some = load_train(DataConfig(num_train=300))
    _, fewer = load_train(DataConfig(num_train=100))
    assert (len(some), len(fewer)) == (300, 100)
    assert some.labels.bincount().tolist() == pytest.approx([30] * 10, abs=2)
    rows = {bytes(image.flatten().tolist()) for image in some.images}
    assert {bytes(image.flatten().tolist()) for image in fewer.images} <= rows
    assert rows <= {bytes(image.flatten().tolist()) for image in everything.images}


@pytest.mark.parametrize("number", [9, 1439])
def test_num_train_out_of_reach_is_a_mistake(number: int) -> None:
    with pytest.raises(UserError, match=r"data\.num_train .*choose 10 to 1438"):
        load_train(DataConfig(num_train=number))


def test_image_size_resizes_once_at_load() -> None:
    info, train = load_train(DataConfig(image_size=16, num_train=10))
    assert info.image_size == 16
    assert train.images.shape == (10, 1, 16, 16)
    assert train.images.dtype == torch.uint8
    assert load_test(DataConfig(image_size=16)).images.shape[-2:] == (16, 16)
    _, native = load_train(DataConfig(num_train=10))
    assert float(train.images.float().mean()) == pytest.approx(float(native.images.float().mean()), rel=0.02)


def test_the_test_set_is_disjoint_from_training_and_knows_no_seed_or_split() -> None:
    """Digits are told apart by their pixels and label; scikit-learn's set holds no two equal ones."""

    def rows(images: ImageSet) -> set[tuple[int, ...]]:
        return {
            (*image.flatten().tolist(), label)
            for image, label in zip(images.images, images.labels.tolist(), strict=True)
        }

    _, train = load_train(DataConfig())
    test = load_test(DataConfig())
    assert len(rows(train)) + len(rows(test)) == 1797
    assert not rows(train) & rows(test)
    for number in (100, 500):
        config = DataConfig(num_train=number, split=SplitConfig(weights=0.3, alphas=0.3, held_out=0.3))
        assert torch.equal(load_test(config).images, test.images)
        for seed in (0, 1):
            parts = split(load_train(config)[1], config, seed)
            for part in (parts.weights, parts.alphas, parts.held_out):
                assert not rows(part) & rows(test)


def test_the_test_set_of_digits_is_the_same_for_ever() -> None:
    """Genotypes of stored studies were chosen without these images: a later version must not move them."""
    content = load_test(DataConfig()).images.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "e20185587121be43"


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_training_does_not_depend_on_the_test_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced or absent test images leave the training images as they are; and the other way round."""
    reader = WRITERS[name](tmp_path, monkeypatch)
    config = DataConfig(name=name, root=str(tmp_path))
    train, test = load_train(config)[1], load_test(config)
    assert not any((train.images == image).flatten(1).all(1).any() for image in test.images)
    if name == "fashion_mnist":
        for file in tmp_path.glob("t10k-*"):
            file.unlink()
    else:
        file = tmp_path / reader.base_folder / "test_batch"
        file.write_bytes(pickle.dumps({"data": np.zeros((20, 3072), np.uint8), "labels": [0] * 20}))
        monkeypatch.setattr(reader, "test_list", [["test_batch", hashlib.md5(file.read_bytes()).hexdigest()]])
        assert not load_test(config).images.any()
    again = load_train(config)[1]
    assert torch.equal(again.images, train.images)
    assert torch.equal(again.labels, train.labels)


# --- splits ---------------------------------------------------------------------------------------------------------


@st.composite
def shares(draw: st.DrawFn) -> tuple[float, float, float]:
    """Three shares that leave some images unused, or none."""
    parts = [draw(st.integers(2, 8)) for _ in range(3)]
    total = sum(parts) + draw(st.integers(0, 4))
    return parts[0] / total, parts[1] / total, parts[2] / total


@st.composite
def labellings(draw: st.DrawFn) -> list[int]:
    """Labels of three classes of 40 to 100 images, in any order."""
    labels = [label for label in range(3) for _ in range(draw(st.integers(40, 100)))]
    return np.random.RandomState(draw(st.integers(0, 1000))).permutation(labels).tolist()


@given(labellings(), shares(), st.integers(0, 2**31 - 1))
def test_splits_are_disjoint_sized_stratified_and_reproducible(
    labels: list[int], share: tuple[float, float, float], seed: int
) -> None:
    config = DataConfig(split=SplitConfig(weights=share[0], alphas=share[1], held_out=share[2]))
    train = numbered(labels)
    parts = split(train, config, seed)
    found = [numbers(part) for part in (parts.weights, parts.alphas, parts.held_out)]
    together = [n for part in found for n in part]
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(len(labels)))
    for part, images, fraction in zip(found, (parts.weights, parts.alphas, parts.held_out), share, strict=True):
        assert part == sorted(part)
        assert abs(len(part) - fraction * len(labels)) <= 1
        assert images.labels.tolist() == [labels[n] for n in part]
        for label in set(labels):
            expected = fraction * labels.count(label)
            assert 1 <= images.labels.tolist().count(label) == pytest.approx(expected, abs=2)
    again = split(train, config, seed)
    assert [numbers(part) for part in (again.weights, again.alphas, again.held_out)] == found


def test_the_seed_of_the_study_moves_the_split() -> None:
    train = numbered([0, 1, 2] * 20)
    assert numbers(split(train, DataConfig(), 0).weights) != numbers(split(train, DataConfig(), 1).weights)


def test_shares_of_one_use_every_image() -> None:
    parts = split(numbered([0, 1, 2] * 33), DataConfig(), 3)
    assert len(parts.weights) + len(parts.alphas) + len(parts.held_out) == 99


def test_the_split_does_not_look_at_pixels() -> None:
    labels = [0, 1, 2] * 10
    blank = ImageSet(torch.zeros(30, 1, 6, 6, dtype=torch.uint8), torch.tensor(labels))
    order = split(numbered(labels), DataConfig(), 0).alphas.labels
    assert torch.equal(split(blank, DataConfig(), 0).alphas.labels, order)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0] * 50 + [1]])
def test_a_split_that_lacks_data_or_a_class_is_a_mistake(labels: list[int]) -> None:
    with pytest.raises(UserError, match=r"data\.split (weights|alphas|held_out) .*none of class \d"):
        split(numbered(labels), DataConfig(), 0)


def test_hold_out_deals_training_and_validation() -> None:
    train, validation = hold_out(numbered([0, 1, 2] * 20), 0.25, 5, ("ant", "bee", "cow"))
    assert (len(train), len(validation)) == (45, 15)
    assert sorted(numbers(train) + numbers(validation)) == list(range(60))
    assert validation.labels.bincount().tolist() == [5, 5, 5]
    with pytest.raises(UserError, match=r"retrain\.validation_fraction.* none of class cow: "):
        hold_out(numbered([0, 1] * 20 + [2]), 0.1, 5, ("ant", "bee", "cow"))


def test_check_batch() -> None:
    check_batch("alphas", 64, 64)
    with pytest.raises(UserError, match="batch_size 65 exceeds the 64 images of split alphas: use at most 64"):
        check_batch("alphas", 64, 65)


def test_a_split_with_a_seed_of_its_own_is_the_same_for_all_seeds() -> None:
    config = DataConfig(name="digits", num_train=200)
    _, train = load_train(config)
    fixed = config.model_copy(update={"split": SplitConfig(seed=7)})
    parts = [split(train, one, seed) for one, seed in ((fixed, 1), (fixed, 2), (config, 7), (config, 1))]
    labels = [[getattr(part, name).labels.tolist() for name in ("weights", "alphas", "held_out")] for part in parts]
    assert labels[0] == labels[1] == labels[2] != labels[3]


def test_a_set_from_elsewhere_is_known_by_its_images() -> None:
    """Those of the package are published; a plug-in's may change between a search and its resume."""
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1])
    sets = {"images": images}
    info = DataInfo("mine", 2, 1, 8, (0.5,), (0.5,))
    mine = Published(info, lambda root, train: (sets["images"], labels), "nothing")
    settings = DataConfig()
    assert DATASETS["digits"].listing(settings, True) is None
    before = mine.listing(settings, True)
    assert before == mine.listing(settings, True) is not None
    sets["images"] = images + 1
    assert mine.listing(settings, True) != before
