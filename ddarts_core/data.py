"""Data sets: one table entry each, read from local files, and split without leaks (section 5).

Small sets are read into memory; ImageNet stays in its files and is streamed. Nothing is downloaded. The test images of
a set are a file (or a folder, or a fixed share) of their own, which `load_train` and `split` never read.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .augment import Augment, Policy
from .config import DATA_SETS, DataConfig, ExperimentConfig, RetrainConfig
from .datasets import facts, names
from .errors import UserError
from .images import DataInfo, Images, ImageSet
from .readers import own_cores, suitable
from .seeding import stream_seed
from .streaming import StreamedSet

__all__ = [
    "DATASETS",
    "Augment",
    "DataInfo",
    "DatasetEntry",
    "ImageSet",
    "Images",
    "Splits",
    "augment_of",
    "check_batch",
    "data_facts",
    "data_info",
    "for_cores",
    "hold_out",
    "load_test",
    "load_train",
    "split",
]

#: Seed of what must be the same in every study: the test share of digits and the images that `num_train` keeps.
FIXED_SEED = 20_240_229


@dataclass(frozen=True)
class DatasetEntry:
    """A data set of the table: its facts, its reader, and the files that the reader wants.

    Attributes:
        read: (root, train) -> images uint8 [number, channels, height, width] and labels int64 [number], or a set of
            torchvision's with `targets`, which is streamed; raises `OSError`, `EOFError`, `RuntimeError` or
            `ValueError` when the files are absent or damaged.
        files: the files wanted below `data.root`, in words.
        policy: of AutoAugment.
    """

    info: DataInfo
    read: Callable[[Path, bool], tuple[Tensor, Tensor] | Any]
    files: str
    policy: Policy = "CIFAR10"


@dataclass(frozen=True)
class Splits:
    """Disjoint shares of the training images: for the weights, for the alphas, and for the score of a search."""

    weights: Images
    alphas: Images
    held_out: Images


# --- reading --------------------------------------------------------------------------------------------------------


def _read_digits(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits come without a test set: a fixed stratified fifth of them is ours."""
    # The file that sklearn.datasets.load_digits reads: importing scikit-learn takes seconds, in every trial.
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", np.uint8, delimiter=",")
    labels = torch.from_numpy(rows[:, 64].astype(np.int64))
    order = _stratified_order(labels, stream_seed(FIXED_SEED, "digits", "test"))
    num_test = round(0.2 * len(labels))
    chosen = torch.from_numpy(np.sort(order[num_test:] if train else order[:num_test]))
    grey = torch.from_numpy(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).round().to(torch.uint8)
    return grey[chosen, None], labels[chosen]


def _read_fashion_mnist(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """The four idx files, packed or not, in the folder itself (Debian) or in FashionMNIST/raw (torchvision)."""
    prefix = "train" if train else "t10k"
    folder = next(
        (f for f in (root / "FashionMNIST" / "raw", root) if list(f.glob(f"{prefix}-images-idx3-ubyte*"))), None
    )
    if folder is None:
        raise FileNotFoundError(f"no {prefix}-images-idx3-ubyte or .gz")
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte", 3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    return images[:, None], labels.to(torch.int64)


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """Unsigned bytes of an idx file: 0, 0, 8, dimensions, the sizes as big-endian 32-bit integers, then the bytes."""
    if path.exists():
        data = path.read_bytes()
    else:
        try:
            data = gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
        except zlib.error as error:
            raise ValueError(f"{path.name}.gz is damaged") from error
    start = 4 + 4 * dimensions
    sizes = [int(size) for size in np.frombuffer(data[4:start], ">u4")] if len(data) >= start else []
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != start + math.prod(sizes):
        raise ValueError(f"{path.name} is not a whole idx file of {dimensions} dimensions")
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(*sizes)


def _cifar(name: str) -> Callable[[Path, bool], tuple[Tensor, Tensor]]:
    """torchvision's reader. The files are pickles: it opens them only if their MD5 is that of the published files."""

    def read(root: Path, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision import datasets

        found: Any = getattr(datasets, name)(root, train=train, download=False)
        images = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)))
        return images, torch.tensor(found.targets, dtype=torch.int64)

    return read


