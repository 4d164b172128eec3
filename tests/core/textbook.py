"""Slow, literal forms of the search's mathematics, written from the equations: what the core must equal.

They share a supernet's weights and nothing of its forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddarts_core.supernets.supernet import Supernet

Replacement = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cell_output(cell: nn.Module, s0: Tensor, s1: Tensor, gates: Tensor) -> Tensor:
    """A cell as DARTS writes it: every node sums gate times operation over all earlier nodes (eq. 1, 2)."""
    states = [cell.preprocess0(s0), cell.preprocess1(s1)]
    offset = 0
    for _ in range(cell.steps):
        node = 0
        for source, state in enumerate(states):
            for k, op in enumerate(cell.edges[offset + source].ops):
                node = node + gates[offset + source, k] * op(state)
        offset += len(states)
        states.append(node)
    return torch.cat(states[2:], dim=1)


def forward(
    net: Supernet, x: Tensor, gates_of_cells: Sequence[Tensor], replaced: dict[int, Replacement] | None = None
) -> Tensor:
    """Logits; `replaced` maps a cell's position to what stands in for it."""
    s0, s1 = net.stem(x)
    for k, cell in enumerate(net.cells):
        whole = not replaced or k not in replaced
        s0, s1 = s1, cell_output(cell, s0, s1, gates_of_cells[k]) if whole else replaced[k](cell, s0, s1)
    return net.classifier(F.adaptive_avg_pool2d(s1, 1).flatten(1))


def identity(cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
    mean = 0.5 * cell.preprocess0(s0) + 0.5 * cell.preprocess1(s1)
    if cell.reduction:
        mean = F.adaptive_avg_pool2d(mean, (mean.shape[2] // 2, mean.shape[3] // 2))
    return torch.cat([mean] * cell.steps, dim=1)


def zero(cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
    return torch.zeros_like(identity(cell, s0, s1))


def with_gates(gates: Tensor) -> Replacement:
    return lambda cell, s0, s1: cell_output(cell, s0, s1, gates)


def published_steps(
    net: Supernet,
    alphas: Tensor,
    batches: Sequence[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]],
    draws: Sequence[Sequence[Tensor]],
    *,
    w_zero_one: float,
    w_ablation: float,
    alpha_lr: float,
    alpha_decay: float,
    lr: float,
    momentum: float,
    decay: float,
    clip: float,
) -> tuple[Tensor, list[list[float]]]:
    """The published search loop, step by step as it runs (docs/published_code.md, D2 to D7).

    Args:
        net: the supernet, trained in place.
        alphas: [cells, edges, operations] at the start.
        batches: (validation batch, train batch) per step.
        draws: per step, per cell: the random gates [edges, operations] of the "deactivated" cell.
        w_zero_one: weight of the zero-one loss.
        w_ablation: weight of the ablation loss (a constant here: it has no gradient).
        alpha_lr: Adam's learning rate.
        alpha_decay: Adam's weight decay.
        lr: SGD's learning rate.
        momentum: SGD's momentum.
        decay: SGD's weight decay.
        clip: largest gradient norm of the weights.

    Returns:
        The alphas after the last step, and the marginal contributions of every step.
    """
    cells = [nn.Parameter(alpha.clone()) for alpha in alphas]
    adams = [torch.optim.Adam([cell], lr=alpha_lr, betas=(0.9, 0.999), weight_decay=alpha_decay) for cell in cells]
    sgd = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
    net.train()
    contributions = []

    def gates() -> list[Tensor]:
        return [torch.sigmoid(cell) for cell in cells]

    def zero_one(values: Tensor) -> Tensor:
        return -F.mse_loss(values, torch.full_like(values, 0.5))

    for ((x_val, y_val), (x_train, y_train)), draw in zip(batches, draws, strict=True):
        with torch.no_grad():
            full = F.cross_entropy(forward(net, x_val, gates()), y_val).item()
            marginal = [
                full - F.cross_entropy(forward(net, x_val, gates(), {i: with_gates(draw[i])}), y_val).item()
                for i in range(len(cells))
            ]
        contributions.append(marginal)
        mean = sum(marginal) / len(marginal)
        logits = forward(net, x_val, gates())
        for i, cell in enumerate(cells):
            ablation = -(marginal[i] - mean) / mean if mean else 0.0
            loss = F.cross_entropy(logits, y_val) + w_zero_one * zero_one(torch.sigmoid(cell)) + w_ablation * ablation
            loss.backward(retain_graph=True)
            adams[i].step()
            adams[i].zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward(net, x_train, gates()), y_train)
        loss = loss + w_zero_one * zero_one(torch.cat([torch.sigmoid(cell) for cell in cells]))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), clip)
        sgd.step()
        sgd.zero_grad()
    return torch.stack([cell.detach() for cell in cells]), contributions
