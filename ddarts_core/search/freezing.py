"""Compares the gradients of both splits by the weights of each operation; a rule then freezes operations (OLES)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..methods.parts import Freezing
from ..supernets.supernet import Cell, Supernet


def cosines(first: Sequence[Tensor], second: Sequence[Tensor], owner: Tensor, number: int) -> Tensor:
    """Cosine between two gradients by all weights of an operation, [operations]; NaN where one is 0 or missing.

    Args:
        first: a gradient, in one tensor per weight.
        second: the other gradient, in the same form.
        owner: the number of the operation that each weight belongs to, [weights].
        number: the number of operations.
    """
    zeros = torch.zeros(number, device=owner.device)
    products = torch.stack([product.sum() for product in torch._foreach_mul(list(first), list(second))])
    squares = [torch.stack(torch._foreach_norm(list(of_one))).float().square() for of_one in (first, second)]
    lengths = [zeros.index_add(0, owner, square).sqrt() for square in squares]
    return zeros.index_add(0, owner, products.float()) / (lengths[0] * lengths[1])


class Watch:
    """Mean cosines since the last decision of a rule, and the operations that it froze.

    Args:
        net: whose operations with weights are watched, in its own order.
        rule: when it decides, and how.
    """

    def __init__(self, net: Supernet, rule: Freezing) -> None:
        assert rule.period is not None
        self.rule, self.period = rule, rule.period
        edges: list[Any] = [edge for cell in net.cells for edge in cast(Cell, cell).edges]
        found = [list(op.parameters()) for edge in edges for op in edge.ops]
        self.operations = [weights for weights in found if weights]
        device = self.operations[0][0].device
        number = len(self.operations)
        self.frozen = torch.zeros(number, dtype=torch.bool, device=device)
        self.total = torch.zeros(number, device=device)
        self.measured = torch.zeros(number, device=device)
        self.steps = 0
        #: Gradients of the alphas' split by `weights`, of the step before; None where a weight had no part in the loss.
        self.of_alphas: Sequence[Tensor | None] = ()

    @property
    def weights(self) -> list[nn.Parameter]:
        """The operations' weights that are still trained."""
        return [weight for weights in self.operations for weight in weights if weight.requires_grad]

    def step(self) -> None:
        """Compare with the gradients that the weights have now, and freeze when it is time to decide."""
        if not self.of_alphas:
            return
        owners = [k for k, weights in enumerate(self.operations) for weight in weights if weight.requires_grad]
        known = [
            (before, weight.grad, owner)
            for before, weight, owner in zip(self.of_alphas, self.weights, owners, strict=True)
            if before is not None and weight.grad is not None
        ]
        self.of_alphas = ()
        self.steps += 1
        if known:
            first, second, owner = zip(*known, strict=True)
            of_step = cosines(first, second, torch.tensor(owner, device=self.total.device), len(self.operations))
            self.total += of_step.nan_to_num(0.0, 0.0, 0.0)
            self.measured += of_step.isfinite()
        if self.steps % self.period == 0:
            self._freeze(self.frozen | self.rule.freezes(self.total / self.measured))
            self.total.zero_()
            self.measured.zero_()

    def _freeze(self, frozen: Tensor) -> None:
        self.frozen = frozen
        for weights, stops in zip(self.operations, frozen.tolist(), strict=True):
            for weight in weights:
                weight.requires_grad_(not stops)
                if stops:
                    weight.grad = None  # so that neither momentum nor decay moves it

    def state_dict(self) -> dict[str, Any]:
        """What later decisions depend on."""
        return {"frozen": self.frozen, "total": self.total, "measured": self.measured, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.steps = state["steps"]
        self.total.copy_(state["total"])
        self.measured.copy_(state["measured"])
        self._freeze(state["frozen"].to(self.frozen.device))
