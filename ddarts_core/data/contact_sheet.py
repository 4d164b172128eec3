"""A picture of some training images as a search sees them: resized, cropped and augmented.

The name of its class stands below each image.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..ground.files import write_with
from ..ground.redact import one_line
from ..tensors.seeding import generator
from .augment import Augment
from .images import DataInfo, Images

COLUMNS, ROWS = 8, 6

#: Least side of an image in the picture, and height of the line below it, in pixels.
SIDE, LINE = 64, 14


def seen(images: Images, info: DataInfo, augment: Augment | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return some training images as the first batch of an epoch has them, and their labels.

    The normalisation is undone. A square that cutout set to the mean has the mean colour.

    Returns:
        Images uint8 [number, channels, height, width] and labels int64 [number], at most `COLUMNS` * `ROWS` of them.
    """
    number = min(COLUMNS * ROWS, len(images))
    draws = generator(seed, "contact sheet")
    x, labels = next(iter(images.batches(number, info=info, generator=draws, augment=augment)))
    mean, std = (torch.tensor(values)[:, None, None] for values in (info.mean, info.std))
    return (x * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8), labels


def write_contact_sheet(path: Path, images: Tensor, labels: Tensor, info: DataInfo) -> None:
    """Write images with the names of their classes as a PNG file. Small images are enlarged by a whole factor.

    Args:
        path: the file to write.
        images: uint8 [number, channels, height, width].
        labels: int64 [number].
        info: the facts of the data set, with the names of the classes.
    """
    factor = max(1, -(-SIDE // info.image_size))
    side = factor * info.image_size
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (side + 4), rows * (side + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        array = image[0].numpy() if info.channels == 1 else image.permute(1, 2, 0).contiguous().numpy()
        left, top = place % COLUMNS * (side + 4), place // COLUMNS * (side + LINE)
        picture = Image.fromarray(array).convert("RGB")
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, top))
        name = one_line(info.classes[label])
        while draw.textlength(name) > side and len(name) > 1:
            name = name[:-1]
        draw.text((left, top + side), name, fill="black")
    write_with(path, lambda name: sheet.save(name, "PNG"))
