"""Data sets: each is one entry of a table, is read from local files, and is split without leaks (section 5).

The facts of a published set are known here; the facts of a user's own images are read from the images. Small sets are
read into memory. ImageNet, and folders that are too large, stay in their files and are streamed. Nothing is downloaded.
The test images of a set are a file (or a folder, or a fixed share) of their own, which `load_train` and `split` never
use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..datasets import facts, names, own, published, sources, tables
from ..datasets.stratified import FIXED_SEED, stratified_order
from ..ground import plugins
from ..ground.errors import UserError
from ..ground.table import Table
from ..settings.config import ExperimentConfig
from ..settings.data_settings import DATA_SETS, IMAGE_SIZES, DataConfig
from ..settings.retrain_settings import RetrainConfig
from ..tensors.seeding import stream_seed
from .augment import Augment, Policy
from .images import DataInfo, Images, ImageSet, Unfit, check_read
from .readers import own_cores, suitable
from .streaming import PictureFiles, StreamedSet

__all__ = [
    "DATASETS",
    "Augment",
    "DataInfo",
    "ImageSet",
    "Images",
    "OwnImages",
    "Published",
    "augment_of",
    "class_counts",
    "data_facts",
    "data_info",
    "data_notes",
    "for_cores",
    "load_test",
    "load_train",
    "settings_of",
]


class Entry(Protocol):
    """The attributes and methods that every entry of the table of data sets must have."""

    @property
    def name(self) -> str:
        """The name by which `data.name` chooses this entry."""

    @property
    def files(self) -> str:
        """The files that are expected at `data.root`, in words."""

    @property
    def policy(self) -> Policy:
        """The name of AutoAugment's policy that fits these images."""

    def facts(self, config: DataConfig) -> DataInfo:
        """Return the facts of the configured images, before the statistics that a user gives replace their own."""

    def images(self, config: DataConfig, train: bool) -> Images:
        """Return the training images (`train`), or else the test images, at the configured size."""

    def notes(self, config: DataConfig) -> Sequence[str]:
        """Return what a user should know about the images before they are used, in sentences."""

    def listing(self, config: DataConfig, train: bool) -> str | None:
        """Return a hash of the list of the training images (`train`), or else of the test images.

        None stands for a published list, which does not change.
        """


@dataclass(frozen=True)
class Published:
    """A published data set: its facts, its reader, and the files that the reader needs.

    Attributes:
        info: the facts of the set.
        read: the reader, called as (root, train). It returns images uint8, or float of 0..1, [number,
            channels, height, width] and labels int64 [number], or a data set of torchvision with `targets`, which is
            then streamed. It raises `OSError`, `EOFError`, `RuntimeError` or `ValueError` if the files are absent or
            damaged.
        files: the files that are expected below `data.root`, in words.
        policy: the name of AutoAugment's policy that fits these images.
        classes: a function from the root to the names of the classes that are there, for a set of which a part of the
            classes may be there. It returns no name if nothing is there. None: the classes are those of `info`.
    """

    info: DataInfo
    read: Callable[[Path, bool], tuple[Tensor, Tensor] | Any]
    files: str
    policy: Policy = "CIFAR10"
    classes: Callable[[Path], tuple[str, ...]] | None = None

    @property
    def name(self) -> str:
        """See `Entry`."""
        return self.info.name

    def facts(self, config: DataConfig) -> DataInfo:
        """Return the facts. They are known without the files, except which classes are there if `classes` asks.

        Raises:
            UserError: `data.channels` is another number than the set has, or a setting is only for a user's own images.
        """
        if config.channels not in (None, self.info.channels):
            raise UserError(
                f"data.channels {config.channels}: {self.name} has {self.info.channels}: leave this setting out"
            )
        if config.in_memory is not None or config.on_broken != "error":
            key = "in_memory" if config.in_memory is not None else "on_broken"
            own_images = ", ".join(name for name, entry in DATASETS.items() if isinstance(entry, OwnImages))
            raise UserError(f"data.{key} is for images of your own ({own_images}): leave it out with {self.name}")
        size = self.info.image_size if config.image_size is None else config.image_size
        known = self.classes(Path(config.root).expanduser()) if self.classes is not None else ()
        info = replace(self.info, image_size=size)
        return replace(info, classes=known, num_classes=len(known)) if known else info

    def images(self, config: DataConfig, train: bool) -> Images:
        """Return the training images (`train`), or else the test images; they are read at once or streamed.

        Raises:
            UserError: the files are absent or damaged.
            Unfit: the reader gives something else than it must.
        """
        info = self.facts(config)
        size = info.image_size
        root = Path(config.root).expanduser()
        try:
            found = self.read(root, train)
        except (OSError, EOFError, RuntimeError, ValueError) as error:
            raise UserError(
                f"cannot read {self.name} in {str(root.absolute())!r} ({_first_words(error)}): expected there "
                f"{self.files}; nothing is downloaded, name the folder with --set data.root=FOLDER"
            ) from error
        try:
            check_read(found, info)
        except Unfit as error:
            which = "training" if train else "test"
            raise Unfit(
                f"cannot use what the reader of the data set {self.name!r} gives for the {which}: {error}"
            ) from error
        if isinstance(found, tuple):
            images, labels = found
            return ImageSet(_resize(images, size), labels)
        return StreamedSet.of(found, size, _num_workers(config))

    def notes(self, config: DataConfig) -> Sequence[str]:
        """Return no sentences: everything about the set is published."""
        return ()

    def listing(self, config: DataConfig, train: bool) -> str | None:
        """Return None for a set that is published in one order. The images of a plug-in's set are read and hashed."""
        if self.name in BUILT_IN:
            return None
        found = self.read(Path(config.root).expanduser(), train)
        parts = found if isinstance(found, tuple) else (torch.as_tensor(found.targets),)
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(part.contiguous().numpy().tobytes())
        return hashed.hexdigest()[:16]


