"""Readers of published data sets. They read local files in the formats in which the sets were published."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tensors.seeding import stream_seed
from .stratified import FIXED_SEED, stratified_order


def read_digits(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Read scikit-learn's 1,797 digits. They come without a test set: here it is a fixed stratified fifth of them."""
    # The file that sklearn.datasets.load_digits reads: importing scikit-learn takes seconds, in every trial.
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", np.uint8, delimiter=",")
    labels = torch.from_numpy(rows[:, 64].astype(np.int64))
    order = stratified_order(labels.numpy(), stream_seed(FIXED_SEED, "digits", "test"))
    num_test = round(0.2 * len(labels))
    chosen = torch.from_numpy(np.sort(order[num_test:] if train else order[:num_test]))
    grey = torch.from_numpy(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).round().to(torch.uint8)
    return grey[chosen, None], labels[chosen]


def read_fashion_mnist(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Read the idx files, packed by gzip or not, from the folder itself (Debian) or FashionMNIST/raw (torchvision)."""
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
    """Read the unsigned bytes of an idx file.

    The file has the bytes 0, 0, 8 and the number of dimensions, then the sizes as big-endian 32-bit integers, then the
    values, one byte each.
    """
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


def read_cifar(name: str) -> Callable[[Path, bool], tuple[Tensor, Tensor]]:
    """Return torchvision's reader of `CIFAR10` or `CIFAR100`, as a function of (root, train).

    The files are pickles. torchvision opens them only if their MD5 is that of the published files.
    """

    def read(root: Path, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision import datasets

        found: Any = getattr(datasets, name)(root, train=train, download=False)
        images = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)))
        return images, torch.tensor(found.targets, dtype=torch.int64)

    return read


def wnids(root: Path) -> tuple[str, ...]:
    """Return the WordNet IDs that have a folder of training images: all of ImageNet's classes, or a part of them."""
    folder = root / "train"
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def read_imagenet(root: Path, train: bool) -> Any:
    """Open the images by torchvision's reader.

    If there were archives and no folders, torchvision would unpack them. So this function first checks that the folder
    is there. A label is the place of a folder in the sorted names, so `val` must have the same classes as `train`.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: `val` has other classes than `train`.
    """
    from torchvision import datasets

    folder = root / ("train" if train else "val")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.name}")
    found = datasets.ImageNet(root, split=folder.name)
    known = wnids(root)
    if not train and known and tuple(found.wnids) != known:
        differing = sorted(set(found.wnids) ^ set(known))
        raise ValueError(
            f"the folders val and train have different classes: {differing[0]} and {len(differing) - 1} more"
        )
    return found
