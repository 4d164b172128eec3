"""Reads both splits of a data set, and looks at every image once before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from ..ground.errors import UserError
from ..tensors.seeding import generator
from .cityscapes import CityscapesImages
from .coco import CocoImages
from .copies import copies
from .examples import Example, ImageSet, Look, hash_of
from .settings import TransferConfig

Item = TypeVar("Item")

#: Passes items on while it shows how far they are: (items, number, label).
Watch = Callable[[Iterable[Item], int, str], Iterable[Item]]

#: Names of the splits unless others are set.
SPLITS = {"coco-detection": ("train2017", "val2017"), "cityscapes-instances": ("train", "val")}


@dataclass(frozen=True)
class Splits:
    """The images that train and the images that score.

    Attributes:
        train: all images of the first split.
        used: the numbers of the images of `train` that are trained on.
        held_out: the images that score and never train.
        looks: what a look found at each image of `train` and at each image of `held_out`.
    """

    train: ImageSet
    used: tuple[int, ...]
    held_out: ImageSet
    looks: tuple[tuple[Look, ...], tuple[Look, ...]]

    @cached_property
    def listings(self) -> list[str]:
        """For the images of `train` and those of `held_out`, a hash of the classes, the files' names and the looks.

        Each is 16 hex digits of a SHA-256. Other images, or other objects in them, give another hash.
        """
        found = []
        for images, looks in zip((self.train, self.held_out), self.looks, strict=True):
            lines = (f"{path.name} {look}\n" for path, look in zip(images.paths, looks, strict=True))
            found.append(hash_of("".join([f"{images.classes}\n", *lines]).encode(errors="surrogateescape")))
        return found

    @property
    def sentences(self) -> list[str]:
        """Sentences on what was found: on each split, on images that are left out, and on copies in both splits."""
        lines = []
        for images, looks in zip((self.train, self.held_out), self.looks, strict=True):
            objects, crowds, flat = (sum(getattr(look, key) for look in looks) for key in ("objects", "crowds", "flat"))
            empty = sum(look.objects == 0 for look in looks)
            lines.append(
                f"{images.name}: {len(looks):,} images with {objects:,} objects of {len(images.classes)} classes; "
                f"{empty:,} images without any, {crowds:,} crowds, {flat:,} boxes without width or height"
            )
        left = len(self.train) - len(self.used)
        if left:
            lines.append(
                f"{self.train.name}: {left:,} images have nothing to train on, or are too small, and are left out"
            )
        train = [self.train.paths[number] for number in self.used]
        first = copies([*train, *self.held_out.paths], lambda group: group[0] < len(train) <= group[-1])[len(train) :]
        learnt = [(path, train[one]) for path, one in zip(self.held_out.paths, first, strict=True) if one < len(train)]
        if learnt:
            lines.append(
                f"warning: {len(learnt):,} of {len(first):,} images of {self.held_out.name} "
                f"{'are' if len(learnt) > 1 else 'is'} among those of {self.train.name} too, byte by byte "
                f"({learnt[0][0].name!r} is {learnt[0][1].name!r}): the scores will flatter"
            )
        return lines


def _pass_on(items: Iterable[Look], number: int, label: str) -> Iterable[Look]:
    return items


def read_splits(
    config: TransferConfig,
    watch: Watch[Look] = _pass_on,
    looks: tuple[tuple[Look, ...], tuple[Look, ...]] | None = None,
) -> Splits:
    """Open both splits and look at every image in them.

    Args:
        config: the settings of the training.
        watch: a function that passes the looks on, and shows how many are done.
        looks: what another process found. Then this process does not look at the images again.

    Raises:
        UserError: a split cannot be read, the splits have different classes or share an image, or fewer images than a
            batch can train. The message is one sentence that names the file.
    """
    names = SPLITS[config.task]
    data = config.data
    train_name, held_out_name = data.train or names[0], data.held_out or names[1]
    if train_name == held_out_name:
        raise UserError(f"data.train and data.held_out are both {train_name!r}: images that score must not train")
    kind = _kind(config)
    root = Path(data.root).expanduser()
    train, held_out = kind(root, train_name), kind(root, held_out_name)
    if train.classes != held_out.classes:
        raise UserError(f"{held_out.source} declares other categories than {train.source}: both must have the same")
    both = {path.resolve() for path in train.paths} & {path.resolve() for path in held_out.paths}
    if both:
        raise UserError(f"{min(both)} is in both splits: images that score must not train")
    if looks is None:
        seen = [watch(map(one.look, range(len(one))), len(one), f"looking at {one.name}") for one in (train, held_out)]
        looks = (tuple(seen[0]), tuple(seen[1]))
    return Splits(train, _used(config, train, looks[0]), held_out, looks)


def score_splits(config: TransferConfig, fraction: float) -> Splits:
    """Divide the images of the first split, by the seed, into images that train and images that only score.

    Copies of a file go where the first of them goes, so that none scores what another has trained. The second split,
    on which a training reports its scores in the end, is not even opened.

    Args:
        config: the settings of the training.
        fraction: the share of the images that scores.

    Raises:
        UserError: the split cannot be read, or too few images are left in either part. The message is one sentence that
            names the file.
    """
    whole = _kind(config)(Path(config.data.root).expanduser(), config.data.train or SPLITS[config.task][0])
    looks = [*map(whole.look, range(len(whole)))]
    order = torch.randperm(len(whole), generator=generator(config.seed, "transfer", "score")).tolist()
    drawn = {*order[: round(fraction * len(whole))]}
    scores = [first in drawn for first in copies(whole.paths)]
    if not any(scores):
        raise UserError(f"{whole.source}: of {len(whole)} images none scores: raise transfer.score_fraction")
    parts = []
    for name, scored in (("train", False), ("score", True)):
        numbers = [number for number, one in enumerate(scores) if one == scored]
        parts.append((Part(whole, numbers, name), tuple(looks[number] for number in numbers)))
    (train, seen), (held_out, seen_held_out) = parts
    return Splits(train, _used(config, train, seen), held_out, (seen, seen_held_out))


class Part(ImageSet):
    """A set of some images of a split.

    Args:
        whole: the split.
        numbers: the numbers of the images in the split.
        name: the name of this part.
    """

    def __init__(self, whole: ImageSet, numbers: Sequence[int], name: str) -> None:
        self._whole = whole
        self._numbers = tuple(numbers)
        self.name = f"{whole.name} ({name})"
        self.classes, self.source = whole.classes, whole.source
        self.paths = tuple(whole.paths[number] for number in numbers)

    def look(self, index: int) -> Look:
        """Look at an image, as the whole split does."""
        return self._whole.look(self._numbers[index])

    def __getitem__(self, index: int) -> Example:
        """Read an image and its objects, as the whole split does."""
        return self._whole[self._numbers[index]]


def _kind(config: TransferConfig) -> type[CocoImages] | type[CityscapesImages]:
    return CocoImages if config.task == "coco-detection" else CityscapesImages


def _used(config: TransferConfig, train: ImageSet, looks: Sequence[Look]) -> tuple[int, ...]:
    """Return the numbers of the images that train.

    Raises:
        UserError: there are fewer such images than a batch needs.
    """
    training = config.training
    used = tuple(
        index
        for index, look in enumerate(looks)
        if min(look.width, look.height) >= training.smallest_image and (look.objects or not training.drop_empty)
    )
    if len(used) * training.repeat < training.batch_size:
        raise UserError(
            f"{train.source}: {len(used)} images can train, which is fewer than training.batch_size "
            f"{training.batch_size}: images without an object, or smaller than {training.smallest_image} pixels, cannot"
        )
    return used
