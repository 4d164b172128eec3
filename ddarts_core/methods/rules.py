"""The rules of D-DARTS section 5.1 and of DARTS: from scores to edges, one node at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..genotypes.genotype import Edge
from ..genotypes.spaces import edge_list, edges_into
from .parts import Rule

if TYPE_CHECKING:
    from ..settings.config import ExperimentConfig


class Complete(Rule):
    """Every operation whose gate reaches the threshold."""

    name = "complete"
    summary = "every operation whose gate reaches discretise.threshold"

    @property
    def most_edges(self) -> int | None:
        """The setting `discretise.edges_per_node`."""
        return self.discretise.edges_per_node

    @property
    def threshold(self) -> float:
        """Smallest gate of a kept operation."""
        return self.discretise.threshold

    def select(self, scores: Sequence[Sequence[float]], operations: Sequence[str], steps: int) -> list[Edge]:
        """The best operations of the best edges of each node; a higher threshold keeps a subset."""
        real = [k for k, name in enumerate(operations) if name != "none"]
        ranked = [sorted(((row[k], k) for k in real), key=lambda item: -item[0]) for row in scores]
        chosen: list[Edge] = []
        edges = edge_list(steps)
        for incoming in edges_into(steps):
            for e in sorted(incoming, key=lambda e: -ranked[e][0][0])[: self.most_edges]:
                source, target = edges[e]
                chosen += [
                    Edge(target, source, operations[k])
                    for score, k in ranked[e][: self.most_operations]
                    if score >= self.threshold
                ]
        return chosen

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """A threshold has a meaning for independent gates only."""
        if config.search.independent_gates:
            return None
        return f"discretise.rule {cls.name!r} needs sigmoid gates: use darts with {config.search.gates}"


class TwoOperations(Complete):
    """The two best operations of each edge, those whose gates reach the threshold."""

    name = "edge"
    summary = "the two best operations of each edge, those whose gates reach discretise.threshold"
    most_operations = 2


class Sparse(Complete):
    """The best operation of each edge, if its gate reaches the threshold.

    With `discretise.edges_per_node` 2 it is what the published code does, which looks at the two best edges only.
    """

    name = "sparse"
    summary = "the best operation of each edge, if its gate reaches discretise.threshold"
    most_operations = 1


class BestEdges(Sparse):
    """The best operation of each of the two best edges (or `discretise.edges_per_node`), whatever its gate."""

    name = "darts"
    summary = "the best operation of each of the two best edges of a node (or discretise.edges_per_node), any gate"

    @property
    def most_edges(self) -> int | None:
        """Two unless told otherwise (DARTS 2.4)."""
        return self.discretise.edges_per_node or 2

    @property
    def threshold(self) -> float:
        """There is no threshold."""
        return -math.inf

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Any scores can be ranked."""
        return None
