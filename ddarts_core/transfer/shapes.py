"""Writes small sets of drawn shapes in the real formats, to try the tasks where the real sets are not there.

    python -m ddarts_core.transfer.shapes coco-detection data/shapes
    python -m ddarts_core.transfer.shapes cityscapes-instances data/street
    python -m ddarts_core.transfer.shapes classes data/classes

Circles, squares and triangles of any colour lie on noise. The first two sets also have what the real sets have and what
programs stumble over: images without objects, crowds, and ids with gaps. COCO's set has a box without width, and
Cityscapes' set has classes that are not scored. The third set is for classification: it has images of single shapes
(`data.name: folder`), for a search that is to be scored on one of the other sets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .settings import TASKS, Task

#: Ids of the three shapes: COCO's have gaps; Cityscapes' are person, car and bicycle.
COCO_IDS = (1, 7, 90)
CITYSCAPES_IDS = (24, 26, 33)
NAMES = ("circle", "square", "triangle")

#: Every so many images: one without objects, one with a crowd.
EMPTY_EVERY, CROWD_EVERY = 20, 10

#: Cityscapes' ids of sky and of a caravan, which has objects and is not scored.
SKY, CARAVAN = 23, 29


@dataclass(frozen=True)
class Shape:
    """One object.

    Attributes:
        kind: its shape, as a place in `NAMES`.
        crowd: whether it is a crowd.
        mask: the pixels of the object, bool [height, width] of the image.
    """

    kind: int
    crowd: bool
    mask: NDArray[np.bool_]

    @property
    def box(self) -> list[int]:
        """The box around the object's pixels: x, y, width, height."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def scene(seed: int, split: str, number: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[Shape]]:
    """Draw an image [height, width, 3] with shapes that do not overlap. It follows from seed, split and number.

    Args:
        seed: the seed of the set.
        split: the name of the split.
        number: the number of the image in the split.
        size: the width and the height of the image in pixels.
    """
    draws = np.random.default_rng([seed, *split.encode(), number])
    width, height = size
    image = draws.integers(60, 200, (1, 1, 3)) + draws.normal(0, 15, (height, width, 3))
    taken = np.zeros((height, width), dtype=bool)
    shapes: list[Shape] = []
    wanted = 0 if number % EMPTY_EVERY == EMPTY_EVERY - 1 else int(draws.integers(1, 5))
    for _ in range(4 * wanted):
        if len(shapes) == wanted:
            break
        kind, side = int(draws.integers(len(NAMES))), int(draws.integers(20, 57))
        left, top = int(draws.integers(0, width - side)), int(draws.integers(0, height - side))
        mask = _mask(kind, (left, top, left + side - 1, top + side - 1), size)
        if taken[top : top + side, left : left + side].any():
            continue
        taken |= mask
        image[mask] = draws.integers(0, 256, 3) + draws.normal(0, 8, (int(mask.sum()), 3))
        shapes.append(Shape(kind, number % CROWD_EVERY == 0 and not shapes, mask))
    return image.clip(0, 255).astype(np.uint8), shapes


def _mask(kind: int, corners: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.new("1", size)
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = corners
    if NAMES[kind] == "circle":
        pen.ellipse(corners, fill=1)
    elif NAMES[kind] == "square":
        pen.rectangle(corners, fill=1)
    else:
        pen.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=1)
    return np.array(picture)


def write_coco(root: Path, split: str, count: int, seed: int = 0) -> None:
    """Write a split of `count` images of 128 x 112 pixels in COCO's format."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(count):
        pixels, shapes = scene(seed, split, number, (128, 112))
        name, image_id = f"{number:012d}.jpg", 3 * number + 5
        Image.fromarray(pixels).save(folder / name, quality=95)
        images.append({"id": image_id, "file_name": name, "width": 128, "height": 112})
        for shape in shapes:
            one = {"image_id": image_id, "category_id": COCO_IDS[shape.kind], "bbox": shape.box}
            one |= {"area": int(shape.mask.sum()), "iscrowd": int(shape.crowd)}
            objects.append({"id": len(objects) + 1, **one})
        if number == 1:  # COCO has a few boxes without width
            flat = {"image_id": image_id, "category_id": COCO_IDS[0], "bbox": [9, 9, 0, 4], "area": 0, "iscrowd": 0}
            objects.append({"id": len(objects) + 1, **flat})
    categories = [{"id": number, "name": name} for number, name in zip(COCO_IDS, NAMES, strict=True)]
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "categories": categories, "annotations": objects}))


def write_cityscapes(root: Path, split: str, count: int, seed: int = 0) -> None:
    """Write a split of `count` images of 192 x 96 pixels, all of one city, in Cityscapes' format."""
    folders = [root / kind / split / "shapetown" for kind in ("leftImg8bit", "gtFine")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels, shapes = scene(seed, split, number, (192, 96))
        stem = f"shapetown_{number:06d}_000019"
        Image.fromarray(pixels).save(folders[0] / f"{stem}_leftImg8bit.png")
        ids = np.full(pixels.shape[:2], SKY, dtype=np.uint16)
        ids[-4:, :6] = 1000 * CARAVAN
        for place, shape in enumerate(shapes):
            category = CITYSCAPES_IDS[shape.kind]
            ids[shape.mask] = category if shape.crowd else 1000 * category + place
        Image.fromarray(ids).save(folders[1] / f"{stem}_gtFine_instanceIds.png")


def write_classes(root: Path, train: int, test: int, seed: int = 0) -> None:
    """Write a folder of images for each shape, below `train` and `test`.

    Each image has one shape, cut out of a scene with what lies around it.

    Args:
        root: the folder to write into.
        train: how many training images there are in all.
        test: how many test images there are in all.
        seed: the seed of the set.
    """
    for split, count in (("train", train), ("test", test)):
        found = dict.fromkeys(NAMES, 0)
        for number in range(4 * count + 40):
            pixels, shapes = scene(seed, f"classes {split}", number, (128, 112))
            for shape in shapes[:1]:
                name, (left, top, width, height) = NAMES[shape.kind], shape.box
                if found[name] == count // len(NAMES):
                    continue
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                box = (left - 4, top - 4, left + width + 4, top + height + 4)
                Image.fromarray(pixels).crop(box).resize((32, 32)).save(folder / f"{number:06d}.png")
                found[name] += 1


def write(task: Task, root: Path, train: int, held_out: int, seed: int = 0) -> None:
    """Write both splits of a task's set, under the names that the task has for them.

    Args:
        task: the task.
        root: the folder to write into.
        train: how many images train.
        held_out: how many images score.
        seed: the seed of the set.
    """
    if task == "coco-detection":
        write_coco(root, "train2017", train, seed)
        write_coco(root, "val2017", held_out, seed)
    else:
        write_cityscapes(root, "train", train, seed)
        write_cityscapes(root, "val", held_out, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the set that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write a small set of drawn shapes in a real format.")
    parser.add_argument("task", choices=(*TASKS, "classes"))
    parser.add_argument("root", type=Path, help="folder, which is made")
    parser.add_argument("--train", type=int, default=300, help="images that train (default: 300)")
    parser.add_argument("--held-out", type=int, default=60, help="images that score (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (default: 0)")
    given = parser.parse_args(arguments)
    if given.task == "classes":
        write_classes(given.root, given.train, given.held_out, given.seed)
    else:
        write(given.task, given.root, given.train, given.held_out, given.seed)
    print(f"wrote {given.root}: {given.train} images that train, {given.held_out} that score")


if __name__ == "__main__":
    main()
