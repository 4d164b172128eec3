"""How a picture becomes what a network takes, as in the network's evaluation: in words and as code. Torch-free.

An export has the words as the file `preprocessing.json`, and an ONNX model has them in its metadata. The normalisation
is inside the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..datasets.decode import opened, pixels, upright, view
from ..datasets.facts import DataInfo
from ..ground.errors import UserError

#: Name of the file in an export, and key in the metadata of an ONNX model.
FILE = "preprocessing.json"
KEY = "ddarts.preprocessing"

#: Version of the file.
SCHEMA = 1

#: Of ImageNet the shorter side is resized to so many sizes, and the square in the middle is kept (256 to 224).
MARGIN = 256 / 224

Array = np.ndarray[Any, np.dtype[Any]]

_RULES = {
    1.0: (
        "turned as EXIF says; transparent pixels over white; grey of 16 bits without its lower 8; then to mode",
        "the largest square in the middle, resized to image_size by bilinear interpolation with antialiasing",
    ),
    MARGIN: (
        "to mode, as Pillow's convert does it",
        "the shorter side resized to shorter_side by bilinear interpolation with antialiasing, then the square of "
        "image_size in the middle",
    ),
}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes float32 [channels, image_size, image_size] of 0..1, and what the outputs are called.

    Attributes:
        channels: 1 for grey, 3 for red, green and blue.
        image_size: the height and the width in pixels.
        margin: the shorter side to which a picture is resized before the square in the middle is cut out, divided by
            `image_size`. With 1 the largest square in the middle is kept whole.
        classes: the names of the classes in the order of the outputs.

    Example:
        >>> setup = Preprocessing(1, 8, 1.0, ("cat", "dog"))
        >>> setup.of_picture(Image.new("RGB", (20, 10))).shape
        (1, 8, 8)
    """

    channels: int
    image_size: int
    margin: float
    classes: tuple[str, ...]

    @classmethod
    def of(cls, info: DataInfo) -> Preprocessing:
        """Return the preparation with which networks of this data set are evaluated."""
        margin = MARGIN if info.name == "imagenet" else 1.0
        return cls(info.channels, info.image_size, margin, info.classes)

    @property
    def shorter_side(self) -> int:
        """How many pixels the shorter side is resized to before the square is cut out."""
        return round(self.image_size * self.margin)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the rules in words."""
        return {
            "schema": SCHEMA,
            "classes": list(self.classes),
            "mode": "L" if self.channels == 1 else "RGB",
            "channels": self.channels,
            "image_size": self.image_size,
            "shorter_side": self.shorter_side,
            "margin": self.margin,
            "steps": [
                *_RULES[self.margin],
                "pixels / 255, float32 [batch, channels, image_size, image_size]; the model normalises by itself",
            ],
        }

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Preprocessing:
        """Make the preparation from what `to_dict` gave.

        Args:
            data: the plain data.
            where: the name of the file that has them, for messages.

        Raises:
            UserError: the data are of another version, or describe no preparation.
        """
        try:
            if data["schema"] != SCHEMA:
                raise ValueError(f"version {data['schema']}, this one reads {SCHEMA}")
            margin = next(known for known in _RULES if abs(known - data["margin"]) < 1e-9)
            return cls(int(data["channels"]), int(data["image_size"]), margin, tuple(map(str, data["classes"])))
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise UserError(f"{where} does not say how pictures are prepared: {error}") from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: channels, height, width."""
        return (self.channels, self.image_size, self.image_size)

    # --- one picture ------------------------------------------------------------------------------------------------

    def of_picture(self, image: Image.Image) -> Array:
        """Prepare a picture in mode L or RGB, and return uint8 [channels, image_size, image_size]."""
        if self.margin == 1:
            return pixels(view(image, self.channels, self.image_size))
        image = image.convert("L" if self.channels == 1 else "RGB")
        width, height = image.size
        short, long = self.shorter_side, int(self.shorter_side * max(width, height) / min(width, height))
        image = image.resize((short, long) if width <= height else (long, short), Image.Resampling.BILINEAR)
        left, top = (round((side - self.image_size) / 2) for side in image.size)
        return pixels(image.crop((left, top, left + self.image_size, top + self.image_size)))

    def of_file(self, source: Path | bytes) -> Array:
        """Prepare the picture in a file, or in the bytes of a file: uint8 [channels, image_size, image_size].

        Raises:
            UserError: the file is no picture, or a broken one. The message names the file.
        """
        try:
            if self.margin == 1:
                return self.of_picture(upright(source))
            with opened(source) as image:  # as torchvision reads ImageNet: not turned
                return self.of_picture(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            what = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
            reason = str(error).split(" file ")[0] if isinstance(error, UnidentifiedImageError) else str(error)
            raise UserError(f"{what}: no picture that can be read ({reason})") from error

    def of_array(self, array: Array) -> Array:
        """Prepare an array of images, or of one image.

        Args:
            array: [height, width], with or without an axis of channels before or behind it, and with or without an axis
                of the batch at the beginning. Whole numbers are pixels of 0..255, and floating-point numbers are pixels
                of 0..1. Whole numbers of another size are prepared like pictures.

        Returns:
            float32 [batch, channels, image_size, image_size] of 0..1.

        Raises:
            UserError: the array has another shape, kind or range of numbers.
        """
        array = _pixels(array)
        images = self._batch(array)
        if images.shape[1:] == self.shape:
            return scaled(images)
        if images.dtype != np.uint8:
            raise UserError(
                f"images of shape {list(array.shape)}: floating-point images must be "
                f"[batch, {', '.join(map(str, self.shape))}]; those of 0..255 (astype('uint8')) may be of any size"
            )
        found = [
            self.of_picture(Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0))) for one in images
        ]
        return scaled(np.stack(found))

    def _batch(self, array: Array) -> Array:
        """Bring an array into the shape [batch, channels, height, width], with 1 or 3 channels.

        Raises:
            UserError: the array has another shape.
        """
        wanted = f"images of shape {list(array.shape)}: the model takes [batch, {', '.join(map(str, self.shape))}]"
        if array.ndim == 2:
            array = array[None, None]
        elif array.ndim == 3:
            channels = array.shape[0] in (1, 3) or array.shape[-1] in (1, 3)
            array = array[None] if channels else array[:, None]
        if array.ndim != 4:
            raise UserError(wanted)
        if array.shape[1] not in (1, 3):
            if array.shape[-1] not in (1, 3):
                raise UserError(wanted)
            array = np.moveaxis(array, -1, 1)
        if array.shape[1] != self.channels and array.dtype != np.uint8:
            raise UserError(wanted)
        if array.shape[1] != self.channels and array.shape[2:] == self.shape[1:]:
            array = np.repeat(array, 3, 1) if self.channels == 3 else _grey(array)
        return np.ascontiguousarray(array)


