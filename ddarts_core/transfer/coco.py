"""Reads COCO's detection format: for each split one JSON file of images, categories and boxes, and a folder of images.

The file is read here and not by torchvision's `CocoDetection`. That class reads with pycocotools, which builds its
index before anything can be checked. So a missing id is a KeyError there, and if two images have the same id, the first
one is lost without a message. Every check below would still need the lists of the file itself, so this module would be
longer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..ground.errors import UserError
from .examples import Example, ImageSet, Look, read_image, size_of

#: Pixels by which a box may exceed its image: annotations are rounded. What exceeds is cut off.
SLACK = 1.0


class CocoImages(ImageSet):
    """A split `NAME` in COCO's format: `ROOT/annotations/instances_NAME.json` and the images in `ROOT/NAME/`.

    The ids of categories may be any whole numbers (COCO's 80 ids lie in 1 to 90). Labels number the declared categories
    from 0, in the order of their ids.

    Args:
        root: the folder of the data set.
        name: the name of the split.

    Raises:
        UserError: the file is missing, has another format, names an image or a category that it does not declare, or
            has a box outside its image. The message is one sentence that names the file.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        self.name = name
        self.source = Path(root) / "annotations" / f"instances_{name}.json"
        data = _read(self.source)
        categories = {_integer(one, "id", self.source): str(one.get("name", one["id"])) for one in data["categories"]}
        if len(categories) < len(data["categories"]):
            raise UserError(f"{self.source}: two categories have the same id")
        ids = sorted(categories)
        self.classes = tuple(categories[number] for number in ids)
        self._labels = {number: label for label, number in enumerate(ids)}
        images = {_integer(one, "id", self.source): one for one in data["images"]}
        if len(images) < len(data["images"]):
            raise UserError(f"{self.source}: two images have the same id")
        order = sorted(images)
        for number in order:
            if not isinstance(images[number].get("file_name"), str):
                raise UserError(f"{self.source}: image {number} has no file_name")
        self.paths = tuple(Path(root) / name / images[number]["file_name"] for number in order)
        self._sizes = [
            tuple(_integer(images[number], side, self.source) for side in ("width", "height")) for number in order
        ]
        objects: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for one in data["annotations"]:
            number = _integer(one, "image_id", self.source)
            if number not in images:
                raise UserError(
                    f"{self.source}: annotation {one.get('id')} is of image {number}, which the file does not declare"
                )
            objects[number].append(one)
        self._objects = [[self._checked(one, images[number]) for one in objects[number]] for number in order]

    def _checked(self, one: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[int, list[float], float, bool]:
        """Check an annotation, and return its label, its box, its area and whether it is a crowd.

        The box is [x1, y1, x2, y2] in pixels, cut off at the border of the image.

        Args:
            one: the annotation, as the file has it.
            image: its image, as the file has it.
        """
        what = f"{self.source}: annotation {one.get('id')} of {image['file_name']}"
        category = _integer(one, "category_id", self.source)
        if category not in self._labels:
            raise UserError(f"{what} has category {category}, which the file does not declare")
        try:
            x, y, width, height = (float(number) for number in one["bbox"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{what} has no bbox of four numbers [x, y, width, height]") from error
        inside = x >= -SLACK and y >= -SLACK and width >= 0 and height >= 0
        if not (inside and x + width <= image["width"] + SLACK and y + height <= image["height"] + SLACK):
            raise UserError(
                f"{what} has the box {[x, y, width, height]} outside its image of {image['width']} x {image['height']} "
                "pixels"
            )
        area = one.get("area", width * height)
        if isinstance(area, bool) or not isinstance(area, (int, float)):
            raise UserError(f"{what} has the area {area!r}, which is no number")
        right, lower = min(x + width, image["width"]), min(y + height, image["height"])
        return (
            self._labels[category],
            [max(x, 0.0), max(y, 0.0), right, lower],
            float(area),
            bool(one.get("iscrowd", 0)),
        )

    def look(self, index: int) -> Look:
        """Compare the size of an image's file with the declared size, and count the objects of the image."""
        declared, found = self._sizes[index], size_of(self.paths[index])
        if declared != found:
            raise UserError(
                f"{self.paths[index]} has {found[0]} x {found[1]} pixels and {self.source} declares {declared[0]} x "
                f"{declared[1]}: its boxes would be misplaced"
            )
        crowds = [crowd for _, _, _, crowd in self._objects[index]]
        flat = [x1 >= x2 or y1 >= y2 for _, (x1, y1, x2, y2), _, _ in self._objects[index]]
        objects = sum(not (c or f) for c, f in zip(crowds, flat, strict=True))
        return Look(*found, objects=objects, crowds=sum(crowds), flat=sum(flat))

    def __getitem__(self, index: int) -> Example:
        """Read an image. Its objects were read with the split's file."""
        found = self._objects[index]
        return Example(
            self.paths[index],
            read_image(self.paths[index]),
            torch.tensor([box for _, box, _, _ in found], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([label for label, _, _, _ in found], dtype=torch.int64),
            torch.tensor([area for _, _, area, _ in found], dtype=torch.float32),
            torch.tensor([crowd for _, _, _, crowd in found], dtype=torch.bool),
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{file} is missing: COCO's format has ROOT/annotations/instances_SPLIT.json, and images in ROOT/SPLIT/; "
            "name the folder with --data-root and splits with --set data.train and data.held_out"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON that can be read: {error}") from error
    for key in ("images", "categories", "annotations"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise UserError(f"{file} is not in COCO's format: it has no list {key!r} of objects")
    if not data["images"] or not data["categories"]:
        raise UserError(f"{file} declares no {'images' if data['categories'] else 'categories'}")
    return dict(data)


def _integer(one: Mapping[str, Any], key: str, file: Path) -> int:
    value = one.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{file}: {key} is {value!r} in {json.dumps(one)[:100]}, and must be a whole number")
    return value
