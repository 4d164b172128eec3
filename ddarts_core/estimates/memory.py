"""Counts what a search needs before it runs: memory and multiply-adds, on tensors without contents.

The passes of a search step are run on the real modules with tensors that have no contents (`hollow`): every operation
yields the shape, the type and the layout of its result, and nothing is computed. After each operation `Meter` counts
the storage that is alive. The largest sum is what an allocator must hold.

Three things are not counted. The first is what libraries take for themselves: `CONTEXT_BYTES` on a GPU, and workspaces
of convolutions (256 numbers per channel and kernel element in oneDNN's depthwise gradients, which only shows with a
handful of images). The second is what an allocator loses to rounding. The third is the order of an epoch's images, 8
bytes for each image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.sets import DataInfo
from ..genotypes.genotype import Cell, Edge, Genotype
from ..genotypes.spaces import edge_list, operations_of
from ..methods import FREEZINGS, network_of
from ..methods.parts import Parameters, Progress
from ..search.alpha_step import FEW, AlphaStep
from ..search.architecture import leaves_of
from ..search.companion import Companion
from ..search.examination import weight_pass
from ..search.freezing import Watch
from ..search.stages import Course
from ..search.unrolled import Bilevel
from ..settings.config import ExperimentConfig
from ..supernets.execution import choose, run_as
from ..supernets.heaviest import heaviest_edges
from ..supernets.supernet import of_cells
from ..tensors.hollow import Hollow
from ..tensors.meter import Meter
from ..tensors.optimisers import SGD

CONTEXT_BYTES = 500 * 2**20
"""The memory that a process takes on a GPU before its first tensor: CUDA's context and its libraries."""


PROCESS_BYTES = 900 * 2**20
"""The main memory that a process of ddarts takes before its first tensor: torch and its libraries.

`RESIDENT_FACTOR` says how it was measured.
"""

RESIDENT_FACTOR = 1.5
"""The main memory that a process takes for its tensors at most, as a multiple of their bytes.

It is more than 1, because glibc's allocator keeps memory that was given back in pieces.
`python -m tests.benchmarks.resident` measures both this factor and `PROCESS_BYTES`.
"""


def resident_memory(tensors: int, device: torch.device) -> int:
    """Return an upper bound of the memory that a process takes, in bytes; a process may be killed for this memory.

    On a GPU it is the GPU's memory, where torch's allocator rounds little and CUDA's context lies beside the tensors.
    Elsewhere it is main memory.

    Args:
        tensors: how many bytes the tensors of the process take.
        device: the device of the tensors.
    """
    if device.type == "cuda":
        return CONTEXT_BYTES + tensors
    return PROCESS_BYTES + int(RESIDENT_FACTOR * tensors)


@dataclass(frozen=True)
class StepMemory:
    """The memory of one search step at its largest moment, in bytes.

    Attributes:
        parameters: the weights, buffers and alphas.
        gradients: the gradients of the weights.
        optimiser: the momentum of the weights, and both moments of the alphas.
        weight_step: the peak of a step of the weights, everything included.
        alpha_step: the peak of a step of the alphas, everything included; 0 if the search has no such step.
    """

    parameters: int
    gradients: int
    optimiser: int
    weight_step: int
    alpha_step: int

    @property
    def peak(self) -> int:
        """The memory of the larger of the two kinds of step."""
        return max(self.weight_step, self.alpha_step)

    @property
    def activations(self) -> int:
        """The memory that the larger step takes beside parameters, gradients and the states of the optimisers."""
        return self.peak - self.parameters - self.gradients - self.optimiser


# --- a search step without contents ---------------------------------------------------------------------------------


class DryStep(AlphaStep):
    """A step of the alphas in a rehearsal: it allocates as a real step does, and computes nothing."""

    def _hessian_error(self, step: Bilevel) -> dict[str, Tensor]:
        """Measure nothing: a search measures this error in one step only, and here there are no numbers to compare."""
        return {}


class _LargestStep(DryStep):
    """The first step of a search, in which only the first of the ablated networks runs.

    Ablated networks run one after the other, and the first one is the largest.
    """

    def _hessian_error(self, step: Bilevel) -> dict[str, Tensor]:
        """Compute the products alone, which are differentiated twice and may take more memory than the gradient."""
        step.first(FEW).products()
        return {}

    def _players(self, stream: torch.Generator) -> list[int]:
        return [0]


#: More than the numbers that a step reports and an epoch sums up.
NUMBERS = 32

#: A step in which something may be drawn.
_STEP = Progress(purpose="weights", draw=torch.Generator, draw_once=lambda steps: torch.Generator())


