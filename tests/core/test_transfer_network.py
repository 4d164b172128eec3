"""A derived network as a backbone: where it is read, how many parameters its detectors have, what is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.misc import FrozenBatchNorm2d

from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.network import Network
from ddarts_core.transfer.backbone import FeatureMaps, Pyramid
from ddarts_core.transfer.detectors import mask_rcnn, num_parameters, retinanet
from ddarts_core.transfer.model import MEAN, STD, body_of, build_detector
from ddarts_core.transfer.settings import resolve
from ddarts_core.transfer.taps import taps

RESNET50 = (256, 512, 1024, 2048)
COCO = resolve({})
CITYSCAPES = resolve({"task": "cityscapes-instances"})


def test_torchvisions_own_counts_of_resnet50() -> None:
    """Its frozen batch normalisation has no parameters; COCO has 91 classes there."""
    with torch.device("meta"):
        layers = {f"layer{stage + 1}": str(stage) for stage in range(4)}
        body = IntermediateLayerGetter(resnet50(norm_layer=FrozenBatchNorm2d), layers)
        box = retinanet(Pyramid(body, RESNET50, 256, "p5", 1), 91, COCO, MEAN, STD)
        mask = mask_rcnn(Pyramid(body, RESNET50, 256, "pool"), 91, CITYSCAPES, MEAN, STD)
    assert num_parameters(box) == 34_014_999
    assert num_parameters(mask) == 44_401_393


@pytest.mark.parametrize(
    ("widths", "count"),
    [(RESNET50, 10_560_087), ((64, 128, 256, 512), 9_871_959), ((48, 192, 384, 768), 9_986_647)],
)
def test_counts_of_retinanet_without_its_backbone(widths: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        assert num_parameters(retinanet(Pyramid(nn.Identity(), widths, 256, "p5", 1), 91, COCO, MEAN, STD)) == count


def test_counts_of_the_papers_backbone() -> None:
    """DO-2-ResNet18 with 64 channels has 51,335,072 parameters without its classifier."""
    genotype = ZOO["DO_2_ResNet18"].genotype
    free = ["network.frozen_stages=0", "network.frozen_statistics=false", "network.channels=64", "network.p6=p5"]
    with torch.device("meta"):
        box = build_detector(resolve({}, free), genotype, 91)
        mask = build_detector(resolve({"task": "cityscapes-instances"}, free), genotype, 8)
    assert num_parameters(body_of(box)) == 51_335_072
    assert num_parameters(box) == 61_895_159
    assert num_parameters(mask) == 71_840_229


def test_p6_is_made_from_what_is_asked_for() -> None:
    """torchvision's takes P5 where C5 is as wide as the pyramid, whatever is asked."""
    widths = (32, 64, 128, 256)
    body = nn.Identity()
    maps = {str(place): torch.full((1, width, 4, 4), float(place)) for place, width in enumerate(widths)}
    for top, same in (("c5", True), ("p5", False)):
        pyramid = Pyramid(body, widths, 256, top, 1)
        found = pyramid(maps)
        assert torch.equal(found["p6"], pyramid.fpn.extra_blocks.p6(maps["3"])) is same


@pytest.mark.parametrize(
    ("name", "form", "cells", "names"),
    [
        ("DARTS_V2", "imagenet", 14, ["stem0", "cell 3", "cell 8", "cell 13"]),
        ("ResNet18", "imagenet-published", None, ["cell 0", "cell 1", "cell 2", "cell 3"]),
    ],
)
def test_where_a_network_is_read(name: str, form: str, cells: int | None, names: list[str]) -> None:
    """The maps have the strides, and the last one is what the classifier reads."""
    network = Network(ZOO[name].genotype, 4, 5, form=form, num_cells=cells).eval()
    body = FeatureMaps(network, form).eval()
    assert [tap.name for tap in body.taps] == names
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = body(images)
        assert [tuple(x.shape[1:]) for x in maps.values()] == [
            (tap.channels, 64 // stride, 96 // stride) for tap, stride in zip(body.taps, (4, 8, 16, 32), strict=True)
        ]
        assert torch.equal(network.classifier(network.pool(maps["3"]).flatten(1)), network(images))


def test_channels_of_darts_network() -> None:
    genotype = Network(ZOO["DARTS_V2"].genotype, 4, 5, form="imagenet").genotype
    assert [tap.channels for tap in taps(genotype, 48, "imagenet")] == [48, 192, 384, 768]


def test_a_network_for_small_images_is_refused() -> None:
    with pytest.raises(UserError, match="this network of form cifar with 2 reductions has 1, 2, 4"):
        taps(Network(ZOO["DARTS_V2"].genotype, 4, 5, num_cells=6).genotype, 4, "cifar")


@pytest.mark.parametrize(("stages", "statistics"), [(0, True), (1, False), (3, False)])
def test_what_is_frozen_stays(stages: int, statistics: bool) -> None:
    """Up to the map of a stage nothing moves; with frozen statistics all weights but no statistics do."""
    network = Network(ZOO["ResNet18"].genotype, 4, 5, form="imagenet-published")
    body = FeatureMaps(network, "imagenet-published", frozen_stages=stages, frozen_statistics=statistics).train()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    maps = body(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    sum(x.square().mean() for x in maps.values()).backward()
    torch.optim.SGD([one for one in body.parameters() if one.requires_grad], lr=1.0).step()
    moved = {name for name, value in body.state_dict().items() if not torch.equal(value, before[name])}
    frozen = ("stem", *(f"cells.{cell}." for cell in range(stages))) if stages else ()
    assert moved and not [name for name in moved if name.startswith(frozen or "none")]
    assert any("running_" in name for name in moved) is not statistics
    assert any(name.startswith(f"cells.{stages}.") for name in moved)


def test_frozen_statistics_need_weights() -> None:
    with pytest.raises(UserError, match="freezes statistics or stages of trained weights, and there are none"):
        build_detector(COCO, ZOO["ResNet18"].genotype, 3)


def test_weights_are_taken_over() -> None:
    genotype = ZOO["ResNet18"].genotype
    trained = Network(genotype, 16, 10, form="imagenet")
    found = build_detector(COCO, genotype, 3, trained)
    body = body_of(found)
    for own, other in ((body.stem, trained.stem), (body.cells, trained.cells)):
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))
    with pytest.raises(UserError, match="the weights do not fit the network of these settings: size mismatch"):
        build_detector(COCO, genotype, 3, Network(genotype, 8, 10, form="imagenet"))
