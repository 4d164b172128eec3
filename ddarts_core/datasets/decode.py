"""A picture of any kind to 8 bits, upright, grey or red-green-blue, and to the square that a network sees. Torch-free.

Whoever decodes images of one's own does it here, so that a set in memory and the same set streamed show a network the
same pixels.
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
    """Pillow's image of a file, of its bytes, or of an array [height, width] or [height, width, 3]; not yet decoded.

    Raises:
        OSError: it is no picture.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata
        return Image.open(source if isinstance(source, Path) else io.BytesIO(source))


def head(source: Source) -> tuple[int, int, int]:
    """Width and height in pixels, as it hangs upright, and whether it has colours (1, else 0), from its first bytes.

    Raises:
        OSError, ValueError: it is no picture, or one that Pillow refuses.
    """
    with opened(source) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        return width, height, int(not is_grey(image.mode))


def is_grey(mode: str) -> bool:
    """Whether a mode of Pillow has no colour."""
    return mode in _GREY or mode.startswith("I")


def upright(source: Source) -> Image.Image:
    """A picture in mode L or RGB, turned as its EXIF data say, over white where it is transparent.

    Grey pictures of 16 bits keep the upper 8 of each pixel.

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: it is broken, cut off, or of pixels that have no
            range of 0..255.
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
    """The square in the middle, resized to `size` pixels (bilinear, antialiased); as it is if it has that size."""
    image = image.convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if width == height == size:
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [channels, height, width] of an image in mode L or RGB."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def digest(image: Image.Image) -> bytes:
    """16 bytes that are the same for two pictures if and only if (but for a chance of 2^-64) their pixels are."""
    size = f"{image.width}x{image.height}".encode()
    return hashlib.blake2b(size + image.convert("RGB").tobytes(), digest_size=16).digest()


def sums(array: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[list[int], list[int]]:
    """Sum and sum of squares of each channel's pixels, in whole numbers."""
    wide = array.reshape(len(array), -1).astype(np.int64)
    return wide.sum(1).tolist(), (wide * wide).sum(1).tolist()
