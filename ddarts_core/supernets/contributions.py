"""Losses of the ablated networks and their gradients: what equations 6 and 7 need, from one full pass.

The full pass is reused: cells before the removed one are unchanged, so each ablated network starts at the removed cell
with the stored inputs. At most one ablated network's graph is alive at a time, and none of the full pass: memory does
not grow with their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..settings.search_settings import Removal
from ..tensors.products import vector_jacobian
from .supernet import CellNotes, Supernet


def random_gates(net: Supernet, gates: Tensor, generator: torch.Generator) -> Tensor:
    """Gates U(0, 1) for every cell, [cells, edges, operations]: what the published code puts in a removed cell."""
    shape = (len(net.cells), *gates.shape[1:])
    return torch.rand(shape, generator=generator, device=generator.device).to(gates)


def ablated_losses(
    net: Supernet,
    outputs: Sequence[Tensor],
    gates: Tensor,
    labels: Tensor,
    groups: Sequence[int],
    removal: Removal,
    noise: Sequence[Tensor],
    notes: Sequence[CellNotes] | None = None,
) -> Tensor:
    """Cross entropy of the network without each of `groups`, in nats and without gradients: [len(groups)].

    Args:
        net: the supernet, in the mode of the full pass, so that it normalises by the same statistics.
        outputs: `net.outputs` of the full pass.
        gates: the gates of the full pass, [groups, edges, operations].
        labels: the classes of the images, [batch].
        groups: the groups of alphas to remove, one network each.
        removal: what removing means.
        noise: draws of `random_gates`: one for each network, then again one for each network, and so on. The loss of a
            network is the mean over its draws. Empty unless `removal` is `random`.
        notes: the notes of the full pass, one per cell; None computes everything again.
    """
    losses = []
    with torch.no_grad():
        for position, group in enumerate(groups):
            first = net.group_of.index(group)
            s0, s1 = outputs[first], outputs[first + 1]
            draws: Sequence[Tensor | None] = noise[position :: len(groups)] or [None]
            values = [
                F.cross_entropy(net.without(group, s0, s1, gates, removal, draw, notes), labels) for draw in draws
            ]
            losses.append(torch.stack(values).mean())
    return torch.stack(losses)


def ablated_losses_and_gradient(
    net: Supernet,
    outputs: Sequence[Tensor],
    gates: Tensor,
    labels: Tensor,
    groups: Sequence[int],
    removal: Removal,
    noise: Sequence[Tensor],
    loss_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`ablated_losses`, and the gradient of their sum with respect to the gates.

    Each ablated network is differentiated on its own down to the stored inputs of its removed cell. The gradients that
    arrive at a cell's output are summed and sent through that cell once, which is computed again from its own inputs.

    Args:
        net: the supernet; its weights should not require gradients.
        outputs: `net.outputs` of the full pass; their graph is not used.
        gates: the gates of the full pass, [groups, edges, operations].
        labels: the classes of the images, [batch].
        groups: the groups of alphas to remove, one network each.
        removal: what removing means.
        noise: as for `ablated_losses`.
        loss_scale: a factor of the loss while it is differentiated, for fp16; the returned gradient is without it.

    Returns:
        Losses [len(groups)], and the gradient of their sum, of the shape of `gates`: H of `losses`.
    """
    losses = []
    back = _Back(net, outputs, gates)
    for position, group in enumerate(groups):
        first = net.group_of.index(group)
        s0, s1 = back.inputs(first)
        draws: Sequence[Tensor | None] = noise[position :: len(groups)] or [None]
        values = []
        for draw in draws:
            loss = F.cross_entropy(net.without(group, s0, s1, back.gates, removal, draw), labels)
            values.append(loss.detach())
            back.send(loss * (loss_scale / len(draws)), first, s0, s1)
        losses.append(torch.stack(values).mean())
    return torch.stack(losses), back.through_cells() / loss_scale


class _Back:
    """Sums gradients of the gates and of the cells' outputs, and sends the latter back, cell by cell."""

    def __init__(self, net: Supernet, outputs: Sequence[Tensor], gates: Tensor) -> None:
        self.net = net
        self.outputs = outputs
        self.gates = gates.detach().requires_grad_()
        self.gradient = torch.zeros_like(self.gates)
        self.arrived: dict[int, Tensor] = {}

    def inputs(self, cell: int) -> tuple[Tensor, Tensor]:
        """Both inputs of a cell, as leaves; what comes from the stem depends on no gate."""
        s0, s1 = (self.outputs[index].detach().requires_grad_(index >= 2) for index in (cell, cell + 1))
        return s0, s1

    def send(self, value: Tensor, cell: int, s0: Tensor, s1: Tensor, gradient: Tensor | None = None) -> None:
        """Differentiate `value`, computed from the inputs of a cell on, and add up what arrives."""
        if not value.requires_grad:
            return
        leaves = {index: leaf for index, leaf in ((cell, s0), (cell + 1, s1)) if leaf.requires_grad}
        inputs = [self.gates, *leaves.values()]
        if gradient is None:
            found = torch.autograd.grad(value, inputs, allow_unused=True)
        else:
            found = vector_jacobian(value, inputs, gradient, allow_unused=True)
        if found[0] is not None:
            self.gradient += found[0]
        for index, of_output in zip(leaves, found[1:], strict=True):
            if of_output is not None:
                before = self.arrived.get(index)
                self.arrived[index] = of_output if before is None else before + of_output

    def through_cells(self) -> Tensor:
        """The gradient of the gates, when everything that arrived has gone back to the first cell."""
        for cell in reversed(range(len(self.net.cells))):
            gradient = self.arrived.pop(cell + 2, None)  # cell k writes output k + 2
            if gradient is not None:
                s0, s1 = self.inputs(cell)
                self.send(self.net.output(cell, s0, s1, self.gates), cell, s0, s1, gradient)
        return self.gradient
