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
    """Return RetinaNet's anchors: at each stride from 8 to 128 three sizes, scale * stride * 2^(k/3) for k = 0, 1, 2.

    Source: RetinaNet, section 4. A size is a side in pixels.
    """
    strides = (8, 16, 32, 64, 128)
    sizes = tuple(tuple(int(scale * stride * 2 ** (k / 3)) for k in range(3)) for stride in strides)
    return AnchorGenerator(sizes, (RATIOS,) * len(strides))


def proposal_anchors(scale: float) -> AnchorGenerator:
    """Return the anchors of region proposals on a feature pyramid: one size, scale * stride, at strides 4 to 64."""
    sizes = tuple((int(scale * stride),) for stride in (4, 8, 16, 32, 64))
    return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def retinanet(
    backbone: Pyramid, num_classes: int, config: TransferConfig, mean: Sequence[float], std: Sequence[float]
) -> RetinaNet:
    """Build a RetinaNet. Its labels are 0 to num_classes - 1, which are also the places of its logits.

    Args:
        backbone: the network with its pyramid.
        num_classes: how many classes there are, without a background.
        config: the settings of the training.
        mean: the mean of each channel by which images are normalised, of pixels in 0..1.
        std: the standard deviation of each channel.
    """
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
    """Draw the weights of the heads' hidden convolutions so that each passes on as much as it gets (He et al. 2015).

    The published standard deviation of 0.01 is meant for 256 channels and long trainings. With 32 channels, each of the
    four layers would pass on only a sixth of its input, and almost nothing would arrive at the end.
    """
    for head in (detector.head.classification_head, detector.head.regression_head):
        for module in head.conv.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def mask_rcnn(
    backbone: Pyramid, num_classes: int, config: TransferConfig, mean: Sequence[float], std: Sequence[float]
) -> MaskRCNN:
    """Build a Mask R-CNN. Its label 0 is the background.

    Args:
        backbone: the network with its pyramid.
        num_classes: how many classes there are, with the background.
        config: the settings of the training.
        mean: the mean of each channel by which images are normalised, of pixels in 0..1.
        std: the standard deviation of each channel.
    """
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
    """Count the parameters of a module, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())