def _imagenet(root: Path, train: bool) -> Any:
    """torchvision's reader; given archives without folders it would unpack them, so the folder is asked for first."""
    from torchvision import datasets

    folder = root / ("train" if train else "val")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.name}")
    return datasets.ImageNet(root, split=folder.name)


def _table(*entries: DatasetEntry) -> Mapping[str, DatasetEntry]:
    table = {entry.info.name: entry for entry in entries}
    if len(table) != len(entries):
        raise ValueError("two data sets of one name")
    return MappingProxyType(table)


#: Every data set. Means and deviations are those of the training images in 0..1.
DATASETS = _table(
    DatasetEntry(DataInfo("digits", 10, 1, 8, (0.3058,), (0.3759,)), _read_digits, "nothing: scikit-learn brings it"),
    DatasetEntry(
        DataInfo("fashion_mnist", 10, 1, 28, (0.28604,), (0.35302,), names.FASHION_MNIST),
        _read_fashion_mnist,
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain "
        "or .gz, in it or in its FashionMNIST/raw (Debian's package dataset-fashion-mnist puts them in "
        "/usr/share/datasets/fashion-mnist)",
    ),
    DatasetEntry(
        DataInfo(
            "cifar10",
            10,
            3,
            32,
            (0.49139968, 0.48215827, 0.44653124),
            (0.24703233, 0.24348505, 0.26158768),
            names.CIFAR10,
        ),
        _cifar("CIFAR10"),
        "the folder cifar-10-batches-py, unpacked from cifar-10-python.tar.gz and unchanged",
    ),
    DatasetEntry(
        DataInfo(
            "cifar100",
            100,
            3,
            32,
            (0.50707519, 0.48654887, 0.44091785),
            (0.26733428, 0.25643846, 0.27615049),
            names.CIFAR100,
        ),
        _cifar("CIFAR100"),
        "the folder cifar-100-python, unpacked from cifar-100-python.tar.gz and unchanged",
    ),
    DatasetEntry(
        DataInfo("imagenet", 1000, 3, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        _imagenet,
        "the folders train and val with one folder of JPEG files per WordNet ID, and meta.bin or "
        "ILSVRC2012_devkit_t12.tar.gz, as torchvision's ImageNet lays them out",
        "IMAGENET",
    ),
)


assert tuple(DATASETS) == DATA_SETS


def data_info(config: DataConfig) -> DataInfo:
    """The facts of the configured data set at the configured size; reads no file."""
    info = DATASETS[config.name].info
    size = info.image_size if config.image_size is None else config.image_size
    return replace(info, image_size=size)


def data_facts(info: DataInfo, train: Images) -> dict[str, Any]:
    """The content of `data.json` (see `facts.document`) for these training images."""
    return facts.document(info, train.labels.bincount(minlength=info.num_classes).tolist())


def for_cores(config: ExperimentConfig, cores: float) -> ExperimentConfig:
    """The same settings with a number for `data.num_workers` auto, as it is for a process that has so many cores."""
    if config.data.num_workers != "auto":
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"num_workers": suitable(cores)})})


def load_train(config: DataConfig) -> tuple[DataInfo, Images]:
    """The training images: the first `num_train` of a fixed stratified order, resized to `image_size`.

    Raises:
        UserError: its files are absent or damaged, or there are not enough images.
    """
    info = data_info(config)
    images = _read(config, train=True)
    if config.num_train is not None:
        if not info.num_classes <= config.num_train <= len(images):
            raise UserError(
                f"data.num_train {config.num_train}: {info.name} has {len(images)} training images of "
                f"{info.num_classes} classes, choose {info.num_classes} to {len(images)}"
            )
        order = _stratified_order(images.labels, stream_seed(FIXED_SEED, info.name, "num_train"))
        images = images.subset(torch.from_numpy(np.sort(order[: config.num_train])))
    return info, images


def load_test(config: DataConfig) -> Images:
    """All test images, resized to `image_size`. Never part of a search: read once, after training.

    Raises:
        UserError: its files are absent or damaged.
    """
    return _read(config, train=False)


