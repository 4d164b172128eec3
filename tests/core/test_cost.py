"""Golden sizes: parameters and multiply-adds of published networks, to the digit, and the two ways of counting them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddarts_core.genotypes.derive import deeper
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.shapes import Form
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.cost import CONVENTIONS, Cost, cost
from ddarts_core.networks.counting import COUNTED
from ddarts_core.networks.measured_cost import count_macs, measured_cost
from ddarts_core.networks.network import Network
from ddarts_core.networks.operations import OPERATIONS


def every_operation() -> Genotype:
    """Each operation on an outer and on an inner edge, in cells that keep the size and in cells that halve it."""
    names = list(COUNTED)
    edges = [Edge(2 + index, index % 2, name) for index, name in enumerate(names)]
    edges += [Edge(3 + index, 2, name) for index, name in enumerate(names[1:])]
    cell = Cell(tuple(edges), tuple({edge.target for edge in edges}))
    return Genotype((cell,) * 4, reductions=(1, 3))


@pytest.mark.parametrize(
    ("form", "channels", "size", "images"),
    [("cifar", 6, 9, 1), ("imagenet", 5, 32, 3), ("imagenet-published", 4, 9, 1)],
)
def test_arithmetic_counts_what_the_network_has(form: Form, channels: int, size: int, images: int) -> None:
    genotype = every_operation()
    assert COUNTED.keys() == OPERATIONS.keys() - {"none"}
    arithmetic = cost(genotype, channels=channels, num_classes=7, in_channels=images, image_size=size, form=form)
    assert arithmetic == measured_cost(genotype, channels, 7, images, size, form)


def millions(result: Cost) -> dict[str, float]:
    return {name: round(value / 1e6, 2) for name, value in result.macs.items()}


#: Parameters without and with the auxiliary head at C = 36 and 20 cells for 10 classes, without it for 100 classes, and
#: at C = 48, 14 cells and 1000 classes in ImageNet's form.
PARAMETERS = {
    "DARTS_V1": (3_169_414, 3_645_840, 3_221_344, 4_510_432),
    "DARTS_V2": (3_349_342, 3_825_768, 3_401_272, 4_718_752),
    "PC_DARTS_cifar": (3_634_678, 4_111_104, 3_686_608, 5_270_560),
    "PC_DARTS_image": (3_721_510, 4_197_936, 3_773_440, 5_342_464),
    "PDARTS": (3_433_798, 3_910_224, 3_485_728, 4_944_352),
    "DOTS_C10": (3_526_030, 4_002_456, 3_577_960, 5_023_456),
    "DOTS_C100": (4_009_438, 4_485_864, 4_061_368, 5_650_912),
    "DOTS_ImageNet": (3_750_454, 4_226_880, 3_802_384, 5_348_032),
    "DARTS_minus": (3_454_318, 3_930_744, 3_506_248, 4_860_256),
    "CDARTS": (3_859_318, 4_335_744, 3_911_248, 5_493_856),
    "CDARTS_ImageNet": (4_669_534, 5_145_960, 4_721_464, 6_360_256),
    "NASNet_A": (3_830_950, 4_288_944, 3_895_840, 5_564_320),
    "AmoebaNet_A": (3_145_078, 3_603_072, 3_184_048, 4_627_360),
}


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameters(name: str, expected: tuple[int, ...]) -> None:
    genotype = ZOO[name].genotype
    ten = cost(genotype, channels=36, num_cells=20)
    hundred = cost(genotype, channels=36, num_cells=20, num_classes=100)
    thousand = cost(genotype, channels=48, num_cells=14, num_classes=1000, form="imagenet")
    found = (ten.parameters, ten.parameters + ten.auxiliary_parameters, hundred.parameters, thousand.parameters)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("GDAS_V1", 3_368_782),
        ("SDARTS_RS", 3_606_166),
        ("SDARTS_ADV", 3_344_806),
        ("DrNAS_cifar10", 4_099_294),
        ("DrNAS_imagenet", 5_726_368),
        ("DARTS_PT_s5_0", 2_851_246),
        ("DARTS_PT_s5_1", 3_053_206),
        ("DARTS_PT_s5_3", 3_328_174),
        ("Shapley_NAS_cifar10", 3_603_358),
        ("Shapley_NAS_imagenet", 5_423_872),
        ("Lambda_DARTS", 3_320_614),
        ("OLES_cifar10", 4_222_414),
        ("EG_NAS_cifar10", 3_705_742),
    ],
)
def test_parameters_of_later_methods(name: str, parameters: int) -> None:
    """As above, without the auxiliary head: for 10 classes, or 1000 where the search was on ImageNet."""
    with torch.device("meta"):
        if name.endswith("imagenet"):
            network = Network(ZOO[name].genotype, 48, 1000, form="imagenet", num_cells=14, auxiliary=False)
        else:
            network = Network(ZOO[name].genotype, 36, 10, num_cells=20, auxiliary=False)
    assert network.num_parameters == parameters


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("DARTS_V1", 500.99, 510.97),
        ("DARTS_V2", 528.36, 539.09),
        ("PC_DARTS_cifar", 556.67, 567.79),
        ("PC_DARTS_image", 570.47, 581.86),
        ("PDARTS", 532.17, 542.60),
        ("DOTS_ImageNet", 581.08, 592.42),
        ("CDARTS", 590.07, 602.18),
    ],
)
def test_cifar_macs(name: str, a: float, b: float) -> None:
    found = millions(cost(ZOO[name].genotype, channels=36, num_cells=20))
    assert (found["A"], found["B"]) == (a, b)


@pytest.mark.parametrize(
    ("name", "a", "b", "c"),
    [
        ("DARTS_V1", 505.86, 513.65, 519.15),
        ("DARTS_V2", 529.91, 538.19, 543.99),
        ("PC_DARTS_cifar", 571.14, 579.94, 585.95),
        ("PC_DARTS_image", 581.63, 590.58, 597.06),
        ("PDARTS", 542.82, 551.05, 557.12),
        ("DOTS_ImageNet", 587.35, 596.25, 602.78),
    ],
)
def test_imagenet_macs(name: str, a: float, b: float, c: float) -> None:
    result = cost(ZOO[name].genotype, channels=48, num_cells=14, num_classes=1000, form="imagenet")
    assert millions(result) == {"A": a, "B": b, "C": c}


@pytest.mark.parametrize(
    ("name", "parameters", "a"),
    [
        ("a", 2_360_782, 371.46),
        ("b", 3_407_878, 536.49),
        ("c", 2_598_814, 399.99),
        ("d", 3_365_542, 532.51),
        ("e", 2_643_742, 414.70),
        ("f", 3_151_054, 497.61),
        ("g", 2_899_054, 453.38),
    ],
)
def test_fairdarts(name: str, parameters: int, a: float) -> None:
    result = cost(ZOO[f"FairDARTS_{name}"].genotype, channels=36)
    assert (result.parameters, result.auxiliary_parameters) == (parameters, 476_426)
    assert millions(result)["A"] == a


@pytest.mark.parametrize(
    ("name", "parameters", "a", "b"),
    [("DD_1", 1_604_602, 251.3, 255.8), ("DD_4", 3_880_342, 548.0, 559.3), ("DD_5", 1_711_630, 254.5, 259.0)],
)
def test_ddarts_eight_cells(name: str, parameters: int, a: float, b: float) -> None:
    result = cost(ZOO[name].genotype, channels=36, reductions="thirds")
    assert result.parameters == parameters
    assert (round(result.macs["A"] / 1e6, 1), round(result.macs["B"] / 1e6, 1)) == (a, b)


@pytest.mark.parametrize(("order", "a"), [("paper", 924.08), ("published", 927.98)])
def test_ddarts_fourteen_cells(order: str, a: float) -> None:
    """Both readings of Algorithm 1; the published 6.28 M and 948 M (B) are those of the published order."""
    result = cost(deeper(ZOO["DD_4"].genotype, 14, order), channels=36)  # type: ignore[arg-type]
    assert result.parameters == {"paper": 6_276_862, "published": 6_280_822}[order]
    assert millions(result)["A"] == a
    if order == "published":
        assert millions(result)["B"] == 947.80


def test_ddarts_imagenet() -> None:
    genotype = deeper(ZOO["DD_5"].genotype, 14, "published")
    result = cost(genotype, channels=48, num_classes=1000, form="imagenet")
    assert (result.parameters, millions(result)["B"]) == (5_742_880, 617.90)


@pytest.mark.parametrize(
    ("name", "parameters", "a", "b"),
    [
        ("DO_2_ResNet18", 53_384_072, 8567.69, 8619.43),
        ("DO_2_ResNet50", 73_227_400, 9968.83, 10029.44),
        ("ResNet18_published", 16_028_808, 2710.35, 2720.13),
        ("ResNet18", 16_028_808, 2710.35, 2720.13),
        ("ResNet50_published", 25_900_296, 4687.97, 4715.12),
    ],
)
def test_handcrafted_imagenet(name: str, parameters: int, a: float, b: float) -> None:
    result = cost(ZOO[name].genotype, channels=64, num_classes=1000, form="imagenet-published")
    assert (result.parameters, millions(result)["A"], millions(result)["B"]) == (parameters, a, b)


def test_conventions_by_hand() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 2 * 2, 5),
    )
    conv, outputs = 6 * 16 * 2 * 9, 6 * 16
    base = conv + 24 * 5
    expected = {"A": base, "B": base + 2 * outputs + 24, "C": base + 2 * outputs + outputs}
    assert count_macs(module, torch.zeros(1, 4, 4, 4)) == expected
    assert not any(layer._forward_hooks for layer in module), "no hook stays behind"
    assert set(expected) == set(CONVENTIONS)


def test_one_cell_has_no_auxiliary_head() -> None:
    genotype = Genotype((Cell((Edge(2, 1, "sep_conv_3x3"),), (2,)),))
    result = cost(genotype, channels=4, image_size=8, in_channels=1)
    assert result.auxiliary_parameters == 0 and result.parameters > 0
    assert result.to_dict() == {
        "parameters": result.parameters,
        "auxiliary_parameters": 0,
        "macs": result.macs,
        "dead_cells": [],
    }


def test_mistakes() -> None:
    with pytest.raises(UserError, match="imagenet-published"):
        cost(ZOO["DARTS_V2"].genotype, channels=36, form="image")  # type: ignore[arg-type]
