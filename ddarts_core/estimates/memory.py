"""What a search needs before it runs: memory, multiply-adds and steps, counted on tensors without contents.

The passes of a search step are run on the real modules with tensors that have no contents (`hollow`): every operation
yields its shape, its type and its layout, and nothing is computed. `Meter` counts the storage that is alive after each
one. Its largest sum is what an allocator must hold; not counted are what the libraries take for themselves
(`CONTEXT_BYTES` on a GPU, workspaces of convolutions: 256 numbers per channel and kernel element in oneDNN's depthwise
gradients, which only shows with a handful of images), what an allocator loses to rounding, and the order of an epoch's
images, 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.sets import DataInfo
from ..genotypes.genotype import Cell, Edge, Genotype
from ..genotypes.spaces import edge_list, num_edges, operations_of
from ..methods import FREEZINGS, RULES
from ..methods.parts import Parameters, Progress
from ..networks.weight import operation_weight
from ..search.alpha_step import FEW, AlphaStep
from ..search.architecture import leaves_of
from ..search.companion import Companion
from ..search.examination import weight_pass
from ..search.freezing import Watch
from ..search.stages import Course
from ..search.unrolled import Bilevel
from ..settings.config import ExperimentConfig
from ..settings.search_settings import SearchConfig
from ..supernets.execution import choose, run_as
from ..supernets.supernet import Supernet, group_map
from ..tensors.hollow import Hollow
from ..tensors.meter import Meter
from ..tensors.optimisers import SGD

CONTEXT_BYTES = 500 * 2**20
"""What a process that uses a GPU takes on it before its first tensor: CUDA's context and its libraries."""


PROCESS_BYTES = 900 * 2**20
"""What a process of ours takes in main memory before its first tensor, torch and its libraries; see RESIDENT_FACTOR."""

RESIDENT_FACTOR = 1.5
"""Main memory that a process takes for its tensors, at most, as a multiple of them: glibc's allocator keeps what it was
given back in pieces. `python -m tests.benchmarks.resident` measures both."""


