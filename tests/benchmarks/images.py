"""What images of one's own cost: the scan, cold and cached, and images per second, streamed and in memory.

Beside them stands torchvision's own way: `ImageFolder` in a `DataLoader` of as many processes.

Fashion-MNIST is written out as 70,000 grey PNG files of 28 x 28 and read by `data.name: folder`:
`make bench-images`, or `python -m tests.benchmarks.images --root /usr/share/datasets/fashion-mnist`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from ddarts_core.data.images import DataInfo, Images, ImageSet
from ddarts_core.data.sets import data_info, load_test, load_train
from ddarts_core.datasets import own
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.tensors.seeding import generator

#: Where Debian's package dataset-fashion-mnist puts its files.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

BATCH = 128


def write_pngs(root: Path, split: str, images: ImageSet, indices: Iterable[int] | None = None) -> None:
    """Write grey images to `ROOT/SPLIT/LABEL/NUMBER.png`: sorted by the files' names they are in their own order."""
    for number in range(len(images)) if indices is None else indices:
        folder = root / split / str(int(images.labels[number]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.images[number, 0].numpy()).save(folder / f"{number:05d}.png", compress_level=1)


def seconds_of_facts(config: DataConfig) -> float:
    """Seconds until the facts are known, in a process that has not seen the images."""
    own._look.cache_clear()
    began = time.perf_counter()
    data_info(config)
    return time.perf_counter() - began


def per_second(images: Images, info: DataInfo) -> float:
    """Images of one shuffled pass, after a batch that starts the processes."""
    next(iter(images.batches(BATCH, info=info, generator=generator(0))))
    began, seen = time.perf_counter(), 0
    for x, _ in images.batches(BATCH, info=info, generator=generator(1)):
        seen += len(x)
    return seen / (time.perf_counter() - began)


def torchvision_per_second(folder: Path, info: DataInfo, processes: int) -> float:
    """Images of one shuffled pass of torchvision's loader, after a pass that starts the processes."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize(info.mean, info.std)]
    images = datasets.ImageFolder(str(folder / "train"), transforms.Compose(steps))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=processes, persistent_workers=processes > 0)
    passes = iter(loader)
    next(passes)
    began, seen = time.perf_counter(), 0
    for x, _ in passes:
        seen += len(x)
    return seen / (time.perf_counter() - began)


def measure(source: Path, folder: Path, most: int = 70_000) -> dict[str, object]:
    """All figures, of a folder that is written anew, of so many images of a split at most."""
    published = DataConfig(name="fashion_mnist", root=str(source))
    for split, images in (("train", load_train(published)[1]), ("test", load_test(published))):
        assert isinstance(images, ImageSet)
        write_pngs(folder, split, images, range(min(most, len(images))))
    os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    config = DataConfig(name="folder", root=str(folder), num_workers=len(os.sched_getaffinity(0)))
    cold = seconds_of_facts(config)
    cached = seconds_of_facts(config)
    rates = {}
    for name, in_memory in (("in memory", True), ("streamed", False)):
        info, images = load_train(config.model_copy(update={"in_memory": in_memory}))
        rates[name] = round(per_second(images, info))
        if name == "streamed":
            rates["torchvision"] = round(torchvision_per_second(folder, info, config.num_workers))
    return {
        "images": sum(1 for _ in folder.rglob("*.png")),
        "scan_seconds_cold": round(cold, 2),
        "scan_seconds_cached": round(cached, 2),
        "images_per_second": rates,
        "processes": config.num_workers,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
    }


def main() -> None:
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=DEBIAN, help="folder of Fashion-MNIST's four idx files")
    parser.add_argument("--most", type=int, default=70_000, help="use so many images of each split at most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(arguments.root, Path(place) / "images", arguments.most), indent=1))


if __name__ == "__main__":
    main()