def _read(config: DataConfig, train: bool) -> Images:
    info = data_info(config)
    root = Path(config.root).expanduser()
    try:
        found = DATASETS[info.name].read(root, train)
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot read {info.name} in {str(root.absolute())!r} ({_first_words(error)}): expected there "
            f"{DATASETS[info.name].files}; nothing is downloaded, name the folder with --set data.root=FOLDER"
        ) from error
    if isinstance(found, tuple):
        images, labels = found
        return ImageSet(_resize(images, info.image_size), labels)
    num_workers = suitable(own_cores()) if config.num_workers == "auto" else config.num_workers
    return StreamedSet.of(found, info.image_size, num_workers)


def _first_words(error: BaseException) -> str:
    """The reason without torchvision's advice to download, which is not on offer."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split(". ")[0]


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, [size, size], antialias=True)
    return resized


# --- splitting ------------------------------------------------------------------------------------------------------


def _stratified_order(labels: Tensor, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A random order of all images in which every stretch has the classes in about their overall shares.

    Image r (from 0) of a class of n images stands at (r + 1/2) / n: a stretch of m images has m * share of each
    class, give or take two. Balanced classes take turns. Drawn from numpy's legacy generator, whose stream numpy
    promises never to change: the split of a stored study must not depend on a version.
    """
    random = np.random.RandomState(seed % 2**32)
    classes = labels.cpu().numpy()
    order = random.permutation(len(classes))
    place = np.empty(len(classes))
    for label in np.unique(classes):
        members = order[classes[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    found: np.ndarray[Any, np.dtype[np.int64]] = order[np.argsort(place[order], kind="stable")].astype(np.int64)
    return found


def split(train: Images, config: DataConfig, seed: int) -> Splits:
    """Deal the training images to weights, alphas and held_out by `data.split`; a share that sums below 1 is unused.

    Disjoint, stratified, a function of the labels and the seed alone; each split keeps the order of the images.

    Raises:
        UserError: a split would be empty or lack a class.
    """
    shares = {"weights": config.split.weights, "alphas": config.split.alphas, "held_out": config.split.held_out}
    return Splits(**_deal(train, shares, stream_seed(seed, "split"), "data.split"))


def hold_out(train: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Deal the training images of a retraining to (training, validation), stratified as `split` does.

    Raises:
        UserError: one of the two would be empty or lack a class.
    """
    shares = {"training": 1 - fraction, "validation": fraction}
    parts = _deal(train, shares, stream_seed(seed, "hold_out"), "retrain.validation_fraction: share of")
    return parts["training"], parts["validation"]


def _deal(train: Images, shares: Mapping[str, float], seed: int, setting: str) -> dict[str, Images]:
    order = _stratified_order(train.labels, seed)
    parts: dict[str, Images] = {}
    total = 0.0
    for name, share in shares.items():
        start, total = total, total + share
        chosen = np.sort(order[round(start * len(order)) : round(total * len(order))])
        parts[name] = part = train.subset(torch.from_numpy(chosen))
        absent = np.setdiff1d(train.labels.cpu().numpy(), part.labels.cpu().numpy())
        if len(absent):
            raise UserError(
                f"{setting} {name} {share:g} of {len(train)} images leaves {len(part)} images and none of class "
                f"{absent[0]}: use more images (data.num_train) or a larger share"
            )
    return parts


def augment_of(config: DataConfig | RetrainConfig, name: str) -> Augment | None:
    """How training images of the data set `name` are changed at random; None when all of it is off."""
    augment = Augment(
        crop_padding=config.crop_padding,
        flip=config.flip,
        cutout=config.cutout,
        autoaugment=config.autoaugment,
        resized_crop=config.resized_crop,
        color_jitter=config.color_jitter,
        policy=DATASETS[name].policy if name in DATASETS else "CIFAR10",
    )
    return None if augment.changes_nothing else augment


def check_batch(split_name: str, size: int, batch_size: int, setting: str = "search.batch_size") -> None:
    """Refuse a batch that is larger than the split it is drawn from.

    Raises:
        UserError: `batch_size` exceeds `size`.
    """
    if batch_size > size:
        raise UserError(
            f"{setting} {batch_size} exceeds the {size} images of split {split_name}: "
            f"use at most {size}, or more images (data.num_train, data.split)"
        )
