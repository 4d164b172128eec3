"""Draws on images what a detector finds: one PNG file with the true objects above and the answers below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from ..ground.files import write_with
from .evaluation import Answer

#: Least score of an answer that is drawn.
DRAWN = 0.5

#: Pixels of the longer side of an image in the picture.
SIDE = 320

#: Colours by label, told apart by people who do not see all of them (Okabe and Ito 2008), again from the first.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")


def draw(answers: Sequence[Answer], classes: Sequence[str], path: str | Path) -> None:
    """Write a PNG file with a column for each image: its true objects in the first row, and the answers in the second.

    Each answer is labelled with its class and its score in percent. Answers with a score below 0.5 are not drawn.

    Args:
        answers: the answers for some images.
        classes: the names of the classes in the order of the labels.
        path: the file to write.
    """
    truth = []
    found = []
    for answer in answers:
        example = answer.example
        names = [
            f"{classes[label]}{' (group)' if c else ''}"
            for label, c in zip(example.labels, example.crowds, strict=True)
        ]
        truth.append(_drawn(example.image, example.boxes, example.labels, names, example.masks))
        kept = answer.scores >= DRAWN
        names = [
            f"{classes[label]} {100 * score:.0f}"
            for label, score in zip(answer.labels[kept], answer.scores[kept], strict=True)
        ]
        masks = None if answer.masks is None else answer.masks[kept]
        found.append(_drawn(example.image, answer.boxes[kept], answer.labels[kept], names, masks))
    height, width = (max(image.shape[side] for image in truth) for side in (1, 2))
    cells = [_padded(image, height, width) for image in (*truth, *found)]
    picture = to_pil_image(make_grid(cells, nrow=len(truth), padding=4, pad_value=255))
    write_with(path, lambda name: picture.save(name, format="PNG"))


def _drawn(image: Tensor, boxes: Tensor, labels: Tensor, names: list[str], masks: Tensor | None) -> Tensor:
    """Return an image whose longer side is scaled to `SIDE`, with boxes, names and half-transparent masks."""
    colours = [COLOURS[label % len(COLOURS)] for label in labels.tolist()]
    scale = SIDE / max(image.shape[1:])
    size = (round(image.shape[2] * scale), round(image.shape[1] * scale))
    image = _resized(image, size, Image.Resampling.BILINEAR)
    if masks is not None and len(masks):
        scaled = torch.cat([_resized(mask[None].to(torch.uint8), size, Image.Resampling.NEAREST) for mask in masks])
        image = draw_segmentation_masks(image, scaled.bool(), alpha=0.5, colors=[*colours])
    shown = (boxes[:, 2:] > boxes[:, :2]).all(1).nonzero().flatten().tolist()
    if not shown:
        return image
    drawn: Tensor = draw_bounding_boxes(
        image, boxes[shown] * scale, [names[i] for i in shown], [colours[i] for i in shown], width=2
    )
    return drawn


def _resized(image: Tensor, size: tuple[int, int], resampling: Image.Resampling) -> Tensor:
    resized: Tensor = pil_to_tensor(to_pil_image(image).resize(size, resampling))
    return resized


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]), value=255)
