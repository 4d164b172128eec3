"""Reads Cityscapes' instance files: one picture of ids for each image (cityscapesScripts, "json2instanceImg").

An id of 1000 or more is 1000 times the class plus the number of the object. A smaller id is the class of a region that
was not split into objects. If that class has objects, the region is a crowd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.datasets import Cityscapes
from torchvision.ops import masks_to_boxes

from ..ground.errors import UserError
from .examples import Example, ImageSet, Look, hash_of, opened, read_image, size_of

IMAGE_END = "_leftImg8bit.png"
IDS_END = "_gtFine_instanceIds.png"

#: The classes that have objects and are scored, by id: person 24 to bus 28, train 31, motorcycle 32 and bicycle 33.
THINGS = {one.id: one.name for one in Cityscapes.classes if one.has_instances and not one.ignore_in_eval}

_DECLARED = {one.id for one in Cityscapes.classes}

#: Modes of Pillow for pictures whose numbers exceed 255.
_WIDE = ("I;16", "I;16B", "I")


class CityscapesImages(ImageSet):
    """A split `NAME` of Cityscapes.

    Images are ROOT/leftImg8bit/NAME/CITY/*_leftImg8bit.png, and their ids are
    ROOT/gtFine/NAME/CITY/*_gtFine_instanceIds.png.

    Args:
        root: the folder of the data set.
        name: the name of the split.

    Raises:
        UserError: there is no such split, or an image has no file of ids, or a file of ids has no image. The message is
            one sentence that names the file.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        self.name = name
        self.classes = tuple(THINGS[number] for number in sorted(THINGS))
        self._labels = {number: label for label, number in enumerate(sorted(THINGS))}
        images, self.source = Path(root) / "leftImg8bit" / name, Path(root) / "gtFine" / name
        for folder in (images, self.source):
            if not folder.is_dir():
                raise UserError(
                    f"{folder} is missing: Cityscapes' format has ROOT/leftImg8bit/SPLIT/CITY/ and ROOT/gtFine/SPLIT/"
                    "CITY/; name the folder with --data-root and splits with --set data.train and data.held_out"
                )
        found = {_stem(path, images, IMAGE_END): path for path in sorted(images.glob(f"*/*{IMAGE_END}"))}
        ids = {_stem(path, self.source, IDS_END): path for path in sorted(self.source.glob(f"*/*{IDS_END}"))}
        if not found:
            raise UserError(f"{images} has no images CITY/*{IMAGE_END}")
        for stem, path in found.items():
            if stem not in ids:
                raise UserError(f"{path} has no annotation: {self.source / (stem + IDS_END)} is missing")
        for stem, path in ids.items():
            if stem not in found:
                raise UserError(f"{path} is of no image: {images / (stem + IMAGE_END)} is missing")
        self.paths = tuple(found.values())
        self._ids = tuple(ids[stem] for stem in found)

    def _read_ids(self, index: int) -> NDArray[np.int32]:
        """Read the ids of an image, [height, width].

        Raises:
            UserError: the file is no picture of ids, or has another size than the image.
        """
        path = self._ids[index]

        def read(image: Image.Image) -> NDArray[np.int32]:
            if image.mode not in _WIDE:
                raise UserError(
                    f"{path} is a picture of kind {image.mode!r} and must have more than 8 bits in one channel: "
                    "objects have ids of 1000 and more (is it a file of labelIds or of colours?)"
                )
            return np.asarray(image).astype(np.int32)

        ids = opened(path, read)
        size = size_of(self.paths[index])
        if ids.shape[::-1] != size:
            raise UserError(f"{path} has {ids.shape[1]} x {ids.shape[0]} pixels and its image {size[0]} x {size[1]}")
        return ids

    def _objects(self, index: int, ids: NDArray[np.int32]) -> list[tuple[int, int, bool]]:
        """Return id, label and whether it is a crowd, for each object of a class that is scored.

        Raises:
            UserError: an id is of a class that Cityscapes does not have.
        """
        found = []
        for number in np.unique(ids).tolist():
            category = number // 1000 if number >= 1000 else number
            if category not in _DECLARED:
                raise UserError(f"{self._ids[index]} has the id {number}: class {category} is none of Cityscapes'")
            if category in self._labels:
                found.append((number, self._labels[category], number < 1000))
        return found

    def look(self, index: int) -> Look:
        """Read the ids of an image, compare their size with the image's, and count and hash the objects."""
        ids = self._read_ids(index)
        objects = self._objects(index, ids)
        crowds = [crowd for _, _, crowd in objects]
        scored = np.where(np.isin(ids, [number for number, _, _ in objects]), ids, 0)
        return Look(
            ids.shape[1],
            ids.shape[0],
            objects=crowds.count(False),
            crowds=crowds.count(True),
            flat=0,
            size=self.paths[index].stat().st_size,
            hashed=hash_of(scored.astype("<i4").tobytes()),
        )

    def __getitem__(self, index: int) -> Example:
        """Read an image and the masks of its objects. The boxes are made from the masks."""
        ids = self._read_ids(index)
        objects = self._objects(index, ids)
        picture = torch.from_numpy(ids)
        masks = torch.stack([picture == number for number, _, _ in objects]) if objects else _none(ids)
        return Example(
            self.paths[index],
            read_image(self.paths[index]),
            boxes_of(masks),
            torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
            masks.sum((1, 2)).float(),
            torch.tensor([crowd for _, _, crowd in objects], dtype=torch.bool),
            masks.to(torch.uint8),
        )


def boxes_of(masks: Tensor) -> Tensor:
    """Return the boxes [objects, 4] of masks [objects, height, width], none of which is empty.

    A box of torchvision's `masks_to_boxes` ends at the last pixel of the object, so that an object of one pixel has no
    width. A box here ends behind the last pixel.
    """
    boxes: Tensor = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return boxes


def _none(ids: NDArray[Any]) -> Tensor:
    return torch.zeros(0, *ids.shape, dtype=torch.bool)


def _stem(path: Path, folder: Path, end: str) -> str:
    return str(path.relative_to(folder)).removesuffix(end)
