"""DARTS-PT: an edge keeps the operation whose removal hurts the network most, not the one of the largest gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..genotypes.spaces import edges_into, num_edges, operations_of
from ..ground.validation import Strict
from . import darts
from .method import Method
from .parts import Plan, Stage

if TYPE_CHECKING:
    from ..search.examination import Examination
    from ..settings.config import ExperimentConfig

#: Epochs of the published schedule: of DARTS, and of the decisions, one every 5 epochs.
SEARCHED, DECIDED = 50, 81

#: Edges that a node keeps.
KEPT = 2


class Perturbation(Plan):
    """DARTS, and then one decision after the other, while weights and alphas are trained on (DARTS-PT Algorithm 1).

    Each decision is about one edge of every group of cells, which is drawn at random. When all edges have their
    operation, each decision is about one node.
    """

    name = "perturbation"
    summary = "search, then edge by edge the operation whose removal costs most accuracy (DARTS-PT)"

    class Options(Strict):
        """Settings of the decisions."""

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
        """Take the decisions that are due. All decisions are spread evenly, from the first epoch to the last."""
        edges = num_edges(self.search.steps)
        last = edges + sum(len(into) > KEPT for into in edges_into(self.search.steps)) - 1
        for number in range(last + 1):
            if number * (found.progress.stage_epochs - 1) // max(last, 1) == found.progress.stage_epoch:
                for group in range(len(found.gates)):
                    (self.decide_edge if number < edges else self.decide_node)(found, group)

    def decide_edge(self, found: Examination, group: int) -> None:
        """Choose the operation of one edge that is not decided yet."""
        edge = found.one_of(found.fixed[group].isnan().all(-1).nonzero().flatten().tolist())
        best = min(self._candidates(), key=lambda operation: self._without(found, group, edge, operation))
        found.fixed[group, edge] = 0
        found.fixed[group, edge, best] = 1

    def decide_node(self, found: Examination, group: int) -> None:
        """Drop edges of one node that has too many, the least harmful first, until two are left."""
        left = found.fixed[group].any(-1).tolist()
        nodes = [[edge for edge in into if left[edge]] for into in edges_into(self.search.steps)]
        edges = found.one_of([edges for edges in nodes if len(edges) > KEPT])
        while len(edges) > KEPT:
            worst = max(edges, key=lambda edge: self._without(found, group, edge))
            edges.remove(worst)
            found.fixed[group, worst] = 0

    def _without(self, found: Examination, *place: int) -> tuple[float, float]:
        """The worth of the gates without those at a place, which is a group's edge or one operation of this edge."""
        gates = found.gates.clone()
        gates[place] = 0
        return found.worth(gates, number=self.options.decision_batches)

    def _candidates(self) -> list[int]:
        """The numbers of the operations that an edge may keep."""
        return [k for k, name in enumerate(operations_of(self.search.space)) if name != "none"]

    def passes(self, stage: Stage, groups: int, batches: int) -> int:
        """One pass for each operation of each edge, and at each drop one pass for each edge that the node still has."""
        of_edges = num_edges(self.search.steps) * len(self._candidates())
        of_nodes = sum(sum(range(KEPT + 1, len(into) + 1)) for into in edges_into(self.search.steps))
        return groups * (of_edges + of_nodes) * min(batches, self.options.decision_batches or batches)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse a search of one epoch, since the decisions need a network that was trained."""
        if config.search.epochs < 2:
            return f"search.stages {cls.name} decides by a network that was trained: use search.epochs 2 or more"
        return None


METHOD = Method(
    "DARTS, then edge by edge the operation whose removal costs the supernet most accuracy, training on in between",
    "DARTS-PT (Wang et al. 2021), Algorithm 1",
    darts.settings(search={"stages": Perturbation.name, "epochs": SEARCHED + DECIDED}),
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
