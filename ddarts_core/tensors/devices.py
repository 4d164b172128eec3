"""What depends on the kind of device: speed, precision, clocks and memory. Only this module asks for the kind.

Which way is faster on which device was measured (docs/performance.md). Every choice is between equal functions.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ground.errors import UserError

#: Stacked inputs up to this size are as fast per byte as single ones, and several times slower beyond it, where they
#: leave the cache.
MERGE_BYTES_ON_CPU = 4 * 2**20

#: Formats that autocast computes convolutions in, by `amp`.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str, setting: str = "search.device") -> torch.device:
    """The device that a name stands for; `auto` is the GPU if there is one.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.
        setting: the setting that the name comes from, for messages.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"{setting} {name!r}: no GPU is visible to torch; use cpu or auto")
    return torch.device(name)


# --- precision ------------------------------------------------------------------------------------------------------


def check_amp(amp: str, device: torch.device, setting: str = "search.amp") -> None:
    """Refuse a precision that a device cannot compute in. A GPU that is not here is taken for a recent one.

    Raises:
        UserError: the device cannot compute in this precision.
    """
    if amp in ("tf32", "fp16") and device.type == "cpu":
        raise UserError(f"{setting} {amp} needs a GPU: use bf16 or none on a CPU")
    here = device.type == "cuda" and torch.cuda.is_available()
    if amp == "bf16" and here and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"{setting} bf16: this GPU has no bfloat16 arithmetic; use fp16 or none")


def set_float32(amp: str) -> None:
    """Set how this process's GPU computes convolutions of float32 from now on: with all 24 bits, or with 11 (`tf32`).

    torch's own default is tf32, which is too coarse for a difference of gradients, and for an equality to 1e-5.
    """
    # Not `fp32_precision`: torch.export reads this one, and torch refuses to read it where the other was set.
    torch.backends.cudnn.allow_tf32 = amp == "tf32"


# --- kernels --------------------------------------------------------------------------------------------------------


def merge_bytes(device: torch.device) -> float:
    """Up to how many bytes of input the edges that leave a node are computed as one convolution."""
    return MERGE_BYTES_ON_CPU if device.type == "cpu" else math.inf


def rewrites_gradients(x: Tensor) -> bool:
    """Whether gradients of depthwise convolutions are better made of other convolutions (see `depthwise`)."""
    return x.device.type == "cpu"


def sums_slowly(x: Tensor) -> bool:
    """Whether a sum over a dimension between others is better written as additions, which give the same bits.

    On a CPU torch takes many times as long to sum a few such slices as to add them.
    Numbers of 16 bits are summed in 32.
    """
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def takes_pixels_first(x: Tensor) -> bool:
    """Whether a 1x1 convolution of stride 2 must be given every second pixel.

    With fewer than 8 channels, AVX2 and the memory format channels last, the kernel of oneDNN in torch 2.14 writes
    beyond its buffers in the backward pass.
    """
    return x.device.type == "cpu" and x.shape[1] < 8


# --- clock and memory -----------------------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    """Wait until everything that was started on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Measures the seconds that each part of a loop takes.

    A GPU works later than the program asks it to. So on a GPU the seconds are measured between events on the GPU.

    Args:
        device: the device that the loop computes on.

    Example:
        >>> watch = Stopwatch(torch.device("cpu"))
        >>> for _ in range(3):
        ...     watch.lap("data")
        ...     watch.lap("weights")
        >>> sorted(watch.seconds())
        ['data', 'weights']
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = [("", self._now())]

    def lap(self, part: str) -> None:
        """Count the time since the last lap, or since the start, for `part`."""
        self._marks.append((part, self._now()))

    def seconds(self) -> dict[str, float]:
        """The seconds of each part so far. Waits for the device."""
        found: dict[str, float] = defaultdict(float)
        wait(self._device)
        for (_, begun), (part, ended) in pairwise(self._marks):
            cuda = self._device.type == "cuda"
            found[part] += begun.elapsed_time(ended) / 1000 if cuda else ended - begun
        return dict(found)

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch
        event.record(torch.cuda.current_stream(self._device))
        return event


def forget_peak(device: torch.device) -> None:
    """Forget the largest memory so far, since a process may serve one trial after another."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # where the kernel does not let it, the peak is that of the process's life
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The largest memory in bytes since `forget_peak`: that of this process's tensors on a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
