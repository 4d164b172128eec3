"""torchvision's RetinaNet and Mask R-CNN on a backbone of ours, with the settings of mmdetection's recipes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from .backbone import Pyramid
from .settings import TransferConfig

RATIOS = (0.5, 1.0, 2.0)

#: Side of the square that Mask R-CNN's box head reads from the pyramid.
BOX_POOL = 7


def retinanet_anchors(scale: float) -> AnchorGenerator:
    """Three sizes an octave, scale * stride * 2^(k/3), at strides 8 to 128 (RetinaNet section 4)."""
    strides = (8, 16, 32, 64, 128)
    sizes = tuple(tuple(int(scale * stride * 2 ** (k / 3)) for k in range(3)) for stride in strides)
    return AnchorGenerator(sizes, (RATIOS,) * len(strides))


def proposal_anchors(scale: float) -> AnchorGenerator:
    """One size, scale * stride, at strides 4 to 64 (the feature pyramid's region proposals)."""
    sizes = tuple((int(scale * stride),) for stride in (4, 8, 16, 32, 64))
    return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def retinanet(
    backbone: Pyramid, num_classes: int, config: TransferConfig, mean: Sequence[float], std: Sequence[float]
) -> RetinaNet:
    """A RetinaNet whose labels 0 to num_classes - 1 index its logits."""
    training, testing = config.training, config.detections
    found = RetinaNet(
        backbone,
        num_classes,
        min_size=training.sides,
        max_size=training.longest_side,
        image_mean=[*mean],
        image_std=[*std],
        anchor_generator=retinanet_anchors(config.network.anchor_scale or 4),
        score_thresh=testing.score,
        nms_thresh=testing.overlap,
        detections_per_img=testing.number,
    )
    found.head.regression_head._loss_type = training.box_loss
    if config.network.head_init == "he":
        _initialise_by_he(found)
    return found


def _initialise_by_he(detector: RetinaNet) -> None:
    """Draw the heads' hidden convolutions so that each passes on as much as it gets (He et al. 2015).

    The published standard deviation of 0.01 is meant for 256 channels and long trainings: each of the four layers of
    32 channels would pass a sixth of its input on, and almost nothing would arrive.
    """
    for head in (detector.head.classification_head, detector.head.regression_head):
        for module in head.conv.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def mask_rcnn(
    backbone: Pyramid, num_classes: int, config: TransferConfig, mean: Sequence[float], std: Sequence[float]
) -> MaskRCNN:
    """A Mask R-CNN whose label 0 is the background: `num_classes` counts it."""
    training, testing, network = config.training, config.detections, config.network
    width, head = backbone.out_channels, network.head_width
    return MaskRCNN(
        backbone,
        min_size=training.sides,
        max_size=training.longest_side,
        image_mean=[*mean],
        image_std=[*std],
        rpn_anchor_generator=proposal_anchors(network.anchor_scale or 8),
        box_head=TwoMLPHead(width * BOX_POOL**2, head),
        box_predictor=FastRCNNPredictor(head, num_classes),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes),
        box_batch_size_per_image=training.boxes_per_image,
        box_score_thresh=testing.score,
        box_nms_thresh=testing.overlap,
        box_detections_per_img=testing.number,
    )


def num_parameters(module: nn.Module) -> int:
    """How many parameters there are, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())
