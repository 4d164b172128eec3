"""torch.compile: whether it works on this machine, and functions that it compiles."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ..ground.errors import UserError
from ..ground.redact import one_line

Function = TypeVar("Function", bound=Callable[..., object])

#: Compiled variants of one function that torch may keep: of an edge, every width and stride, with and without
#: gradients; of a cell, one for each cell of the deepest network.
RECOMPILE_LIMIT = 256


def compiled(function: Function, mode: str) -> Function:
    """The function, compiled for each kind of arguments that it is called with.

    A process may serve one network after another. What was compiled for the earlier ones is let go: it would count
    against torch's limit, beyond which nothing is compiled any more.

    Args:
        function: the function.
        mode: the mode of torch.compile.
    """
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    return torch.compile(function, dynamic=False, mode=mode)  # type: ignore[return-value]  # it may also be a decorator


def check_compile(mode: str, device: torch.device, setting: str) -> None:
    """Check that what a setting asks of torch.compile can be done on a device.

    Args:
        mode: `none`, or a mode of torch.compile.
        device: the device.
        setting: the setting that the mode comes from, for messages.

    Raises:
        UserError: it cannot.
    """
    if mode == "reduce-overhead" and device.type == "cpu":
        raise UserError(f"{setting} reduce-overhead needs a GPU, which replays CUDA graphs: use default or none")
    if mode != "none":
        check_compiler(device.type, setting)


@functools.cache
def check_compiler(kind: str, setting: str) -> None:
    """Check that torch.compile works here, on something small: it takes seconds, and what it makes is kept.

    Args:
        kind: the kind of the device: `cpu`, for which torch calls a C++ compiler, or `cuda`.
        setting: the setting that asks for it, for the message.

    Raises:
        UserError: there is no compiler, or it does not work.
    """
    try:
        torch.compile(_increment, dynamic=False)(torch.zeros(1, device=kind))
    except Exception as error:  # torch's, Triton's, or the compiler's own
        reason = textwrap.shorten(one_line(str(error)), 200, placeholder=" ...")
        raise UserError(
            f"{setting}: torch.compile does not work here ({reason}): install a C++ compiler (g++, or the one "
            f"that CXX names) with Python's headers (python3-dev), or set {setting}=none"
        ) from error


def _increment(x: Tensor) -> Tensor:
    return x + 1
