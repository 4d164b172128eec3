"""Decodes a picture of any kind to 8 bits, upright, grey or red-green-blue, and to the square that a network sees.

All code that decodes a user's own images does it here. So a network sees the same pixels whether a set is in memory or
streamed. Torch-free.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

Source = Path | bytes | np.ndarray[Any, np.dtype[np.uint8]]

#: Pillow's modes without colour; of the others some may be grey to the eye, and are read as colour.
_GREY = ("1", "L", "LA", "La", "F")

#: EXIF's tag of the orientation, and the values of it that swap width and height.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def opened(source: Source) -> Image.Image:
    """Open a picture as an image of Pillow, which is not decoded yet.

    Args:
        source: a file, the bytes of a file, or an array of pixels [height, width] or [height, width, 3].

    Raises:
        OSError: the source is no picture.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata
        return Image.open(source if isinstance(source, Path) else io.BytesIO(source))


def head(source: Source) -> tuple[int, int, int]:
    """Read the size of a picture, and whether it has colours, from the first bytes of its file.

    Returns:
        Width and height in pixels, after the picture is turned upright, and 1 if it has colours, else 0.

    Raises:
        OSError, ValueError: the source is no picture, or Pillow refuses it.
    """
    with opened(source) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        return width, height, int(not is_grey(image.mode))


def is_grey(mode: str) -> bool:
    """Whether a mode of Pillow, such as `L`, has no colour."""
    return mode in _GREY or mode.startswith("I")


def upright(source: Source) -> Image.Image:
    """Decode a picture to mode L or RGB, turned as its EXIF data say. Transparent pixels are laid over white.

    Grey pictures of 16 bits keep the upper 8 bits of each pixel.

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: the picture is broken or cut off, or its pixels
            cannot be brought into the range 0..255.
    """
    with opened(source) as image:
        image.load()
        turned = ImageOps.exif_transpose(image)
        grey = is_grey(turned.mode)
        if turned.mode == "F":
            raise ValueError("its pixels are floating-point numbers, which have no range")
        if turned.mode.startswith("I"):
            values = np.asarray(turned).astype(np.int64)
            if values.min() < 0 or values.max() > 0xFFFF:
                raise ValueError("its pixels are not numbers of 8 or 16 bits")
            return Image.fromarray((values >> 8).astype(np.uint8))
        if turned.has_transparency_data:
            above = turned.convert("RGBA")
            turned = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        return turned.convert("L" if grey else "RGB")


def view(image: Image.Image, channels: int, size: int) -> Image.Image:
    """Cut out the square in the middle and resize it to `size` pixels a side (bilinear, antialiased).

    A picture that has that size already is only converted.

    Args:
        image: the picture.
        channels: 1 converts it to grey, 3 to red, green and blue.
        size: the side of the result in pixels.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if width == height == size:
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the pixels of an image in mode L or RGB as uint8 [channels, height, width]."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def digest(image: Image.Image) -> bytes:
    """Return 16 bytes that tell pictures apart.

    They are equal for two pictures if and only if the pixels are equal, except for a chance of 2^-64.
    """
    size = f"{image.width}x{image.height}".encode()
    return hashlib.blake2b(size + image.convert("RGB").tobytes(), digest_size=16).digest()


def sums(array: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[list[int], list[int]]:
    """Return the sum and the sum of squares of each channel's pixels, in whole numbers.

    Args:
        array: uint8 [channels, height, width].
    """
    wide = array.reshape(len(array), -1).astype(np.int64)
    return wide.sum(1).tolist(), (wide * wide).sum(1).tolist()
