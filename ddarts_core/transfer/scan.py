"""Both splits of a data set, looked through once before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..ground.errors import UserError
from .cityscapes import CityscapesImages
from .coco import CocoImages
from .examples import ImageSet, Look
from .settings import TransferConfig

Item = TypeVar("Item")

#: Passes items on while it shows how far they are: (items, number, label).
Watch = Callable[[Iterable[Item], int, str], Iterable[Item]]

#: Names of the splits unless others are set.
SPLITS = {"coco-detection": ("train2017", "val2017"), "cityscapes-instances": ("train", "val")}


@dataclass(frozen=True)
class Splits:
    """The images that train and those that score.

    Attributes:
        train: all images of the first split.
        used: those of them that train, by number.
        held_out: images that never train.
        looks: at the images of both splits.
    """

    train: ImageSet
    used: tuple[int, ...]
    held_out: ImageSet
    looks: tuple[tuple[Look, ...], tuple[Look, ...]]

    @property
    def sentences(self) -> list[str]:
        """What the scan found, one line per split."""
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
        return lines


def read_splits(config: TransferConfig, watch: Watch[Look]) -> Splits:
    """Open both splits and look at every image of them.

    Raises:
        UserError: one of them cannot be read, they have other classes, share an image, or no image trains; one
            sentence with the file.
    """
    names = SPLITS[config.task]
    data = config.data
    train_name, held_out_name = data.train or names[0], data.held_out or names[1]
    if train_name == held_out_name:
        raise UserError(f"data.train and data.held_out are both {train_name!r}: images that score must not train")
    kind: type[CocoImages] | type[CityscapesImages] = (
        CocoImages if config.task == "coco-detection" else CityscapesImages
    )
    root = Path(data.root).expanduser()
    train, held_out = kind(root, train_name), kind(root, held_out_name)
    if train.classes != held_out.classes:
        raise UserError(f"{held_out.source} declares other categories than {train.source}: both must have the same")
    both = {path.resolve() for path in train.paths} & {path.resolve() for path in held_out.paths}
    if both:
        raise UserError(f"{min(both)} is in both splits: images that score must not train")
    seen = []
    for images in (train, held_out):
        looks = (images.look(index) for index in range(len(images)))
        seen.append(tuple(watch(looks, len(images), f"looking at {images.name}")))
    training = config.training
    used = tuple(
        index
        for index, look in enumerate(seen[0])
        if min(look.width, look.height) >= training.smallest_image and (look.objects or not training.drop_empty)
    )
    if len(used) * training.repeat < training.batch_size:
        raise UserError(
            f"{train.source}: {len(used)} images can train, which is fewer than training.batch_size "
            f"{training.batch_size}: images without an object, or smaller than {training.smallest_image} pixels, cannot"
        )
    return Splits(train, used, held_out, (seen[0], seen[1]))
