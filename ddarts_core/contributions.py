"""Losses of the ablated networks and their gradients: what equations 6 and 7 need, from one full pass.

The full pass is reused: cells before the removed one are unchanged, so each ablated network starts at the removed cell
with the stored inputs. No ablated network's graph outlives its own turn: memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import Removal
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
    """Cross entropy without each of `groups`, no gradients; [len(groups)].

    Args:
        net: the supernet, in the mode (statistics) of the full pass.
        outputs: `net.outputs` of the full pass.
        gates: [groups, edges, operations] of the full pass.
        labels: classes, [batch].
        groups: the groups of alphas to remove, one network each.
        removal: what removing means.
        noise: one draw of `random_gates` per network and draw, averaged over draws; empty unless removal is `random`.
        notes: of the full pass.
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

    Each ablated network is differentiated on its own down to the stored inputs of its removed cell; the gradients that
    arrive there are summed and sent through the graph of the full pass once.

    Args:
        net: the supernet; its weights should not require gradients.
        outputs: `net.outputs` of the full pass, with its graph, which stays usable.
        gates: [groups, edges, operations] of the full pass, part of that graph.
        labels: classes, [batch].
        groups: the groups of alphas to remove.
        removal: what removing means.
        noise: as for `ablated_losses`.
        loss_scale: factor of the loss while it is differentiated (fp16).

    Returns:
        Losses [len(groups)], and the gradient of their sum, of the shape of `gates`: H of `losses`.
    """
    losses = []
    leaf = gates.detach().requires_grad_()
    gate_gradient = torch.zeros_like(leaf)
    arrived: dict[int, Tensor] = {}
    for position, group in enumerate(groups):
        first = net.group_of.index(group)
        index0, index1 = first, first + 1
        s0, s1 = (outputs[index].detach().requires_grad_() for index in (index0, index1))
        draws: Sequence[Tensor | None] = noise[position :: len(groups)] or [None]
        values = []
        for draw in draws:
            loss = F.cross_entropy(net.without(group, s0, s1, leaf, removal, draw), labels)
            values.append(loss.detach())
            if not loss.requires_grad:
                continue
            found = torch.autograd.grad(loss * (loss_scale / len(draws)), (leaf, s0, s1), allow_unused=True)
            if found[0] is not None:
                gate_gradient += found[0]
            for index, gradient in zip((index0, index1), found[1:], strict=True):
                if gradient is not None:
                    arrived[index] = arrived[index] + gradient if index in arrived else gradient
        losses.append(torch.stack(values).mean())
    reached = [index for index in arrived if outputs[index].requires_grad]
    if reached:
        (through,) = torch.autograd.grad(
            [outputs[index] for index in reached],
            gates,
            [arrived[index] for index in reached],
            retain_graph=True,
        )
        gate_gradient = gate_gradient + through
    return torch.stack(losses), gate_gradient / loss_scale
