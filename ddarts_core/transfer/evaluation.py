"""Average precision of boxes and masks as COCO counts it, by torchmetrics with the backend faster-coco-eval.

Both packages are Apache-2.0, and neither needs a compiler or pycocotools. Their results are tested against pycocotools.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..ground.errors import UserError
from ..training.parallel import ALONE, Group
from .examples import Example

#: What is counted, by torchmetrics' name: over overlaps 0.5 to 0.95, at 0.5, at 0.75, and by the objects' areas: below
#: 32^2 pixels, between, and above 96^2.
SCORES = {
    "map": "ap",
    "map_50": "ap50",
    "map_75": "ap75",
    "map_small": "ap_small",
    "map_medium": "ap_medium",
    "map_large": "ap_large",
}

Kind = Literal["bbox", "segm"]

#: What each kind is called in a score.
NAMES: dict[Kind, str] = {"bbox": "box", "segm": "mask"}

#: Least overlaps of a right answer, and recalls at which precision is averaged, as pycocotools has them. torchmetrics'
#: own are rounded to float32: an overlap of exactly 0.6, or a recall of exactly 0.2, would be too small.
OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = tuple(np.linspace(0, 1, 101).tolist())


@dataclass(frozen=True)
class Answer:
    """What a detector finds in an image, beside what there is.

    Attributes:
        example: the image and its true objects.
        boxes: the boxes found, float32 [found, 4], as x1, y1, x2, y2 in pixels.
        labels: their labels, int64 [found], from 0.
        scores: their scores, float32 [found], the best first.
        masks: their masks, bool [found, height, width]; None if the task has no masks.
    """

    example: Example
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None


def require() -> None:
    """Refuse to begin if the packages that compute the scores are missing.

    Raises:
        UserError: a package is missing.
    """
    try:
        import faster_coco_eval  # noqa: F401  # only whether it is there
        import torchmetrics  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise UserError(
            f"scores of detectors need packages that are not here ({error}): pip install 'ddarts[transfer]'"
        ) from error


def average_precision(answers: Iterable[Answer], group: Group = ALONE) -> dict[str, float]:
    """Compute AP, AP50, AP75 and the AP of small, medium and large objects.

    Crowds count as COCO counts them. The size of an object is its own area, as annotated, and not the area of its box.
    At most 100 answers count for each image. A score for which there is no object, such as that of a size, is left out.

    Args:
        answers: the answers for all images; with a group, the answers for the images of this process.
        group: the processes, each of which has answers. Every process counts all of them, in the order of the ranks.

    Returns:
        The scores as fractions of 1 by name, for boxes (`box_ap`, ...) and, if the task has masks, for masks
        (`mask_ap`, ...).

    Raises:
        UserError: the packages are missing.
    """
    require()
    kinds: tuple[Kind, ...] = ("bbox",)
    counter: Any = None
    for answer in answers:
        if counter is None:
            kinds = ("bbox",) if answer.masks is None else ("bbox", "segm")
            counter = _counter(kinds)
        counter.update([_found(answer)], [_truth(answer.example)])
    if group.count > 1:
        kinds, counter = _gathered(kinds, counter, group)
    if counter is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an image with more than 100 answers is not a surprise
        counted = counter.compute()
    scores: dict[str, float] = {}
    for kind in kinds:
        prefix = "" if len(kinds) == 1 else f"{kind}_"
        found = {own: float(counted[prefix + name]) for name, own in SCORES.items()}
        scores |= {f"{NAMES[kind]}_{own}": value for own, value in found.items() if value >= 0}
    return scores


def _gathered(kinds: tuple[Kind, ...], counter: Any, group: Group) -> tuple[tuple[Kind, ...], Any]:
    """Return a counter that has the answers of all processes; None if no process has any answer."""
    own = None if counter is None else (kinds, counter.metric_state)
    known = [found for found in group.gathered(own) if found is not None]
    if not known:
        return kinds, None
    kinds = known[0][0]
    counter = _counter(kinds)
    for name in counter.metric_state:
        setattr(counter, name, [one for _, state in known for one in state[name]])
    counter._update_count = 1  # else torchmetrics warns that nothing was counted
    return kinds, counter


def _counter(kinds: tuple[Kind, ...]) -> Any:
    """Return one counter for all kinds: torchmetrics' counter for masks alone passes over images without objects.

    The counter does not talk to the other processes: torchmetrics would expect the same number of images in each.
    """
    from torchmetrics.detection import MeanAveragePrecision

    counter = MeanAveragePrecision(
        iou_type=kinds,
        iou_thresholds=[*OVERLAPS],
        rec_thresholds=[*RECALLS],
        backend="faster_coco_eval",
        sync_on_compute=False,
    )
    counter.warn_on_many_detections = False
    return counter


def _found(answer: Answer) -> dict[str, Tensor]:
    found = {"scores": answer.scores, "labels": answer.labels, "boxes": answer.boxes}
    return found if answer.masks is None else found | {"masks": _masks(answer.masks)}


def _truth(example: Example) -> dict[str, Tensor]:
    truth = {"labels": example.labels, "iscrowd": example.crowds.long(), "area": example.areas, "boxes": example.boxes}
    return truth if example.masks is None else truth | {"masks": _masks(example.masks)}


def _masks(masks: Tensor) -> Tensor:
    return masks.to(torch.bool)
