"""The mixed edge of GDAS: one operation at a time is computed, and its gate is passed straight through."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..networks.weight import operation_weight
from ..tensors.hollow import is_hollow
from .supernet import MixedOp


class SampledOp(MixedOp):
    """An edge that computes the operation with the largest gate, as if that gate were 1 and the others 0.

    The derivative by that gate is what it would be for `MixedOp` with such gates; by the other gates it is 0.

    Example:
        >>> edge = SampledOp(("none", "skip_connect"), 4, stride=1)
        >>> edge(torch.ones(1, 4, 1, 1), torch.tensor([0.4, 0.6])).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int) -> None:
        super().__init__(names, channels, stride)
        self.names = tuple(names)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[batch, channels, height, width] and [operations] -> [batch, channels, height / stride, width / stride]."""
        chosen = self._heaviest() if is_hollow(gates) else int(gates.argmax())
        passed = 1 + (gates[chosen] - gates[chosen].detach())
        return passed * self.ops[chosen](x)  # type: ignore[no-any-return]  # nn.Module.__call__ returns Any

    def _heaviest(self) -> int:
        """What an estimate of memory assumes: gates without contents do not say which operation is taken."""
        return max(range(len(self.names)), key=lambda k: operation_weight(self.names[k]))
