"""A data set of a user's own: what is refused, what is chosen and why, its splits, and its statistics. Torch-free."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..ground.errors import UserError
from . import cache, scan
from .decode import Source
from .facts import DataInfo
from .sources import Found, counts

#: Bytes of decoded images up to which a set is kept in memory unless `data.in_memory` says otherwise.
MEMORY_LIMIT = 2 * 2**30

#: The share of each class that becomes the test split of images that come without one.
TEST_SHARE = 0.2

#: Largest side that is chosen; a larger one must be asked for.
LARGEST = 224


@dataclass(frozen=True)
class Wanted:
    """The settings of `data` that say how a user's own images are read. None leaves a choice to ddarts.

    Attributes:
        channels: 1 for grey, 3 for red, green and blue.
        image_size: the side of the images in pixels.
        in_memory: whether the decoded images are kept in memory.
        skip_broken: whether broken images are left out; else they are refused.
    """

    channels: int | None
    image_size: int | None
    in_memory: bool | None
    skip_broken: bool


@dataclass(frozen=True, eq=False)
class Own:
    """A data set of a user's own that was looked at and accepted.

    Attributes:
        found: all images that were listed, the broken ones included.
        info: the facts of the set.
        train: the numbers of the training images, ascending. The number of an image is its place in `found`.
        test: the numbers of the test images, ascending.
        pixels: the pixels of all images, uint8 [number, channels, size, size]; None if the images are streamed.
        pictures: the number of the picture that each image shows, int64 [number], equal for copies; None if no training
            image is a copy of another one.
        notes: what was chosen and why, what was left out, and what looks wrong, in sentences.
        skipped: how many broken images were left out.
        sizes: the smallest (width, height) and the largest (width, height), in pixels.
    """

    found: Found
    info: DataInfo
    train: np.ndarray[Any, np.dtype[np.int64]]
    test: np.ndarray[Any, np.dtype[np.int64]]
    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None
    pictures: np.ndarray[Any, np.dtype[np.int64]] | None
    notes: tuple[str, ...]
    skipped: int
    sizes: tuple[tuple[int, int], tuple[int, int]]

    @property
    def train_counts(self) -> list[int]:
        """How many training images each class has."""
        return counts(self.found.labels[self.train], self.info.num_classes)

    @property
    def test_counts(self) -> list[int]:
        """How many test images each class has."""
        return counts(self.found.labels[self.test], self.info.num_classes)

    @functools.cached_property
    def train_listing(self) -> str:
        """A hash of the list of the training images, by which another list is noticed.

        It is 16 hex digits of the SHA-256 of the images' names and labels in their order, with the sizes of their files
        in bytes if each image is a file, else with their contents. No decoder and no clock has a part in it.
        """
        return _listing(self.found, self.train)

    @functools.cached_property
    def test_listing(self) -> str:
        """The same hash of the list of the test images."""
        return _listing(self.found, self.test)


def _listing(found: Found, rows: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    hashed = hashlib.sha256()
    for row in rows.tolist():
        name = os.fsencode(unicodedata.normalize("NFC", found.names[row]))  # some file systems store names otherwise
        content = b"%d" % found.stamps[row, 0] if found.in_files else _content(found.open(row))
        hashed.update(b"%s\0%d\0%d\0%s\n" % (name, found.labels[row], len(content), content))
    return hashed.hexdigest()[:16]


def _content(source: Source) -> bytes:
    if isinstance(source, Path):
        return source.read_bytes()
    return source.tobytes() if isinstance(source, np.ndarray) else source


def look(collect: Callable[[Path], Found], root: Path, wanted: Wanted, origin: str) -> Own:
    """List the images, and look at the images that are new or have changed since this process looked last.

    Args:
        collect: a function from the root to a list of what is there.
        root: the folder or the file of the images.
        wanted: how the images are read.
        origin: see `Found.origin`.

    Raises:
        UserError: the images are not laid out as they must be, or something about them is broken.
    """
    found = replace(collect(root), origin=origin)
    return _look(_Once(found, (origin, str(root.absolute()), scan.fingerprint(found))), wanted)


class _Once:
    """A list of images as the key of a cache. Two lists of the same, unchanged files are equal."""

    def __init__(self, found: Found, key: tuple[object, ...]) -> None:
        self.found, self.key = found, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Once) and self.key == other.key


@functools.lru_cache(maxsize=2)
def _look(once: _Once, wanted: Wanted) -> Own:
    found = once.found
    with cache.alone(found.root):
        heads, broken = scan.heads(found)
        good = _good(found, broken, wanted.skip_broken)
        channels, size, why = _choose(heads[good], wanted)
        need = len(found.names) * channels * size * size
        in_memory = _in_memory(found, need, wanted.in_memory)
        views = scan.views(found, channels, size, in_memory)
    broken = {**views.broken, **broken}
    good = _good(found, broken, wanted.skip_broken)
    train, test = _split(found, views.digests, good)
    pictures = _pictures(views.digests, train)
    notes = [*found.notes, *why, *_leaks(found, views.digests, train, test)]
    if pictures is not None:
        copies = len(train) - len(np.unique(pictures[train]))
        notes.append(f"{copies:,} training images are copies of others: copies stay in one split, so that none leaks")
    notes.append(
        f"kept in memory: {need / 2**20:,.0f} MiB" if in_memory else f"streamed from files: {need / 2**20:,.0f} MiB"
    )
    if broken:
        notes.append(f"{len(broken):,} broken image{'s' if len(broken) > 1 else ''} left out, as data.on_broken says")
    if channels == 3 and wanted.channels is None and (views.sums[good] == views.sums[good][:, :, :1]).all():
        notes.append("all pictures are grey, though stored with colours: data.channels=1 takes a third of the memory")
    mean, std = statistics(views.sums[train], size * size)
    info = DataInfo(found.name, len(found.classes), channels, size, mean, std, found.classes)
    widths, heights = heads[good, 0], heads[good, 1]
    sizes = ((int(widths.min()), int(heights.min())), (int(widths.max()), int(heights.max())))
    return Own(found, info, train, test, views.pixels, pictures, tuple(notes), len(broken), sizes)


def _pictures(
    digests: np.ndarray[Any, np.dtype[np.uint8]], train: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Return `Own.pictures`: the numbers of the digests, if two training images have the same."""
    _, numbers = np.unique(digests, axis=0, return_inverse=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    return numbers if len(np.unique(numbers[train])) < len(train) else None


def _good(found: Found, broken: dict[int, str], skip: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the numbers of the images that can be used.

    Raises:
        UserError: an image is broken, and broken images may not be left out.
    """
    if broken and not skip:
        number, reason = min(broken.items())
        more = f", and {len(broken) - 1:,} more" if len(broken) > 1 else ""
        raise UserError(
            f"{str(found.root / found.names[number])!r} is broken ({reason}){more}: mend or remove broken images, "
            "or leave them out with --set data.on_broken=skip"
        )
    return np.setdiff1d(np.arange(len(found.names)), np.array(sorted(broken), np.int64))


def _choose(heads: np.ndarray[Any, np.dtype[np.int64]], wanted: Wanted) -> tuple[int, int, list[str]]:
    """Return the number of channels and the side that images are read with, and sentences that say why.

    Args:
        heads: width, height and colour (1 or 0) of each image, [number, 3].
        wanted: the settings. What they leave open is chosen here.

    Raises:
        UserError: every image is broken.
    """
    if not len(heads):
        raise UserError("every image is broken: nothing is left")
    why = []
    channels, size = wanted.channels, wanted.image_size
    if channels is None:
        colours = int(heads[:, 2].sum())
        channels = 3 if colours else 1
        reason = f"{colours:,} of {len(heads):,} images have colours" if colours else "all images are grey"
        why.append(f"data.channels {channels}: {reason}")
    if size is None:
        size, reason = choose_size(heads[:, :2])
        why.append(f"data.image_size {size}: {reason}")
    return channels, size, why


def choose_size(sizes: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[int, str]:
    """Choose a side in pixels for images of these widths and heights [number, 2], and say why.

    If all images are squares of one size, which can be halved twice, as a supernet halves it, and is 8 to `LARGEST`,
    they keep it. Else the side is the largest multiple of 32 (of 4 below 32) that exceeds neither the median of the
    shorter sides nor `LARGEST`, but at least 8.
    """
    first = int(sizes[0, 0])
    if (sizes == first).all() and first % 4 == 0 and 8 <= first <= LARGEST:
        return first, f"all images are {first} x {first}"
    median = int(np.median(sizes.min(1)))
    most = min(median, LARGEST)
    step = 32 if most >= 32 else 4
    size = max(8, most // step * step)
    return size, f"the median of the shorter sides is {median}, multiples of {step} up to {LARGEST} are chosen from"


def _in_memory(found: Found, need: int, wanted: bool | None) -> bool:
    """Whether the pixels are kept in memory.

    Args:
        found: the images.
        need: how many bytes the pixels of all images take.
        wanted: what `data.in_memory` says.

    Raises:
        UserError: the images should be streamed, by this setting or because they are too large, but cannot be.
    """
    if found.in_files:
        return need <= MEMORY_LIMIT if wanted is None else wanted
    if wanted is False or (wanted is None and need > MEMORY_LIMIT):
        raise UserError(
            f"{found.name} cannot be streamed, and its images take {need / 2**30:.2f} GiB in memory: set "
            f"data.in_memory=true{'' if wanted is False else ' or a smaller data.image_size'}, or write them to files "
            "for data.name=folder"
        )
    return True


def _split(
    found: Found, digests: np.ndarray[Any, np.dtype[np.uint8]], good: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the numbers of the training images and of the test images.

    If the images come without a test split, the fifth of each class's images with the smallest digests is the test
    split. This rule depends on no seed, no name and no order, and it keeps equal pictures of a class in one split.

    Raises:
        UserError: a class has too few images, or none in one of the splits.
    """
    labels = found.labels
    if found.test is None:
        test_rows = []
        for label, name in enumerate(found.classes):
            members = good[labels[good] == label]
            keys = [digests[number].tobytes() for number in members]
            distinct = sorted(set(keys))
            if len(distinct) < 2:
                raise UserError(
                    f"{found.name}: class {name!r} has {len(members)} image{'s' if len(members) != 1 else ''}"
                    f"{' that are all the same' if len(members) > 1 else ''}: it needs some for the training and some "
                    "for the test"
                )
            last = sorted(keys)[max(1, round(TEST_SHARE * len(keys))) - 1]
            if last == distinct[-1]:
                last = distinct[-2]
            test_rows += [number for number, key in zip(members, keys, strict=True) if key <= last]
        test = np.array(sorted(test_rows), np.int64)
        train = np.setdiff1d(good, test)
    else:
        test, train = good[found.test[good]], good[~found.test[good]]
    for split, rows in (("training", train), ("test", test)):
        for label, number in enumerate(counts(labels[rows], len(found.classes))):
            if not number:
                raise UserError(
                    f"{found.name}: class {found.classes[label]!r} has no {split} image that is not broken: a class "
                    "needs images in every split"
                )
    return train, test


def _leaks(
    found: Found,
    digests: np.ndarray[Any, np.dtype[np.uint8]],
    train: np.ndarray[Any, np.dtype[np.int64]],
    test: np.ndarray[Any, np.dtype[np.int64]],
) -> list[str]:
    """Return warnings about pictures that are in both splits, or in two classes, with the same pixels."""
    keys = [digests[number].tobytes() for number in range(len(digests))]
    learnt = {keys[number]: number for number in train}
    both = [number for number in test if keys[number] in learnt]
    notes = []
    if both:
        first, other = found.names[both[0]], found.names[learnt[keys[both[0]]]]
        notes.append(
            f"warning: {len(both):,} of {len(test):,} test images {'are' if len(both) > 1 else 'is'} among the "
            f"training images too, pixel by pixel ({first!r} is {other!r}): the test accuracy will flatter"
        )
    classes: dict[bytes, set[int]] = {}
    for number in (*train, *test):
        classes.setdefault(keys[number], set()).add(int(found.labels[number]))
    if several := sum(len(own) > 1 for own in classes.values()):
        notes.append(f"warning: {several:,} picture{'s are' if several > 1 else ' is'} of more than one class")
    return notes


def statistics(sums: np.ndarray[Any, np.dtype[np.int64]], area: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel, of pixels in 0..1.

    The sums are whole numbers, so the order in which they are added does not matter.

    Args:
        sums: the sum and the sum of squares of each image's pixels of 0..255, [number, 2, channels].
        area: how many pixels one channel of an image has.
    """
    number = len(sums) * area
    mean, std = [], []
    for channel in range(sums.shape[2]):
        total, squares = (sum(sums[:, moment, channel].tolist()) for moment in (0, 1))
        mean.append(total / (255 * number))
        # The variance times number^2 is a whole number; images of one grey level have none, and are divided by 1.
        variance = number * squares - total * total
        std.append(math.sqrt(variance) / (255 * number) if variance else 1.0)
    return tuple(mean), tuple(std)


def given(info: DataInfo, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> DataInfo:
    """Return the facts in which statistics that a user gives replace those of the images. None replaces nothing.

    Raises:
        UserError: the user does not give one number for each channel.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != info.channels:
            raise UserError(
                f"data.{name} has {len(values)} numbers: {info.name} has {info.channels} channels, one each"
            )
    return replace(info, mean=mean or info.mean, std=std or info.std)
