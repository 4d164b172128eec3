"""Cells of a derived network in a training step: every form is the function that the cell's own `forward` writes."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.networks.compiled import CompiledForm
from ddarts_core.networks.fused import fused
from ddarts_core.networks.network import CellForm, Network
from ddarts_core.networks.operations import OPERATIONS

#: Every operation leaves an input of the cell and its first node, of which it has one more reader.
OPS = [op for op in OPERATIONS if op != "none"]
EDGES = [Edge(2, source, op) for op in OPS for source in (0, 1)] + [Edge(3, 2, op) for op in OPS]
EVERY = Cell((*EDGES, Edge(3, 0, "skip_connect")), (2, 3))
FEW = Cell((Edge(2, 0, "sep_conv_3x3"), Edge(2, 1, "skip_connect"), Edge(3, 2, "dil_conv_3x3")), (2, 3))


def build(cell: Cell, channels: int, **settings: Any) -> Network:
    torch.manual_seed(0)
    genotype = Genotype((cell, cell, cell), (1,))
    network = Network(genotype, channels, 3, image_size=9, auxiliary=True, **settings)
    return network.double().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def stepped(network: Network, form: CellForm | None) -> dict[str, Tensor]:
    """Both answers, all gradients and all statistics of one training step with drop-path."""
    network = copy.deepcopy(network).train()
    network.form, network.drop_path = form, 0.4
    network.generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    answers = network(images)
    sum(answer.square().sum() for answer in answers).backward()
    found = {f"gradient of {name}": weight.grad for name, weight in network.named_parameters()}
    return {
        "logits": answers[0],
        "auxiliary": answers[1],
        "images": images.grad,
        **found,
        **dict(network.named_buffers()),
    }


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Up to the rounding of float64; some gradients are nothing but rounding, as a normalisation follows their sum."""
    largest = max(float(value.detach().abs().max()) for value in wanted.values() if value is not None)
    for name, value in wanted.items():
        if value is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12 * largest, msg=name)


@pytest.mark.parametrize("unit", ["node", "operation"])
def test_the_fused_form_is_the_cell(unit: Any) -> None:
    """Of every operation at both strides, in float64, up to rounding: answers, gradients and statistics."""
    network = build(EVERY, 3, drop_path_unit=unit)
    wanted, found = stepped(network, None), stepped(network, fused)
    assert_same(found, wanted)


class Launched(TorchDispatchMode):
    """Names of what is dispatched, and the largest dilation of depthwise gradients that the library computes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.dilation = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.names[name] += 1
        if name == "convolution_backward" and args[9] > 1:
            self.dilation = max(self.dilation, *args[6])
        return function(*args, **(kwargs or {}))


def test_a_step_takes_a_relu_per_node_and_no_dilated_gradient_of_the_library() -> None:
    network = build(EVERY, 4)
    with Launched() as plain:
        stepped(network, None)
    with Launched() as ours:
        stepped(network, fused)
    assert (plain.dilation, ours.dilation) == (2, 1)
    rectified = sum(isinstance(module, nn.ReLU) for module in network.modules())
    shared = sum(op not in ("skip_connect", "max_pool_3x3", "avg_pool_3x3") for op in OPS)
    # Of each cell's two inputs and first node one is left; a skip connection of stride 2 has one too. The first cell
    # reads the stem twice, the second cell the stem and the first, the third both cells.
    less = 3 * 3 * (shared - 1) + 2 + 1 + 3
    assert plain.names["relu"] + plain.names["relu_"] == rectified
    assert ours.names["relu"] + ours.names["relu_"] == rectified - less


def test_only_training_with_gradients_has_a_form() -> None:
    """What looks at modules from outside, such as hooks and exports, finds every module called."""
    network = build(FEW, 2)

    def refused(*arguments: Any) -> Tensor:
        raise AssertionError("called")

    network.form = refused
    images = torch.zeros(2, 3, 9, 9, dtype=torch.float64)
    network.eval()(images)
    with torch.no_grad():
        network.train()(images)
    with pytest.raises(AssertionError, match="called"):
        network(images)


@pytest.mark.parametrize("unit", ["node", "operation"])
def test_a_compiled_cell_draws_as_the_cell(unit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch captures it, without the code that a compiler makes of it."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, dynamic, mode: compile_(f, dynamic=dynamic, backend="eager"))
    network = build(FEW, 2, drop_path_unit=unit)
    wanted, found = stepped(network, None), stepped(network, CompiledForm("default"))
    assert_same(found, wanted)


@pytest.mark.slow
def test_a_compiled_cell_is_the_cell() -> None:
    network = build(FEW, 2)
    wanted, found = stepped(network, None), stepped(network, CompiledForm("default"))
    assert_same(found, wanted)