class Rehearsal:
    """A supernet, the states of its optimisers and a batch of each split.

    It runs the two kinds of step as `search.Search` does.

    Args:
        config: the settings of the experiment.
        info: the facts of its data.
        device: the device whose form of the cells is used. Nothing is put on it.
        keep: how many operations each edge has: the heaviest ones of the space. None: all operations.
    """

    def __init__(self, config: ExperimentConfig, info: DataInfo, device: torch.device, keep: int | None = None) -> None:
        self.config = config
        search = config.search
        execution = choose(config, device)
        network = network_of(search)
        self.kept = None if keep is None else network.heaviest_kept(keep)
        self.net = network.build(info, self.kept).to(memory_format=execution.layout)
        run_as(self.net, execution, "cpu")
        self.step: DryStep = _LargestStep(self.net, config, self.kept)
        rule = FREEZINGS[search.freezing](search)
        self.step.watch = None if rule.period is None else Watch(of_cells(self.net), rule)
        self.step.companion = self.companion = self._company(info, execution.layout)
        self.parameters = self.step.architecture.parameters()
        self.moments = [torch.zeros_like(values) for values in self.parameters.values() for _ in range(2)]
        #: The search's own parameters, of which a step reads a copy, and their gradients of the step before.
        self.own = [torch.zeros_like(values) for values in self.parameters.values() for _ in range(2)]
        #: Adam's count of its steps, one for each tensor of `own`.
        self.counts = torch.zeros(len(self.parameters) * self.net.num_groups)
        #: What a step reports, what an epoch sums up of it, and M.
        self.scalars = torch.zeros(NUMBERS + self.net.num_groups, dtype=torch.float64)
        self.sgd = SGD(self.net.parameters(), lr=search.lr, momentum=search.momentum, weight_decay=search.weight_decay)
        for weight in self.net.parameters():
            weight.grad = torch.zeros_like(weight)
            if search.momentum:
                self.sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        size = info.image_size
        #: What the readers of both splits hold while they wait: pixels as bytes, and normalised before their layout.
        self.read = [
            torch.zeros(search.batch_size, info.channels, size, size, dtype=dtype)
            for dtype in (torch.uint8, torch.float32)
            for _ in range(2)
        ]
        #: Images and labels of both splits, alive in both kinds of step.
        self.images, others = (images.contiguous(memory_format=execution.layout) for images in self.read[2:])
        self.labels = torch.zeros(search.batch_size, dtype=torch.int64)
        self.others = others, torch.zeros_like(self.labels)
        #: What the alpha step leaves for the weight step: the published one, or one whose gradients are watched.
        watched = [] if self.step.watch is None else self.step.watch.weights
        left = list(self.net.parameters()) if self._published else watched
        self.leak = [torch.zeros_like(weight) for weight in left]

    def _company(self, info: DataInfo, layout: torch.memory_format) -> Companion | None:
        """Return the largest network that a search trains beside the supernet, with a pool of all operations.

        It is None if the search trains no such network.
        """
        besides = [stage.beside for stage in Course(self.config).stages if stage.beside is not None]
        if not besides:
            return None
        search = self.config.search
        found = Companion(besides[0], search, info, torch.device("cpu"), layout, 0)
        names = [name for name in operations_of(search.space) if name != "none"]
        every = [Edge(target, source, name) for source, target in edge_list(search.steps) for name in names]
        for edges in (every, heaviest_edges(search, self.config.discretise)):
            cell = Cell(tuple(edges), tuple(range(2, search.steps + 2)))
            found.begin(Genotype((cell, cell), layout="normal_reduce"))
        for weight in found.weights if search.momentum else ():
            found.sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return found

    @property
    def _published(self) -> bool:
        return self.config.alpha.grad_mode == "published"

    def tensors(self) -> Iterable[Tensor]:
        """Yield all tensors that outlive a step."""
        yield from self.net.parameters()
        yield from self.net.buffers()
        yield from (weight.grad for weight in self.net.parameters() if weight.grad is not None)
        yield from (state["momentum_buffer"] for state in self.sgd.state.values() if state)
        yield from (*self.parameters.values(), *self.moments, *self.own, self.counts, self.scalars, *self.leak)
        yield from (*self.read, self.images, self.labels, *self.others)
        if self.companion is not None:
            yield from self.companion.tensors()
        if self.step.watch is not None:
            yield from (self.step.watch.frozen, self.step.watch.total, self.step.watch.measured)

    def weight_step(self) -> None:
        """Run one step of the weights."""
        parameters = leaves_of(self.parameters) if self._published else self.parameters
        batch = (self.images, self.labels)
        _logits, loss = weight_pass(self.net, self.step.architecture, parameters, _STEP, batch)  # kept for the accuracy
        self.sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._published:
            self.step.leak = list(self.leak)
            self.step.leak_into_weights()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.search.grad_clip)
        self.sgd.step()

    def alpha_step(self) -> None:
        """Run one step of the alphas."""
        batch = (self.images, self.labels)
        self.step.gradients(self.parameters, batch, self.others, self.sgd, torch.Generator(), _STEP)

    def companion_step(self) -> None:
        """Run one step of the network beside the supernet, without the supernet."""
        assert self.companion is not None
        self.companion.train_alone((self.images, self.labels))

    def gates(self, parameters: Parameters) -> Tensor:
        """Return the gates, which weigh the operations, in a step."""
        return self.step.architecture.gates(parameters, _STEP)