def _pixels(array: Array) -> Array:
    """Return an array of pixels as uint8 of 0..255, or unchanged if it has floating-point numbers of 0..1.

    Raises:
        UserError: the numbers lie in another range, or the array holds no numbers.
    """
    if array.dtype.kind == "b":
        return np.multiply(array, 255, dtype=np.uint8)
    if array.dtype.kind not in "iuf":
        raise UserError(f"the array holds {array.dtype}: images must be arrays of numbers")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.dtype.kind == "f":
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise UserError(
                f"pixels of {low:g} to {high:g}: floating-point numbers must be of 0..1, and those of 0..255 whole "
                "numbers (astype('uint8'))"
            )
        return array
    if not (low >= 0 and high <= 255):
        raise UserError(f"the pixels range from {low} to {high}: as whole numbers they must lie in 0..255")
    return array.astype(np.uint8)


def _grey(images: Array) -> Array:
    """Turn red-green-blue pixels into grey ones [batch, 1, height, width], by Pillow's rule."""
    pictures = (Image.fromarray(one.transpose(1, 2, 0)).convert("L") for one in images)
    return np.stack([np.asarray(picture)[None] for picture in pictures])


def scaled(images: Array) -> Array:
    """Return pixels as float32 numbers from 0 to 1. Only uint8 pixels are divided by 255."""
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, setup: Preprocessing) -> None:
    """Write a preparation as the file `preprocessing.json`."""
    from ..ground.files import write_atomic

    write_atomic(path, json.dumps(setup.to_dict(), indent=1, ensure_ascii=False) + "\n")


#: Files and folders that no one means by a folder of pictures.
_FOREIGN = ("thumbs.db", "desktop.ini", "__macosx")


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files that are named, and the files below the folders that are named, in the order of their names.

    Within folders, hidden files and files that operating systems put there are left out.

    Raises:
        UserError: there is no such file or folder, or a folder holds no files.
    """
    for path in paths:
        if path.is_dir():
            below = (file for file in sorted(path.rglob("*")) if file.is_file())
            parts = ((file, file.relative_to(path).parts) for file in below)
            found = [
                file
                for file, names in parts
                if not any(name.startswith(".") or name.lower() in _FOREIGN for name in names)
            ]
            if not found:
                raise UserError(f"the folder {path} holds no files")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise UserError(f"there is no file or folder {path}")