def resident_memory(tensors: int, device: torch.device) -> int:
    """Bytes that a process is seen to take, and may be killed for, where its tensors take `tensors`; an upper bound.

    On a GPU they are of its memory, where torch's allocator rounds little and CUDA's context is beside the tensors.
    """
    if device.type == "cuda":
        return CONTEXT_BYTES + tensors
    return PROCESS_BYTES + int(RESIDENT_FACTOR * tensors)


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one search step at its largest.

    Attributes:
        parameters: weights, buffers and alphas.
        gradients: of the weights.
        optimiser: momentum of the weights, both moments of the alphas.
        weight_step: peak of a weight step, everything included.
        alpha_step: peak of an alpha step, everything included; 0 if there is none.
    """

    parameters: int
    gradients: int
    optimiser: int
    weight_step: int
    alpha_step: int

    @property
    def peak(self) -> int:
        """Memory of the larger of the two steps."""
        return max(self.weight_step, self.alpha_step)

    @property
    def activations(self) -> int:
        """What the largest step adds to parameters, gradients and optimiser states."""
        return self.peak - self.parameters - self.gradients - self.optimiser


# --- a search step without contents ---------------------------------------------------------------------------------


class DryStep(AlphaStep):
    """A step of a rehearsal: it allocates as a real one does and computes nothing."""

    def _hessian_error(self, step: Bilevel) -> dict[str, Tensor]:
        """Left out: it is computed in one step of a search, and here there are no numbers to compare."""
        return {}


class _LargestStep(DryStep):
    """The first step, but of the ablated networks, which go one after the other, the first and largest only."""

    def _hessian_error(self, step: Bilevel) -> dict[str, Tensor]:
        """Its products, which may take more memory than the gradient: they are differentiated twice."""
        step.first(FEW).products()
        return {}

    def _players(self, stream: torch.Generator) -> list[int]:
        return [0]


#: More than the numbers that a step reports and an epoch sums up.
NUMBERS = 32

#: A step in which something may be drawn.
_STEP = Progress(purpose="weights", draw=torch.Generator, draw_once=lambda steps: torch.Generator())


class Rehearsal:
    """A supernet, its optimisers' states and a batch of each split; runs the two kinds of step as `search.Search` does.

    Args:
        config: of the experiment.
        info: of its data.
        device: whose form of the cells is used; nothing is put on it.
        keep: operations that each edge has, the heaviest of the space; None is all.
    """

    def __init__(self, config: ExperimentConfig, info: DataInfo, device: torch.device, keep: int | None = None) -> None:
        self.config = config
        search = config.search
        execution = choose(config, device)
        self.kept = None if keep is None else heaviest(search, keep)
        self.net = Supernet(search, info, self.kept).to(memory_format=execution.layout)
        run_as(self.net, execution, "cpu")
        self.step: DryStep = _LargestStep(self.net, config, self.kept)
        rule = FREEZINGS[search.freezing](search)
        self.step.watch = None if rule.period is None else Watch(self.net, rule)
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
        """The largest network beside the supernet, and a pool of all operations; None without one."""
        besides = [stage.beside for stage in Course(self.config).stages if stage.beside is not None]
        if not besides:
            return None
        search = self.config.search
        found = Companion(besides[0], search, info, torch.device("cpu"), layout, 0)
        names = [name for name in operations_of(search.space) if name != "none"]
        every = [Edge(target, source, name) for source, target in edge_list(search.steps) for name in names]
        for edges in (every, heaviest_edges(self.config)):
            cell = Cell(tuple(edges), tuple(range(2, search.steps + 2)))
            found.begin(Genotype((cell, cell), layout="normal_reduce"))
        for weight in found.weights if search.momentum else ():
            found.sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return found

    @property
    def _published(self) -> bool:
        return self.config.alpha.grad_mode == "published"

    def tensors(self) -> Iterable[Tensor]:
        """Everything that outlives a step."""
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
        """One step of the weights."""
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
        """One step of the alphas."""
        batch = (self.images, self.labels)
        self.step.gradients(self.parameters, batch, self.others, self.sgd, torch.Generator(), _STEP)

    def companion_step(self) -> None:
        """One step of the network beside the supernet alone."""
        assert self.companion is not None
        self.companion.train_alone((self.images, self.labels))

    def gates(self, parameters: Parameters) -> Tensor:
        """Weights of the operations in a step."""
        return self.step.architecture.gates(parameters, _STEP)


def heaviest(search: SearchConfig, number: int) -> list[list[list[int]]]:
    """The heaviest operations of the space on every edge: what a search may keep at most."""
    names = operations_of(search.space)
    order = sorted(range(len(names)), key=lambda k: operation_weight(names[k]), reverse=True)
    groups = max(group_map(search)) + 1
    return [[sorted(order[:number])] * num_edges(search.steps)] * groups


def heaviest_edges(config: ExperimentConfig) -> list[Edge]:
    """The largest operations on as many edges, and as many on each, as the rule of discretisation lets pass."""
    search, rule = config.search, RULES[config.discretise.rule](config.discretise)
    names = [name for name in operations_of(search.space) if name != "none"]
    kept = sorted(names, key=operation_weight, reverse=True)[: rule.most_operations]
    per_node = rule.most_edges or search.steps + 1
    return [
        Edge(target, source, op)
        for target in range(2, search.steps + 2)
        for source in range(min(per_node, target))
        for op in kept
    ]


def rehearsals(config: ExperimentConfig) -> list[tuple[ExperimentConfig, int | None]]:
    """The experiment on each network of the search, and the operations that an edge keeps there."""
    course, keep = Course(config), None
    found: list[tuple[ExperimentConfig, int | None]] = []
    for number, stage in enumerate(course.stages):
        keep = keep if stage.kept is None else stage.kept
        found = [*(found if stage.fresh else found[:-1]), (course.settings(number), keep)]
    return found


def step_memory(config: ExperimentConfig, info: DataInfo, device: torch.device) -> StepMemory:
    """Peak memory of the two kinds of search step; of several networks, those of the largest.

    Args:
        config: of the experiment.
        info: of its data.
        device: the one it will run on; it need not be there.

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
    """Bytes at the largest moment of a step, what outlives it included."""
    meter = Meter()
    meter.note(rehearsal.tensors())
    with meter:
        step()
    return meter.peak


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# --- other numbers --------------------------------------------------------------------------------------------------


def supernet_size(config: ExperimentConfig, info: DataInfo) -> tuple[int, int]:
    """Parameters of the supernet, and multiply-adds (convolutions and linear layers) of one image through it.

    Of several networks, those of the largest.
    """
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
    """The largest value of a setting whose peak fits; None if not even 1 does.

    Two or three small networks tell how the peak grows.

    Args:
        peak: bytes at a value; linear in it, or quadratic (channels).
        limit: bytes.
        below: a value that does not fit.
        quadratic: how the peak grows.

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
