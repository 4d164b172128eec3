"""How a search runs on its device: the form of a cell, the memory layout, the precision.

Everything here changes speed, memory and rounding, never the function: tests hold every form against the equations.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ground.errors import UserError
from ..settings.config import ExperimentConfig
from ..tensors.compiler import check_compile, compiled
from ..tensors.devices import AUTOCAST, check_amp, merge_bytes, set_float32
from .fast import FastForm
from .searched import SearchedNetwork
from .supernet import Cell, CellForm, CellNotes, MixedOp, readable


@dataclass(frozen=True)
class Execution:
    """What `choose` found for a configuration and a device.

    Attributes:
        form: how cells are computed.
        layout: the memory format of images and weights.
        autocast: the lower precision that convolutions are computed in by autocast; None means without autocast.
        scales_loss: whether gradients need a scaled loss, as they do in fp16.
        float32: the value of `search.amp` that `set_float32` is called with.
        replays_graphs: whether edges are replayed as CUDA graphs.
    """

    form: CellForm
    layout: torch.memory_format
    autocast: torch.dtype | None
    scales_loss: bool
    float32: str = "none"
    replays_graphs: bool = False

    def begin_step(self) -> None:
        """To be called before each alpha step, weight step and evaluation: no tensor of the one before is read again.

        A replayed graph writes where it wrote before; within a step all outputs are kept, the ablated networks need
        them.
        """
        if self.replays_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch


def choose(config: ExperimentConfig, device: torch.device) -> Execution:
    """The execution that the settings ask for, or with `auto` the fastest one measured (docs/performance.md).

    The edges that leave a node are merged on a GPU, and on a CPU where that stays in the cache; channels_last on both.

    Raises:
        UserError: the device lacks the precision, or two settings exclude each other.
    """
    search = config.search
    check_amp(search.amp, device)
    _check_precision(config)
    _check_twice(config)
    _check_compile(config, device)
    form: CellForm = readable
    if search.compile != "none":
        form = CompiledForm(search.compile)
    elif search.implementation != "readable" and not _differentiates_twice(config):
        form = FastForm(merge_bytes(device))
    if search.checkpoint_cells:
        form = CheckpointedForm(form)
    return Execution(
        form=form,
        layout=torch.contiguous_format if search.memory_format == "contiguous" else torch.channels_last,
        autocast=AUTOCAST.get(search.amp),
        scales_loss=search.amp == "fp16",
        float32=search.amp,
        replays_graphs=search.compile == "reduce-overhead",
    )


def _differentiates_twice(config: ExperimentConfig) -> bool:
    return config.search.order == "second" and config.search.hessian == "exact"


def _check_twice(config: ExperimentConfig) -> None:
    search = config.search
    if search.hessian == "exact" and search.order != "second":
        raise UserError(f"search.hessian exact is for search.order second, not {search.order}: leave it out")
    for name, value in (("implementation", search.implementation == "fast"), ("compile", search.compile != "none")):
        if _differentiates_twice(config) and value:
            raise UserError(
                f"search.hessian exact differentiates the readable form twice, which search.{name} "
                f"{getattr(search, name)} does not allow: leave that out, or use search.hessian finite"
            )


def _check_compile(config: ExperimentConfig, device: torch.device) -> None:
    search = config.search
    if search.compile == "none":
        return
    if search.checkpoint_cells:
        raise UserError("search.compile and search.checkpoint_cells exclude each other: choose one")
    if search.implementation == "fast":
        raise UserError("search.compile fuses the readable form: set search.implementation to auto or readable")
    check_compile(search.compile, device, "search.compile")


def _check_precision(config: ExperimentConfig) -> None:
    amp = config.search.amp
    if amp == "none":
        return
    if config.search.order == "second":
        raise UserError(f"search.order second subtracts gradients, which {amp} rounds away: use search.amp=none")
    if config.alpha.grad_mode == "published":
        raise UserError(f"alpha.grad_mode published reproduces full precision: use search.amp=none, not {amp}")


def prepare(net: SearchedNetwork, execution: Execution, device: torch.device) -> SearchedNetwork:
    """Move a supernet to the device and have it run as chosen, from now on as the only one in this process.

    Args:
        net: the supernet.
        execution: how it runs, as `choose` found.
        device: the device to move it to.
    """
    set_float32(execution.float32)
    net = net.to(device).to(memory_format=execution.layout)
    run_as(net, execution, device.type)
    return net


def run_as(net: SearchedNetwork, execution: Execution, kind: str) -> None:
    """Have a supernet's cells computed as chosen, on a device of a kind (`cpu`, `cuda`)."""
    net.form = execution.form
    net.precision = nullcontext
    if execution.autocast is not None:
        net.precision = partial(torch.autocast, kind, dtype=execution.autocast)


class CheckpointedForm:
    """Keeps a cell's inputs only and computes the cell again in the backward pass."""

    def __init__(self, form: CellForm) -> None:
        self.form = form

    def __call__(self, cell: Cell, s0: Tensor, s1: Tensor, gates: Tensor, notes: CellNotes | None = None) -> Tensor:
        """The same value; keeps no notes, which would hold what checkpointing lets go."""
        if not torch.is_grad_enabled():
            return self.form(cell, s0, s1, gates)
        output: Tensor = checkpoint(
            self.form,
            cell,
            s0,
            s1,
            gates,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _SecondTime(cell)),
        )
        return output


class _SecondTime(AbstractContextManager[None]):
    """Puts a cell's running statistics back after it was computed again; entered once per backward pass."""

    def __init__(self, cell: Cell) -> None:
        self.buffers = list(cell.buffers())
        self.before: list[Tensor] = []

    def __enter__(self) -> None:
        self.before = [buffer.clone() for buffer in self.buffers]

    def __exit__(self, *error: object) -> None:
        torch._foreach_copy_(self.buffers, self.before)


class CompiledForm:
    """The readable form, its edges fused by torch.compile; every width and stride of an edge is compiled once.

    Args:
        mode: the mode of torch.compile.
    """

    def __init__(self, mode: str) -> None:
        self._compiled = compiled(MixedOp.forward, mode)

    def mix(self, edge: nn.Module, x: Tensor, gates: Tensor) -> Tensor:
        """Compute an edge by the compiled code; an edge of another kind than `MixedOp` runs as it is."""
        output: Tensor = self._compiled(edge, x, gates) if type(edge) is MixedOp else edge(x, gates)
        return output

    def __call__(self, cell: Cell, s0: Tensor, s1: Tensor, gates: Tensor, notes: CellNotes | None = None) -> Tensor:
        """The same value; a compiled graph keeps no notes."""
        output: Tensor = cell(s0, s1, gates, self.mix)
        return output
