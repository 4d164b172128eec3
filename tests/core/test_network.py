"""Networks of genotypes: exact parameter counts, every size, auxiliary head, drop-path."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddarts_core.genotypes.derive import deeper
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.shapes import auxiliary_position
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.network import DropPath, Network


def on_meta(name: str, channels: int, classes: int, **settings: Any) -> Network:
    with torch.device("meta"):
        return Network(ZOO[name].genotype, channels, classes, **settings)


def chain(num_cells: int, reductions: tuple[int, ...], *ops: str) -> Genotype:
    """Small cells: each operation on input 0 and on input 1, and one skip connection inside."""
    edges = [Edge(2, source, op) for op in ops for source in (0, 1)]
    return Genotype((Cell((*edges, Edge(3, 2, "skip_connect")), (2, 3)),) * num_cells, reductions)


# C10, C100 and ImageNet without the auxiliary head.
DARTS_COUNTS = {
    "DARTS_V1": (3_169_414, 3_221_344, 4_510_432),
    "DARTS_V2": (3_349_342, 3_401_272, 4_718_752),
    "PC_DARTS_cifar": (3_634_678, 3_686_608, 5_270_560),
    "PC_DARTS_image": (3_721_510, 3_773_440, 5_342_464),
    "PDARTS": (3_433_798, 3_485_728, 4_944_352),
    "DOTS_C10": (3_526_030, 3_577_960, 5_023_456),
    "DOTS_C100": (4_009_438, 4_061_368, 5_650_912),
    "DOTS_ImageNet": (3_750_454, 3_802_384, 5_348_032),
    "DARTS_minus": (3_454_318, 3_506_248, 4_860_256),
    "CDARTS": (3_859_318, 3_911_248, 5_493_856),
}


@pytest.mark.parametrize("name", DARTS_COUNTS)
def test_darts_family(name: str) -> None:
    c10, c100, imagenet = DARTS_COUNTS[name]
    assert on_meta(name, 36, 10).num_parameters == c10
    network = on_meta(name, 36, 100, auxiliary=True)
    assert (network.num_parameters, network.auxiliary_parameters) == (c100, 545_636)
    assert on_meta(name, 48, 1000, form="imagenet").num_parameters == imagenet


# 8 cells with reductions 2 and 6 (as in the files) and at the thirds; 14 cells: as in the files, thirds with the
# published and the paper's order of Algorithm 1. C = 36, 10 classes.
DDARTS_COUNTS = {
    "DD_1": (1_244_242, 1_604_602, 3_842_830, 2_699_146, 2_713_366),
    "DD_2": (2_520_298, 3_278_602, 7_686_118, 5_266_522, 5_286_934),
    "DD_5": (1_306_990, 1_711_630, 3_973_078, 2_880_262, 2_871_766),
    "DD_4": (2_905_030, 3_880_342, 8_739_118, 6_280_822, 6_276_862),
}


@pytest.mark.parametrize("name", DDARTS_COUNTS)
def test_ddarts(name: str) -> None:
    published = deeper(ZOO[name].genotype, 14, "published")
    with torch.device("meta"):
        shipped_14 = Network(published, 36, 10, reductions=(2, 6)).num_parameters
        thirds_14 = Network(published, 36, 10).num_parameters
        hundred = Network(published, 36, 100).num_parameters
    counts = (
        on_meta(name, 36, 10, reductions=(2, 6)).num_parameters,
        on_meta(name, 36, 10).num_parameters,
        shipped_14,
        thirds_14,
        on_meta(name, 36, 10, num_cells=14).num_parameters,
    )
    assert counts == DDARTS_COUNTS[name]
    assert hundred - thirds_14 == 51_930


@pytest.mark.parametrize(
    ("name", "classes", "form", "count"),
    [
        ("ResNet18", 100, "cifar", 14_166_564),
        ("ResNet18_published", 100, "cifar", 14_166_564),
        ("ResNet50_published", 10, "cifar", 24_360_522),
        ("Xception_published", 10, "cifar", 15_761_738),
        ("DO_2_ResNet18", 1000, "imagenet-published", 53_384_072),
    ],
)
def test_handcrafted(name: str, classes: int, form: str, count: int) -> None:
    assert on_meta(name, 64, classes, form=form).num_parameters == count


@pytest.mark.parametrize("form", ["cifar", "imagenet", "imagenet-published"])
@pytest.mark.parametrize("size", [8, 9, 14, 28, 33])
def test_any_image_size(form: Any, size: int) -> None:
    genotype = chain(4, (0, 1, 3), "skip_connect", "sep_conv_3x3", "max_pool_3x3")
    network = Network(genotype, 3, 5, 1, size, form, auxiliary=True)
    x = torch.rand(2, 1, size, size)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (2, 5)
    assert network.eval()(x).shape == (2, 5)
    (logits.sum() + auxiliary.sum()).backward()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_channels(channels: int) -> None:
    network = Network(chain(3, (1, 2), "skip_connect", "dil_conv_5x5"), channels, 2, 2, 8)
    assert network(torch.rand(2, 2, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_runs(name: str) -> None:
    """Every published genotype computes finite logits and gradients at a small size."""
    torch.manual_seed(0)
    cells = 5 if ZOO[name].genotype.layout == "normal_reduce" else None
    network = Network(ZOO[name].genotype, 2, 3, 1, 16, num_cells=cells)
    loss = network(torch.randn(2, 1, 16, 16)).square().sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_auxiliary_head_is_off_in_evaluation_and_never_on_the_last_cell() -> None:
    assert auxiliary_position(chain(8, (2, 5), "skip_connect")) == 5
    assert auxiliary_position(chain(4, (1, 2, 3), "skip_connect")) == 2
    assert auxiliary_position(chain(2, (1,), "skip_connect")) == 0
    assert auxiliary_position(chain(3, (), "skip_connect")) == 1
    with pytest.raises(UserError, match="2 cells or more"):
        auxiliary_position(chain(1, (), "skip_connect"))


@pytest.mark.parametrize(("form", "size"), [("cifar", 32), ("imagenet", 224)])
def test_published_auxiliary_pooling(form: Any, size: int) -> None:
    """On DARTS' own sizes the head pools with DARTS' 5x5 window."""
    head = on_meta("DARTS_V2", 4, 10, form=form, image_size=size, auxiliary=True).auxiliary_head
    assert head is not None
    pool = head[1]
    assert isinstance(pool, torch.nn.AvgPool2d)
    assert (pool.kernel_size, pool.stride) == (5, {"cifar": 3, "imagenet": 2}[form])


def test_cell_by_hand() -> None:
    """One cell equals its formula: sums at nodes, concatenation in the order of `concat`."""
    torch.manual_seed(0)
    edges = (
        Edge(2, 0, "max_pool_3x3"),
        Edge(2, 1, "skip_connect"),
        Edge(3, 2, "sep_conv_3x3"),
        Edge(3, 0, "skip_connect"),
    )
    network = Network(Genotype((Cell(edges, (2, 3)),)), 4, 3, 1, 8).eval()
    x = torch.randn(2, 1, 8, 8)
    cell: Any = network.cells[0]
    first, second = network.stem(x)
    s0, s1 = cell.preprocess[0](first), cell.preprocess[1](second)
    operations = dict(zip(cell.edges, cell.operations, strict=True))
    two = operations[(0, 2)](s0) + s1
    three = s0 + operations[(2, 3)](two)
    expected = network.classifier(torch.cat([two, three], 1).mean((2, 3)))
    torch.testing.assert_close(network(x), expected)


def test_feature_maps() -> None:
    network = Network(chain(5, (1, 3), "skip_connect"), 4, 2, 3, 16)
    shapes = [tuple(f.shape[1:]) for f in network.feature_maps(torch.rand(2, 3, 16, 16))]
    assert shapes == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_drop_path_keeps_the_mean_and_draws_from_its_generator() -> None:
    drop = DropPath()
    x = torch.ones(4000, 1, 1, 1)
    assert drop(x) is x, "off at probability 0"
    drop.probability = 0.25
    drop.generator = torch.Generator().manual_seed(3)
    before = torch.get_rng_state()
    y = drop(x)
    assert torch.equal(before, torch.get_rng_state())
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    drop.generator.manual_seed(3)
    assert torch.equal(drop(x), y)
    assert drop.eval()(x) is x


@pytest.mark.parametrize(("unit", "touched"), [("node", True), ("operation", False)])
def test_drop_path_unit_on_identities(unit: Any, touched: bool) -> None:
    """A network of skip connections only: per operation nothing is dropped, per node the sums are."""
    torch.manual_seed(0)
    genotype = chain(2, (), "skip_connect")
    network = Network(genotype, 4, 3, 1, 8, drop_path_unit=unit)
    x = torch.randn(8, 1, 8, 8)
    plain = network(x)
    network.drop_path = 0.9
    network.generator = torch.Generator().manual_seed(0)
    assert torch.equal(network(x), plain) is not touched
    assert torch.equal(network.eval()(x), network.eval()(x))


def test_drop_path_per_operation_drops_operations() -> None:
    torch.manual_seed(0)
    network = Network(chain(1, (), "sep_conv_3x3"), 4, 3, 1, 8, drop_path_unit="operation")
    x = torch.randn(16, 1, 8, 8)
    plain = network(x)
    network.drop_path = 0.5
    assert not torch.equal(network(x), plain)


def test_reductions_and_depth() -> None:
    genotype = chain(8, (2, 6), "skip_connect")
    with torch.device("meta"):
        assert Network(genotype, 4, 2).genotype.reductions == (2, 6)
        assert Network(genotype, 4, 2, reductions="thirds").genotype.reductions == (2, 5)
        assert Network(genotype, 4, 2, num_cells=14, reductions="thirds").genotype.reductions == (4, 9)
        assert Network(genotype, 4, 2, num_cells=14, reductions="genotype").genotype.reductions == (2, 6)
        assert len(Network(ZOO["DARTS_V2"].genotype, 4, 2).cells) == 20
        assert len(Network(ZOO["DARTS_V2"].genotype, 4, 2, form="imagenet").cells) == 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 7}, "image_size 7"),
        ({"form": "resnet"}, "cifar, imagenet, imagenet-published"),
        ({"channels": 0}, "channels 0"),
        ({"channels": 1, "form": "imagenet"}, "channels 1"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"drop_path_unit": "cell"}, "operation or node"),
        ({"reductions": (9,)}, "0 to 2"),
        ({"num_cells": 4}, "smallest genotype has 5 cells"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    arguments = {"channels": 4, "num_classes": 2, **settings}
    with pytest.raises(UserError, match=message):
        Network(chain(3, (1, 2), "skip_connect"), **arguments)


def test_drop_path_out_of_range() -> None:
    network = on_meta("DD_5", 2, 2)
    with pytest.raises(UserError, match="drop_path 1"):
        network.drop_path = 1.0
