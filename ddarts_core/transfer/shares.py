"""Lets several processes compute a detector's batches together, so that each batch trains as it would in one process.

In torchvision's detectors four things depend on a whole batch: the size to which its images are padded, the order in
which scales and proposals are drawn, the number of proposals over which a loss is a mean, and batch normalisation.
`Group.distribute` takes care of batch normalisation, and this module of the other three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.poolers import initLevelMapper

from ..training.parallel import Group
from .taps import PYRAMID


class Shares:
    """The part of each batch that this process computes.

    Building this object replaces those modules of the detector that must know about the other processes.

    Args:
        detector: torchvision's RetinaNet or Mask R-CNN. It is changed.
        group: the processes.
        batch_size: how many images a whole batch has.
    """

    def __init__(self, detector: nn.Module, group: Group, batch_size: int) -> None:
        mine = group.share.of(batch_size)
        self._images = (mine.stop - mine.start) / batch_size
        self._samplers: tuple[SharedSampler, SharedSampler] | None = None
        if group.count == 1:
            return
        detector.transform = SharedTransform(detector.transform, group, batch_size)
        if isinstance(detector, MaskRCNN):
            anchors, proposals = (SharedSampler(one.fg_bg_sampler, group) for one in (detector.rpn, detector.roi_heads))
            detector.rpn.fg_bg_sampler, detector.roi_heads.fg_bg_sampler = anchors, proposals
            self._samplers = anchors, proposals
            for pool in (detector.roi_heads.box_roi_pool, detector.roi_heads.mask_roi_pool):
                _scale(pool)

    def of_batch(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the part that this process has of the whole batch's losses, by name.

        RetinaNet's losses are means over images. Mask R-CNN's losses are means over the anchors or proposals that were
        drawn, and its loss of masks is a mean over the drawn proposals that lie on an object.

        Args:
            losses: the losses by name, as means over this process's images, anchors or proposals.
        """
        if self._images == 1:
            return losses
        if self._samplers is None:
            return {name: self._images * loss for name, loss in losses.items()}
        anchors, proposals = self._samplers
        parts = {
            "loss_objectness": anchors.drawn,
            "loss_rpn_box_reg": anchors.drawn,
            "loss_classifier": proposals.drawn,
            "loss_box_reg": proposals.drawn,
            "loss_mask": proposals.positive,
        }
        return {name: parts[name] * loss for name, loss in losses.items()}


class SharedTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Scales each image to the size that is drawn for it in the whole batch, and pads it to the batch's largest image.

    Args:
        like: the transform of a detector in one process, whose settings are taken over.
        group: the processes.
        batch_size: how many images a whole batch has.
    """

    def __init__(self, like: GeneralizedRCNNTransform, group: Group, batch_size: int) -> None:
        super().__init__(like.min_size, like.max_size, like.image_mean, like.image_std, like.size_divisible)
        self.group = group
        self.batch_size = batch_size

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        """Transform as torchvision does. In training, the random draws for other processes' images are skipped."""
        mine = self.group.share.of(self.batch_size) if self.training else slice(0, self.batch_size)
        self._pass_over(mine.start)
        found: tuple[ImageList, list[dict[str, Tensor]] | None] = super().forward(images, targets)
        self._pass_over(self.batch_size - mine.stop)
        return found

    def _pass_over(self, number: int) -> None:
        for _ in range(number):
            self.torch_choice(self.min_size)

    def max_by_axis(self, the_list: list[list[int]]) -> list[int]:
        """Return the largest channels, height and width, in training over the images of all processes."""
        largest: list[int] = super().max_by_axis(the_list)
        if self.training:
            largest = super().max_by_axis(self.group.gathered(largest))
        return largest


class SharedSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]  # torchvision has no types
    """Draws for each image the same anchors or proposals that would be drawn for it in one process.

    Args:
        like: the sampler of a detector in one process, whose settings are taken over.
        group: the processes.

    Attributes:
        drawn: of all anchors or proposals that were drawn last for the whole batch, the share that lies in this
            process's images.
        positive: the same share, of only those that lie on an object; 0 if none does.
    """

    def __init__(self, like: BalancedPositiveNegativeSampler, group: Group) -> None:
        super().__init__(like.batch_size_per_image, like.positive_fraction)
        self.group = group
        self.drawn = self.positive = 0.0

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Draw as torchvision does, by permutations. Those for the other processes' images are drawn and skipped."""
        own = [(int((one >= 1).sum()), int((one == 0).sum())) for one in matched_idxs]
        by_rank = self.group.gathered(own)
        device = matched_idxs[0].device
        _pass_over(by_rank[: self.group.rank], device)
        found: tuple[list[Tensor], list[Tensor]] = super().__call__(matched_idxs)
        _pass_over(by_rank[self.group.rank + 1 :], device)
        kept = [[self._kept(*counts) for counts in images] for images in by_rank]
        positive, negative = ([sum(one[kind] for one in images) for images in kept] for kind in (0, 1))
        rank = self.group.rank
        self.drawn = (positive[rank] + negative[rank]) / max(1, sum(positive) + sum(negative))
        self.positive = positive[rank] / max(1, sum(positive))
        return found

    def _kept(self, positive: int, negative: int) -> tuple[int, int]:
        """Return how many anchors or proposals of an image are drawn: those on objects, and the others.

        Args:
            positive: how many of the image lie on an object.
            negative: how many of the image lie on no object.
        """
        on_objects = min(positive, int(self.batch_size_per_image * self.positive_fraction))
        return on_objects, min(negative, self.batch_size_per_image - on_objects)


def _pass_over(images: Sequence[Sequence[tuple[int, int]]], device: torch.device) -> None:
    for counts in images:
        for positive, negative in counts:
            torch.randperm(positive, device=device)
            torch.randperm(negative, device=device)


def _scale(pool: Any) -> None:
    """Tell a pool the strides of the pyramid.

    torchvision would guess them from the first batch, as if its images were not padded.
    """
    pool.scales = [1 / stride for stride in PYRAMID]
    finest, coarsest = (stride.bit_length() - 1 for stride in (PYRAMID[0], PYRAMID[-1]))
    pool.map_levels = initLevelMapper(
        finest, coarsest, canonical_scale=pool.canonical_scale, canonical_level=pool.canonical_level
    )
