"""Every entry of the operation table: shapes, exact parameter counts, and BatchNorm that can leave no trace."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from ddarts_core.genotypes.spaces import OPERATION_NAMES, SPACES
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.operations import OPERATIONS, BatchNorm, FactorizedReduce, ReLUConvBN, build

# Parameters at 8 channels and stride 1, affine.
COUNTS = {
    "none": 0,
    "max_pool_3x3": 0,
    "avg_pool_3x3": 0,
    "skip_connect": 0,
    "sep_conv_3x3": 304,
    "sep_conv_5x5": 560,
    "sep_conv_7x7": 944,
    "dil_conv_3x3": 152,
    "dil_conv_5x5": 280,
    "simple_conv_1x1": 80,
    "simple_conv_3x3": 592,
    "simple_conv_5x5": 1616,
    "conv_3x1_1x3": 400,
    "conv_7x1_1x7": 912,
    "bottleneck_1x3x1": 1264,
}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_table_covers_every_space() -> None:
    assert OPERATION_NAMES | {"none"} == set(OPERATIONS)
    assert {name for space in SPACES.values() for name in space} <= set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_parameter_count(name: str) -> None:
    assert count(build(name, 8, 1, True)) == COUNTS[name]


def test_skip_with_stride_is_factorized_reduce() -> None:
    assert count(build("skip_connect", 8, 2, True)) == 80
    assert count(build("skip_connect", 8, 2, False)) == 64


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
@pytest.mark.parametrize("channels", [6, 5])
def test_shapes(name: str, stride: int, size: tuple[int, int], channels: int) -> None:
    x = torch.rand(2, channels, *size)
    expected = (2, channels, *(-(-n // stride) for n in size))
    assert build(name, channels, stride, False).eval()(x).shape == expected


def test_factorized_reduce_pads_only_odd_sizes() -> None:
    """On an odd size the result equals that of the input padded by hand; the pixels of both phases are used."""
    torch.manual_seed(0)
    reduce = FactorizedReduce(3, 4).eval()
    x = torch.rand(1, 3, 5, 5)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    assert torch.equal(reduce(x), reduce(padded))
    even = torch.rand(1, 3, 6, 6)
    scale = (1 + reduce.norm.eps) ** -0.5
    assert reduce.first is not None
    by_hand = torch.cat(
        [
            torch.einsum("bchw,oc->bohw", even[:, :, ::2, ::2], reduce.first.weight[:, :, 0, 0]),
            torch.einsum("bchw,oc->bohw", even[:, :, 1::2, 1::2], reduce.second.weight[:, :, 0, 0]),
        ],
        dim=1,
    )
    torch.testing.assert_close(reduce(even), by_hand * scale)


def test_relu_conv_bn_count() -> None:
    assert count(ReLUConvBN(12, 8)) == 12 * 8 + 16


def test_zero_is_zero_even_for_infinite_input() -> None:
    out = build("none", 2, 2, False)(torch.full((1, 2, 4, 4), float("inf")))
    assert torch.equal(out, torch.zeros(1, 2, 2, 2))


def test_average_pool_ignores_padding() -> None:
    assert torch.equal(build("avg_pool_3x3", 1, 1, False)(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_unknown_operation_lists_choices() -> None:
    with pytest.raises(UserError, match=r"unknown operation 'sep_conv_9x9'.*sep_conv_3x3"):
        build("sep_conv_9x9", 8, 1, True)


def test_batch_norm_leaves_no_trace() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4) * 5 + 2
    quiet, plain = BatchNorm(3), torch.nn.BatchNorm2d(3)
    before = {k: v.clone() for k, v in quiet.state_dict().items()}
    quiet.track_running_stats = False
    assert torch.equal(quiet(x), plain(x))
    assert all(torch.equal(v, before[k]) for k, v in quiet.state_dict().items())
    quiet.track_running_stats = True
    quiet(x)
    assert torch.equal(quiet.running_mean, plain.running_mean)  # type: ignore[arg-type]
    assert quiet.num_batches_tracked == 1
    quiet.track_running_stats = False
    assert torch.equal(quiet.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("size", [8, 7])
def test_a_halving_equals_two_strided_convolutions(channels: int, size: int) -> None:
    """Below 8 channels it is computed in another way, which keeps oneDNN from writing beyond its buffers."""
    halve = FactorizedReduce(channels, 4).double()
    x = torch.randn(3, channels, size, size, dtype=torch.float64).to(memory_format=torch.channels_last)
    x.requires_grad_()
    padded = F.pad(x, (0, size % 2, 0, size % 2))
    assert halve.first is not None
    inputs = (x, halve.first.weight, halve.second.weight)
    expected = torch.cat(
        [F.conv2d(padded, inputs[1], stride=2), F.conv2d(padded[:, :, 1:, 1:], inputs[2], stride=2)], 1
    )
    torch.testing.assert_close(halve.before_norm(x), expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(expected)
    for got, want in zip(
        torch.autograd.grad((halve.before_norm(x) * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operation", ["skip_connect", "simple_conv_1x1"])
def test_a_halving_of_few_channels_leaves_the_memory_whole(operation: str) -> None:
    """In a process of its own: where a kernel writes beyond its buffers, the process dies within some passes."""
    script = (
        "import torch; from ddarts_core.networks.operations import build; torch.set_num_threads(1)\n"
        f"halve = build({operation!r}, 4, 2, affine=True).to(memory_format=torch.channels_last)\n"
        "for _ in range(200):\n"
        "    x = torch.randn(30, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()\n"
        "    halve(x).square().sum().backward()\n"
        "    kept = [torch.empty(int(n)) for n in torch.randint(1, 5000, (20,))]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
