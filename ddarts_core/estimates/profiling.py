"""Measures where the time of a search step goes, in the paper's words, and writes a trace of torch's profiler."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..data.sets import Images
from ..ground.errors import UserError
from ..ground.files import write_with
from ..search.alpha_step import ABLATIONS
from ..search.search import Search
from ..tensors.devices import wait

DATA, ALPHAS, WEIGHTS, LOGGING = "data", "alpha step", "weights step", "logging"


@dataclass(frozen=True)
class Part:
    """One part of a step.

    Attributes:
        name: the name of the part.
        milliseconds: how many milliseconds the part takes in one step.
        share: its share of the whole step, as a fraction of 1.
    """

    name: str
    milliseconds: float
    share: float


def profile_search(search: Search, trace: Path, num_steps: int = 3) -> list[Part]:
    """Run a few steps, write their trace (for chrome://tracing or ui.perfetto.dev), and say where the time went.

    The parts are disjoint: the alpha step is counted without its ablations. Logging is what a step adds to the record,
    and the record's figures of the alphas, which a real search computes only once per epoch. The steps change the
    search.

    Args:
        search: a search that is used for nothing else. It goes through the splits again when they end.
        trace: the JSON file to write.
        num_steps: how many steps are measured, after one more step that warms up.

    Raises:
        UserError: the trace cannot be written.
    """
    weights = _endless(search, search.splits.weights, "weights")
    alphas = _endless(search, search.splits.alphas, "alphas")
    search._step.around_ablations = partial(_part, search, ABLATIONS)
    _step(search, weights, alphas, 0)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if search.device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for number in range(1, num_steps + 1):
            _step(search, weights, alphas, number)
    write_with(trace, lambda name: _export(profiler, name, trace))
    # A GPU's own account of a part leaves out the backward passes, which another thread starts.
    found = {event.key: event for event in profiler.key_averages() if event.device_type == DeviceType.CPU}
    total = {
        name: found[name].cpu_time_total / 1000 / num_steps
        for name in (DATA, ALPHAS, ABLATIONS, WEIGHTS, LOGGING)
        if name in found
    }
    total[ALPHAS] -= total.get(ABLATIONS, 0.0)
    whole = sum(total.values())
    return [Part(name, milliseconds, milliseconds / whole) for name, milliseconds in total.items()]


def _export(profiler: profile, name: str, trace: Path) -> None:
    """Write the trace, and check that it is whole.

    If the profiler cannot write all of it, it only logs this, and the file is empty or cut off.

    Raises:
        UserError: the file is not whole.
    """
    profiler.export_chrome_trace(name)
    if not Path(name).read_bytes().rstrip().endswith(b"}"):
        Path(f"{name}.tmp").unlink(missing_ok=True)
        raise UserError(f"cannot write {trace}: the profiler wrote only a part of it; make room, or write elsewhere")


@contextmanager
def _part(search: Search, name: str) -> Iterator[None]:
    """Within the block one part of a step is measured.

    The part begins when the device has done everything before it, and ends when the device has done the part.
    """
    wait(search.device)
    with record_function(name):
        yield
        wait(search.device)


def _endless(search: Search, images: Images, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    for cycle in itertools.count():
        yield from search._batches(images, name, 0, cycle)


def _step(
    search: Search, weights: Iterator[tuple[Tensor, Tensor]], alphas: Iterator[tuple[Tensor, Tensor]], number: int
) -> None:
    with _part(search, DATA):
        weight_batch, alpha_batch = next(weights), next(alphas)
    with _part(search, ALPHAS):
        report = search._alpha_step(alpha_batch, weight_batch, 0, number)
    with _part(search, WEIGHTS):
        search._weight_step(*weight_batch, 0, number)
    with _part(search, LOGGING):
        torch.stack(list(report.scalars.values())).tolist()
        search._architecture_metrics()


def table(parts: list[Part]) -> str:
    """Return the parts as lines of text, below a header."""
    lines = [f"{'part of a step':16} {'ms':>10} {'share':>7}"]
    lines += [f"{part.name:16} {part.milliseconds:10.1f} {100 * part.share:6.1f} %" for part in parts]
    return "\n".join(lines)
