"""DARTS-PT: an edge keeps the operation whose removal hurts the network most, not the one of the largest gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..nested import merge
from ..spaces import edge_list, operations_of
from ..validation import Strict
from . import darts
from .method import Method
from .parts import Plan, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ExperimentConfig
    from ..examination import Examination

#: Epochs of the published schedule: of DARTS, and of the decisions, one every 5 epochs.
SEARCHED, DECIDED = 50, 81

#: Edges that a node keeps.
KEPT = 2


class Perturbation(Plan):
    """DARTS, then a decision after the other while weights and alphas are trained on (DARTS-PT Algorithm 1).

    Each decides one edge of every group of cells, drawn at random; when all edges have their operation, one node.
    """

    name = "perturbation"
    summary = "search, then edge by edge the operation whose removal costs most accuracy (DARTS-PT)"

    class Options(Strict):
        """Of the decisions."""

        decision_batches: int | None = Field(
            None, ge=1, le=100_000, description="batches of the alphas' split that decide; null is all"
        )

    def stages(self) -> tuple[Stage, ...]:
        """81/131 of `search.epochs` are for the decisions, at a learning rate that begins anew at a tenth."""
        decided = max(1, round(self.search.epochs * DECIDED / (SEARCHED + DECIDED)))
        search = {"lr": max(self.search.lr / 10, self.search.lr_min)}
        return (
            Stage("warmup", self.search.warmup_epochs),
            Stage("search", self.search.epochs - decided),
            Stage("search", decided, restart=True, decides=True, settings={"search": search}),
        )

    def decide(self, found: Examination) -> None:
        """The decisions that are due: all of them are spread evenly, from the first epoch to the last."""
        edges = len(edge_list(self.search.steps))
        last = edges + sum(node + 2 > KEPT for node in range(self.search.steps)) - 1
        for number in range(last + 1):
            if number * (found.progress.stage_epochs - 1) // max(last, 1) == found.progress.stage_epoch:
                for group in range(len(found.gates)):
                    (self.decide_edge if number < edges else self.decide_node)(found, group)

    def decide_edge(self, found: Examination, group: int) -> None:
        """The operation of one undecided edge."""
        open_edges = found.fixed[group].isnan().all(-1).nonzero().flatten().tolist()
        edge = open_edges[_draw(found, len(open_edges))]

        def without(operation: int) -> tuple[float, float]:
            gates = found.gates.clone()
            gates[group, edge, operation] = 0
            return found.worth(gates, number=self.options.decision_batches)

        best = min(self._candidates(), key=without)
        found.fixed[group, edge] = 0
        found.fixed[group, edge, best] = 1

    def decide_node(self, found: Examination, group: int) -> None:
        """The edges of one node that has too many: the least harmful is dropped until two are left."""
        into = self._edges_left(found.fixed[group])
        edges = into[_draw(found, len(into))]

        def without(edge: int) -> tuple[float, float]:
            gates = found.gates.clone()
            gates[group, edge] = 0
            return found.worth(gates, number=self.options.decision_batches)

        while len(edges) > KEPT:
            worst = max(edges, key=without)
            edges.remove(worst)
            found.fixed[group, worst] = 0

    def _candidates(self) -> list[int]:
        """Numbers of the operations that an edge may keep."""
        return [k for k, name in enumerate(operations_of(self.search.space)) if name != "none"]

    def passes(self, stage: Stage, groups: int, batches: int) -> int:
        """One for each operation of each edge, and for each edge that a node still has at each of its drops."""
        of_edges = len(edge_list(self.search.steps)) * len(self._candidates())
        of_nodes = sum(sum(range(KEPT + 1, node + 3)) for node in range(self.search.steps))
        return groups * (of_edges + of_nodes) * min(batches, self.options.decision_batches or batches)

    def _edges_left(self, fixed: Tensor) -> list[list[int]]:
        """Of each node that still has too many edges, their numbers."""
        left = fixed.any(-1).tolist()
        nodes = [
            [e for e, (_, target) in enumerate(edge_list(self.search.steps)) if target == node and left[e]]
            for node in range(2, self.search.steps + 2)
        ]
        return [edges for edges in nodes if len(edges) > KEPT]

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Decisions need a trained network."""
        if config.search.epochs < 2:
            return f"search.stages {cls.name} decides by a network that was trained: use search.epochs 2 or more"
        return None


def _draw(found: Examination, number: int) -> int:
    import torch

    return int(torch.randint(number, (), generator=found.stream, device=found.stream.device))


METHOD = Method(
    "DARTS, then edge by edge the operation whose removal costs the supernet most accuracy, training on in between",
    "DARTS-PT (Wang et al. 2021), Algorithm 1",
    merge(darts.SETTINGS, {"search": {"stages": Perturbation.name, "epochs": SEARCHED + DECIDED}}),
    parts=(Perturbation,),
    formula="edge e keeps argmin_o accuracy(gates without o on e), measured on the alphas' split; then a node drops "
    "argmax_e accuracy(gates without e) until 2 edges are left",
    uncertain=(
        "equal accuracies, which small splits have, are told apart by the loss",
        "the zero operation is searched and never kept; whether the published spaces have it depends on the run",
        "an edge that was dropped stays away while its node drops the next one",
        "accuracies are by statistics of the batches, of images that are not augmented",
        "momentum of SGD goes on into the decisions, Adam of the alphas begins anew; the alphas are trained on",
    ),
)
