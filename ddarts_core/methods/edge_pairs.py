"""The gates of DOTS' topology search: operations of an edge, times the weights of the pairs of edges of a node."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, combinations
from typing import TYPE_CHECKING

from pydantic import Field

from ..genotypes.spaces import edges_into, num_edges
from ..ground.validation import Strict
from .common import Softmax
from .parts import Parameters, Progress, Shape, initial

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pairs_of(steps: int) -> list[list[tuple[int, int]]]:
    """For each node the pairs of the edges that enter it, with edges by number.

    With 4 nodes there are 1, 3, 6 and 10 pairs.
    """
    return [list(combinations(edges, 2)) for edges in edges_into(steps)]


class EdgePairs(Softmax):
    """Softmax over an edge's operations times the weight of the pairs that hold it, ever sharper (DOTS eq. 6)."""

    name = "softmax-pairs"
    summary = "softmax over operations times the weights of the pairs of edges of a node, ever sharper (DOTS)"

    class Options(Strict):
        """Settings of the temperature T, which falls geometrically over a stage; that of operations is T / 1000."""

        first_temperature: float = Field(10.0, gt=0, le=1000, description="of pairs of edges, at the start")
        last_temperature: float = Field(0.02, gt=0, le=1000, description="of pairs of edges, in the last epoch")

    def parameters(self, shape: Shape, stream: torch.Generator | None) -> dict[str, Tensor]:
        """`alphas`, and `pairs` [groups, pairs of all nodes]."""
        number = sum(map(len, pairs_of(shape.steps)))
        return {**super().parameters(shape, stream), "pairs": initial((shape.groups, number), stream)}

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; they sum to 2 over all edges into a node."""
        first, last = self.options.first_temperature, self.options.last_temperature
        temperature = first * (last / first) ** (progress.stage_epoch / max(1, progress.stage_epochs - 1))
        operations = (parameters["alphas"] / (1e-3 * temperature)).softmax(-1)
        edges = self._edges(parameters["pairs"] / temperature, lambda pairs: pairs.softmax(-1))
        gates: Tensor = operations * edges[..., None]
        return gates

    def scores(self, parameters: Parameters) -> Tensor:
        """Softmax over the operations on the edges of each node's best pair, 0 on all others."""

        def best(pairs: Tensor) -> Tensor:
            return pairs.new_zeros(pairs.shape).scatter(-1, pairs.argmax(-1, keepdim=True), 1.0)

        return parameters["alphas"].softmax(-1) * self._edges(parameters["pairs"], best)[..., None]

    def _edges(self, pairs: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        """Weight of each edge, [groups, edges]: the sum of the weights of the pairs that hold the edge.

        Args:
            pairs: the values of the pairs of all nodes, [groups, pairs].
            weigh: returns the weights of the pairs of one node from their values, in the same shape.
        """
        import torch

        nodes = pairs_of(self.search.steps)
        ends = list(accumulate(map(len, nodes)))
        weights = torch.cat([weigh(pairs[:, a:b]) for a, b in zip([0, *ends], ends, strict=False)], -1)
        edges = range(num_edges(self.search.steps))
        holds = [[float(edge in pair) for edge in edges] for of_node in nodes for pair in of_node]
        return weights @ weights.new_tensor(holds)
