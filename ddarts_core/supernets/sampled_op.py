"""Mixed edges that compute one operation at a time: that with the largest gate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..networks.weight import operation_weight
from ..tensors.hollow import is_hollow
from .supernet import MixedOp


class OneOp(MixedOp):
    """An edge that computes the operation with the largest gate, times that gate, as if the other gates were 0.

    The derivative by that gate is what it would be for `MixedOp` with such gates; by the other gates it is 0.

    Example:
        >>> edge = OneOp(("none", "skip_connect"), 4, stride=1)
        >>> edge(torch.ones(1, 4, 1, 1), torch.tensor([0.25, 0.5])).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int) -> None:
        super().__init__(names, channels, stride)
        self.names = tuple(names)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[batch, channels, height, width] and [operations] -> [batch, channels, height / stride, width / stride]."""
        chosen = self.chosen(gates)
        return self.factor(gates[chosen]) * self.ops[chosen](x)  # type: ignore[no-any-return]  # nn.Module.__call__ returns Any

    def factor(self, gate: Tensor) -> Tensor:
        """The factor of the chosen operation, from its gate: the gate itself."""
        return gate

    def chosen(self, gates: Tensor) -> int:
        """Number of the operation with the largest gate.

        In an estimate of memory the gates have no contents: it is then the number of the heaviest operation.
        """
        return self.heaviest() if is_hollow(gates) else int(gates.argmax())

    def heaviest(self) -> int:
        """Number of the operation that takes the most memory."""
        return max(range(len(self.names)), key=lambda k: operation_weight(self.names[k]))


class SampledOp(OneOp):
    """The operation with the largest gate as if that gate were 1; its gate is passed straight through (GDAS).

    Example:
        >>> edge = SampledOp(("none", "skip_connect"), 4, stride=1)
        >>> edge(torch.ones(1, 4, 1, 1), torch.tensor([0.4, 0.6])).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def factor(self, gate: Tensor) -> Tensor:
        """The factor of the chosen operation: 1, with the derivative of its gate."""
        return 1 + (gate - gate.detach())