@dataclass(frozen=True)
class OwnImages:
    """A layout in which users keep images of their own. All facts are read from the images.

    Attributes:
        name: the name of the layout, by which `data.name` chooses it.
        collect: a function from the root to a list of what is there; see `sources.Found`. It raises `UserError` or
            `OSError` if something is not as it must be.
        files: the files that are expected at `data.root`, in words.
        policy: the name of AutoAugment's policy for these images.
    """

    name: str
    collect: Callable[[Path], sources.Found]
    files: str
    policy: Policy = "IMAGENET"

    def look(self, config: DataConfig) -> own.Own:
        """Return what a look at the images found. Images that were looked at before are not read again.

        Raises:
            UserError: the images are not there, or something about them is broken.
        """
        wanted = own.Wanted(config.channels, config.image_size, config.in_memory, config.on_broken == "skip")
        known = "" if self.name in BUILT_IN else f" of {json.dumps(plugins.records())}"
        try:
            return own.look(self._collected, Path(config.root).expanduser(), wanted, self.name + known)
        except UserError as error:
            raise UserError(
                f"cannot use the images of data.name {self.name}: {error} (expected: {self.files}; see `ddarts data`)"
            ) from error

    def _collected(self, root: Path) -> sources.Found:
        try:
            return self.collect(root)
        except OSError as error:
            raise UserError(f"{str(error.filename or root)!r} cannot be read: {error.strerror or error}") from error

    def facts(self, config: DataConfig) -> DataInfo:
        """Return the facts, which are read from the images."""
        return self.look(config).info

    def images(self, config: DataConfig, train: bool) -> Images:
        """Return the training images (`train`), or else the test images.

        They are in memory or streamed, as `data.in_memory` says. The labels are in memory in both cases.
        """
        found = self.look(config)
        rows = found.train if train else found.test
        pictures = None if found.pictures is None or not train else torch.from_numpy(found.pictures[rows])
        if found.pixels is not None:
            return ImageSet(torch.from_numpy(found.pixels[rows]), torch.from_numpy(found.found.labels[rows]), pictures)
        files = PictureFiles(found.found.root, found.found.names, found.found.labels.tolist(), found.info.channels)
        streamed = StreamedSet.of(files, found.info.image_size, _num_workers(config)).subset(torch.from_numpy(rows))
        return replace(streamed, pictures=pictures)

    def notes(self, config: DataConfig) -> Sequence[str]:
        """Return sentences that say what was chosen and why, and what looks wrong."""
        return self.look(config).notes

    def listing(self, config: DataConfig, train: bool) -> str | None:
        """Return `own.Own.train_listing`, or else `own.Own.test_listing`."""
        found = self.look(config)
        return found.train_listing if train else found.test_listing


def _cifar(folder: str, classes: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]) -> Published:
    number = len(classes)
    return Published(
        DataInfo(f"cifar{number}", number, 3, 32, mean, std, classes),
        published.read_cifar(f"CIFAR{number}"),
        f"the folder {folder}, unpacked from cifar-{number}-python.tar.gz and unchanged",
    )


