"""Golden sizes: parameters and multiply-adds of published networks, to the digit (meta device: nothing is computed)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddarts_core.cost import CONVENTIONS, Cost, cost, count_macs
from ddarts_core.derive import deeper
from ddarts_core.errors import UserError
from ddarts_core.genotype import Cell, Edge, Genotype
from ddarts_core.zoo import ZOO


def millions(result: Cost) -> dict[str, float]:
    return {name: round(value / 1e6, 2) for name, value in result.macs.items()}


@pytest.mark.parametrize(
    ("name", "parameters", "a", "b"),
    [
        ("DARTS_V1", 3_169_414, 500.99, 510.97),
        ("DARTS_V2", 3_349_342, 528.36, 539.09),
        ("PC_DARTS_cifar", 3_634_678, 556.67, 567.79),
        ("PDARTS", 3_433_798, 532.17, 542.60),
    ],
)
def test_cifar(name: str, parameters: int, a: float, b: float) -> None:
    result = cost(ZOO[name].genotype, channels=36, num_cells=20)
    assert result.parameters == parameters
    assert result.auxiliary_parameters == 476_426
    assert (millions(result)["A"], millions(result)["B"]) == (a, b)


@pytest.mark.parametrize(
    ("name", "parameters", "a", "b", "c"),
    [
        ("DARTS_V2", 4_718_752, 529.91, 538.19, 543.99),
        ("PC_DARTS_image", 5_342_464, 581.63, 590.58, 597.06),
        ("DOTS_ImageNet", 5_348_032, 587.35, 596.25, 602.78),
    ],
)
def test_imagenet(name: str, parameters: int, a: float, b: float, c: float) -> None:
    result = cost(ZOO[name].genotype, channels=48, num_cells=14, num_classes=1000, form="imagenet")
    assert result.parameters == parameters
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


@pytest.mark.parametrize(("classes", "parameters"), [(10, 3_145_078), (100, 3_184_048)])
def test_amoebanet(classes: int, parameters: int) -> None:
    assert cost(ZOO["AmoebaNet_A"].genotype, channels=36, num_classes=classes).parameters == parameters


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
    assert result.to_dict() == {"parameters": result.parameters, "auxiliary_parameters": 0, "macs": result.macs}


def test_mistakes() -> None:
    with pytest.raises(UserError, match="imagenet-published"):
        cost(ZOO["DARTS_V2"].genotype, channels=36, form="image")  # type: ignore[arg-type]
