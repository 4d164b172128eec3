"""Counts that no clock disturbs: multiply-adds of convolutions, kernel launches, bytes moved, bytes kept for later.

They are taken on tensors without contents: every operation yields shapes and computes nothing, so any batch is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_core.estimates.search_cost import convolution_macs
from ddarts_core.tensors.hollow import Hollow

#: Operations that start no kernel: views, and memory that is only reserved.
NO_KERNEL = frozenset(
    [
        "_unsafe_view",
        "alias",
        "as_strided",
        "chunk",
        "detach",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "flatten",
        "lift_fresh",
        "new_empty",
        "new_empty_strided",
        "permute",
        "reshape",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
    ]
)


class Meter(TorchDispatchMode):
    """Counts what is dispatched while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.macs = 0
        self.moved = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if function.namespace == "aten" and name not in NO_KERNEL:
            self.launches += 1
            self.moved += _nbytes((*args, *(kwargs or {}).values(), result))
        if name == "convolution":
            self.macs += convolution_macs(result, args[1])
        elif name == "convolution_backward":
            # Either gradient has as many products as the convolution itself.
            self.macs += sum(args[10][:2]) * convolution_macs(args[0], args[2])
        return result


def _nbytes(value: object) -> int:
    """Bytes of the tensors in a value or in its lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(_nbytes, value)) if isinstance(value, (list, tuple)) else 0


@dataclass
class Kept:
    """Bytes of activations that autograd holds at most at one time; tensors that share storage count once."""

    weights: set[int]
    sizes: dict[int, int] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    now: int = 0
    peak: int = 0

    def pack(self, tensor: Tensor) -> _Held:
        """Called by autograd when it keeps a tensor."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.weights:
            return _Held(self, tensor, None)
        key = storage._cdata
        if not self.users.get(key):
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
        self.users[key] = self.users.get(key, 0) + 1
        return _Held(self, tensor, key)


class _Held:
    def __init__(self, kept: Kept, tensor: Tensor, key: int | None) -> None:
        self.kept, self.tensor, self.key = kept, tensor, key

    def __del__(self) -> None:
        if self.key is not None:
            self.kept.users[self.key] -= 1
            if not self.kept.users[self.key]:
                self.kept.now -= self.kept.sizes[self.key]


@dataclass(frozen=True)
class Counts:
    """Of one step.

    Attributes:
        macs: multiply-adds of convolutions.
        launches: kernels that are started.
        kept: the largest number of bytes kept for backward passes.
        moved: the bytes of what kernels read and write, each operand and result once per kernel.
    """

    macs: int
    launches: int
    kept: int
    moved: int


def count(make: Callable[[], tuple[nn.Module, Callable[[], object]]]) -> Counts:
    """Counts of the step that `make` sets up, tensors included, without their contents."""
    with Hollow():
        net, step = make()
        kept = Kept({weight.untyped_storage()._cdata for weight in net.parameters()})
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor), Meter() as meter:
            step()
    return Counts(meter.macs, meter.launches, kept.peak, meter.moved)