#: Means and deviations are those of the training images in 0..1.
_ENTRIES: tuple[Entry, ...] = (
    Published(
        DataInfo("digits", 10, 1, 8, (0.3058,), (0.3759,)), published.read_digits, "nothing: scikit-learn brings it"
    ),
    Published(
        DataInfo("fashion_mnist", 10, 1, 28, (0.28604,), (0.35302,), names.FASHION_MNIST),
        published.read_fashion_mnist,
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain "
        "or .gz, in it or in its FashionMNIST/raw (Debian's package dataset-fashion-mnist puts them in "
        "/usr/share/datasets/fashion-mnist)",
    ),
    _cifar(
        "cifar-10-batches-py",
        names.CIFAR10,
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
    ),
    _cifar(
        "cifar-100-python",
        names.CIFAR100,
        (0.50707519, 0.48654887, 0.44091785),
        (0.26733428, 0.25643846, 0.27615049),
    ),
    Published(
        DataInfo("imagenet", 1000, 3, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        published.read_imagenet,
        "the folders train and val with one folder of JPEG files per WordNet ID, and meta.bin or "
        "ILSVRC2012_devkit_t12.tar.gz, as torchvision's ImageNet lays them out",
        "IMAGENET",
        published.wnids,
    ),
    OwnImages(
        "folder", sources.folder, "ROOT/train/CLASS/FILE with optional val and test beside train, or ROOT/CLASS/FILE"
    ),
    OwnImages("arrays", tables.arrays, "one .npz with images and labels, or train.npz and test.npz in a folder"),
    OwnImages("parquet", tables.parquet, "Parquet with a column of images and one called label"),
)

#: Every data set.
DATASETS: Table[Entry] = Table("data set", {entry.name: entry for entry in _ENTRIES})
BUILT_IN = frozenset(DATASETS)
"""The names of the data sets that come from no plug-in."""

assert list(DATASETS) == DATA_SETS
assert {entry.name: entry.info.image_size for entry in _ENTRIES if isinstance(entry, Published)} == IMAGE_SIZES


def data_info(config: DataConfig) -> DataInfo:
    """Return the facts of the configured data set at the configured size.

    The facts of a published set are known without its files. A user's own images are looked at once.

    Raises:
        UserError: a user's own images are missing or broken, or a setting does not fit the set.
    """
    return own.given(DATASETS[config.name].facts(config), config.mean, config.std)


def data_facts(config: DataConfig, info: DataInfo, train: Images, tested: bool = False) -> dict[str, Any]:
    """Return the content of `data.json` (see `facts.document`) for the training images of these settings.

    Args:
        config: the settings of the data.
        info: the facts of the data set.
        train: the training images.
        tested: whether the run will score on the test images, and so has to know them too.
    """
    copies = 0 if train.pictures is None else len(train) - len(torch.unique(train.pictures))
    found = facts.document(info, class_counts(info, train), data_notes(config), copies)
    lists = {name: DATASETS[config.name].listing(config, name == "train") for name in ("train", "test")[: 1 + tested]}
    return found | {f"{name}_listing": known for name, known in lists.items() if known is not None}


def class_counts(info: DataInfo, images: Images) -> list[int]:
    """Return how many images each class has, in the order of the labels."""
    counts: list[int] = images.labels.bincount(minlength=info.num_classes).tolist()
    return counts


def settings_of(config: DataConfig) -> dict[str, Any]:
    """Return the settings that say which images there are, without those of where they are and how they are read."""
    return config.model_dump(mode="json", exclude={"root", "num_workers", "in_memory"})


def for_cores(config: ExperimentConfig, cores: float) -> ExperimentConfig:
    """Return the same settings in which `data.num_workers`, if it is auto, is a number.

    Args:
        config: the settings of the experiment.
        cores: how many cores the process has that will read the images.
    """
    if config.data.num_workers != "auto":
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"num_workers": suitable(cores)})})


def data_notes(config: DataConfig) -> list[str]:
    """Return what a user should know about the configured images before they are used, in sentences.

    Raises:
        UserError: see `data_info`.
    """
    return list(DATASETS[config.name].notes(config))


def load_train(config: DataConfig) -> tuple[DataInfo, Images]:
    """Load the training images: the first `num_train` of a fixed stratified order, resized to `image_size`.

    Returns:
        The facts of the data set, and the images.

    Raises:
        UserError: the files are absent or damaged, or there are not enough images.
    """
    info = data_info(config)
    images = DATASETS[config.name].images(config, train=True)
    if config.num_train is not None:
        if not info.num_classes <= config.num_train <= len(images):
            raise UserError(
                f"data.num_train {config.num_train}: {info.name} has {len(images)} training images of "
                f"{info.num_classes} classes, choose {info.num_classes} to {len(images)}"
            )
        order = stratified_order(images.labels.numpy(), stream_seed(FIXED_SEED, info.name, "num_train"))
        images = images.subset(torch.from_numpy(np.sort(order[: config.num_train])))
    return info, images


def load_test(config: DataConfig) -> Images:
    """Load all test images, resized to `image_size`. No search uses them: they are read once, after a training.

    Raises:
        UserError: the files are absent or damaged.
    """
    return DATASETS[config.name].images(config, train=False)


def _num_workers(config: DataConfig) -> int:
    """Return how many processes read streamed images."""
    return suitable(own_cores()) if config.num_workers == "auto" else config.num_workers


def _first_words(error: BaseException) -> str:
    """Return the reason of an error, without torchvision's advice to download the files: ddarts downloads nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split(". ")[0]


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, [size, size], antialias=True)
    return resized


def augment_of(config: DataConfig | RetrainConfig, name: str) -> Augment | None:
    """Return how training images of the data set `name` are changed at random; None if all changes are off."""
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