def rehearsals(config: ExperimentConfig) -> list[tuple[ExperimentConfig, int | None]]:
    """Return for each network of a search the settings of the experiment, and how many operations an edge keeps.

    None instead of a number means that an edge keeps all operations.
    """
    course, keep = Course(config), None
    found: list[tuple[ExperimentConfig, int | None]] = []
    for number, stage in enumerate(course.stages):
        keep = keep if stage.kept is None else stage.kept
        found = [*(found if stage.fresh else found[:-1]), (course.settings(number), keep)]
    return found


def step_memory(config: ExperimentConfig, info: DataInfo, device: torch.device) -> StepMemory:
    """Return the peak memory of the two kinds of search step. If a search has several networks, the largest counts.

    Args:
        config: the settings of the experiment.
        info: the facts of its data.
        device: the device on which the search will run. It need not be there.

    Example:
        >>> from ddarts_core.settings.config import resolve
        >>> from ddarts_core.data.sets import data_info
        >>> config = resolve({"search": {"num_cells": 3, "channels": 2, "steps": 2, "batch_size": 8}})
        >>> memory = step_memory(config, data_info(config.data), torch.device("cpu"))
        >>> memory.peak > memory.parameters + memory.gradients + memory.optimiser
        True
    """
    found = [_step_memory(*of_stage, info, device) for of_stage in rehearsals(config)]
    return max(found, key=lambda memory: memory.peak)


def _step_memory(config: ExperimentConfig, keep: int | None, info: DataInfo, device: torch.device) -> StepMemory:
    with Hollow():
        rehearsal = Rehearsal(config, info, device, keep)
        weight_step = measure(rehearsal, rehearsal.weight_step)
        alpha_step = measure(rehearsal, rehearsal.alpha_step) if config.search.epochs else 0
    beside = rehearsal.companion
    trained = [*rehearsal.net.parameters(), *([] if beside is None else beside.weights)]
    weights = sum(_bytes(weight) for weight in trained)
    buffers = sum(_bytes(buffer) for buffer in rehearsal.net.buffers())
    buffers += 0 if beside is None else sum(_bytes(values) for values in (*beside.pool.values(), *beside.buffers))
    alphas = sum(_bytes(values) for values in rehearsal.parameters.values())
    momentum = weights if config.search.momentum else 0
    return StepMemory(weights + buffers + alphas, weights, momentum + 2 * alphas, weight_step, alpha_step)


def measure(rehearsal: Rehearsal, step: Callable[[], None]) -> int:
    """Return the bytes that are alive at the largest moment of a step, including the tensors that outlive it."""
    meter = Meter()
    meter.note(rehearsal.tensors())
    with meter:
        step()
    return meter.peak


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# --- other numbers --------------------------------------------------------------------------------------------------


def supernet_size(config: ExperimentConfig, info: DataInfo) -> tuple[int, int]:
    """Count the parameters of the supernet, and the multiply-adds of one image through it.

    Multiply-adds are those of convolutions and linear layers as they are written: the fast form leaves out weights that
    meet nothing but padding. If a search has several networks, the largest counts.
    """
    written = config.search.model_copy(update={"implementation": "readable"})
    config = config.model_copy(update={"search": written})
    return max(_supernet_size(*of_stage, info) for of_stage in rehearsals(config))


def _supernet_size(config: ExperimentConfig, keep: int | None, info: DataInfo) -> tuple[int, int]:
    from torch.utils.flop_counter import FlopCounterMode  # it imports a compiler of GPU code, which no trial needs

    with Hollow():
        rehearsal = Rehearsal(config, info, torch.device("cpu"), keep)
        gates = rehearsal.gates(rehearsal.parameters)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            rehearsal.net.eval()
            rehearsal.net(rehearsal.images[:1], gates)
    return sum(weight.numel() for weight in rehearsal.net.parameters()), counter.get_total_flops() // 2


def largest_that_fits(peak: Callable[[int], int], limit: int, below: int, *, quadratic: bool) -> int | None:
    """Return the largest value of a setting with which the peak memory fits; None if it does not fit even with 1.

    The peaks of two or three small networks tell how the peak grows.

    Args:
        peak: a function from a value of the setting to the peak in bytes. It is linear, or quadratic (channels).
        limit: how many bytes there are.
        below: a value with which the peak does not fit.
        quadratic: whether the peak grows quadratically; else it grows linearly.

    Example:
        >>> largest_that_fits(lambda value: 10 + 3 * value**2, 130, 100, quadratic=True)
        6
    """
    y0, y1 = peak(2), peak(4)
    second = ((peak(8) - y1) / 4 - (y1 - y0) / 2) / 6 if quadratic else 0.0
    first = (y1 - y0) / 2 - 6 * second

    def fits(value: int) -> bool:
        return y0 + first * (value - 2) + second * (value**2 - 4) <= limit

    found = max(filter(fits, range(1, below)), default=0)
    while found and peak(found) > limit:  # what is extrapolated is a few hundredths off
        found -= max(1, found // 50)
    return found or None
