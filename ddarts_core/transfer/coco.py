"""Reads COCO's detection format: for each split one JSON file of images, categories and boxes, and a folder of images.

torchvision's `CocoDetection` reads an image and its annotations, with the index of faster-coco-eval. What would be a
KeyError there, or be lost without a message (the first of two images with one id), is checked before.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torchvision.datasets import CocoDetection, VisionDataset
from torchvision.transforms.v2.functional import pil_to_tensor

from ..ground.errors import UserError
from .examples import Example, ImageSet, Look, hash_of, opened, size_of

#: Pixels by which a box may exceed its image: annotations are rounded. What exceeds is cut off.
SLACK = 1.0


class CocoImages(ImageSet):
    """A split `NAME` in COCO's format: `ROOT/annotations/instances_NAME.json` and the images in `ROOT/NAME/`.

    The ids of categories may be any whole numbers (COCO's 80 ids lie in 1 to 90). Labels number the declared categories
    from 0, in the order of their ids. Polygons are not kept: the task has boxes alone, and they are most of the file.

    Args:
        root: the folder of the data set.
        name: the name of the split.

    Raises:
        UserError: the file is missing, has another format, gives one id twice, names an image or a category that it
            does not declare, or has a box outside its image. The message is one sentence that names the file.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        self.name = name
        self.source = Path(root) / "annotations" / f"instances_{name}.json"
        data = _read(self.source)
        categories, images = (_by_id(data[key], key, self.source) for key in ("categories", "images"))
        _by_id(data["annotations"], "annotations", self.source)
        self.classes = tuple(str(one.get("name", number)) for number, one in categories.items())
        self._labels = {number: label for label, number in enumerate(categories)}
        for number, one in images.items():
            if not isinstance(one.get("file_name"), str):
                raise UserError(f"{self.source}: image {number} has no file_name")
            for side in ("width", "height"):
                _integer(one, side, self.source)
        for one in data["annotations"]:
            one.pop("segmentation", None)
            number = _integer(one, "image_id", self.source)
            if number not in images:
                raise UserError(
                    f"{self.source}: annotation {one['id']} is of image {number}, which the file does not declare"
                )
            self._checked(one, images[number])
        self._files = _Files(Path(root) / name, data)
        self.paths = tuple(self._files.path(number) for number in self._files.ids)

    def _checked(self, one: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[int, list[float], float, bool]:
        """Check an annotation, and return its label, its box, its area and whether it is a crowd.

        The box is [x1, y1, x2, y2] in pixels, cut off at the border of the image.

        Args:
            one: the annotation, as the file has it.
            image: its image, as the file has it.
        """
        what = f"{self.source}: annotation {one['id']} of {image['file_name']}"
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
        """Compare the size of an image's file with the declared size, and count and hash the objects of the image."""
        image, objects = self._files.declared(index)
        declared, found = (image["width"], image["height"]), size_of(self.paths[index])
        if declared != found:
            raise UserError(
                f"{self.paths[index]} has {found[0]} x {found[1]} pixels and {self.source} declares {declared[0]} x "
                f"{declared[1]}: its boxes would be misplaced"
            )
        checked = [self._checked(one, image) for one in objects]
        crowds = [crowd for _, _, _, crowd in checked]
        flat = [x1 >= x2 or y1 >= y2 for _, (x1, y1, x2, y2), _, _ in checked]
        trained = sum(not (c or f) for c, f in zip(crowds, flat, strict=True))
        size, hashed = self.paths[index].stat().st_size, hash_of(repr(checked).encode())
        return Look(*found, objects=trained, crowds=sum(crowds), flat=sum(flat), size=size, hashed=hashed)

    def __getitem__(self, index: int) -> Example:
        """Read an image and its objects."""
        pixels, objects = self._files[index]
        image, _ = self._files.declared(index)
        found = [self._checked(one, image) for one in objects]
        return Example(
            self.paths[index],
            pil_to_tensor(pixels),
            torch.tensor([box for _, box, _, _ in found], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([label for label, _, _, _ in found], dtype=torch.int64),
            torch.tensor([area for _, _, area, _ in found], dtype=torch.float32),
            torch.tensor([crowd for _, _, _, crowd in found], dtype=torch.bool),
        )


class _Files(CocoDetection):  # type: ignore[misc]  # torchvision has no types
    """torchvision's reader of a file that was read already: its own constructor reads it again, with pycocotools.

    Args:
        root: the folder of the images.
        data: the content of the file, checked.
    """

    def __init__(self, root: Path, data: Mapping[str, Any]) -> None:
        from faster_coco_eval import COCO

        VisionDataset.__init__(self, root)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found annotation id 0")  # scores number the objects anew
            self.coco = COCO(data)
        self.ids = sorted(self.coco.imgs)

    def path(self, number: int) -> Path:
        """Return the file of the image with the id `number`."""
        return Path(self.root, str(self.coco.imgs[number]["file_name"]))

    def declared(self, index: int) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
        """Return what the file says about an image, and about its objects."""
        return self.coco.imgs[self.ids[index]], self._load_target(self.ids[index])

    def _load_image(self, id: int) -> Image:
        image: Image = opened(self.path(id), lambda image: image.convert("RGB"))
        return image


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


def _by_id(entries: list[dict[str, Any]], key: str, file: Path) -> dict[int, dict[str, Any]]:
    """Return entries by their ids, in the order of the ids."""
    found: dict[int, dict[str, Any]] = {}
    for one in entries:
        number = _integer(one, "id", file)
        if number in found:
            raise UserError(f"{file}: two {key} have the id {number}")
        found[number] = one
    return dict(sorted(found.items()))
