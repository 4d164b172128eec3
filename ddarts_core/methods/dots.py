"""DOTS: first the operations of each edge, in two groups; then, in a new network, the pairs of edges of each node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..genotypes.spaces import operations_of
from . import darts
from .common import Softmax
from .edge_pairs import EdgePairs
from .method import Method
from .parts import Kept, Parameters, Plan, Progress, Stage

if TYPE_CHECKING:
    from torch import Tensor

#: Operations without weights; the others are the second group.
WEIGHTLESS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect")


def groups_of(space: str) -> list[list[int]]:
    """Two groups of the operations of a space, by number: first those without weights, then those with weights."""
    names = operations_of(space)
    return [[k for k, name in enumerate(names) if (name in WEIGHTLESS) == first] for first in (True, False)]


class GroupSoftmax(Softmax):
    """Softmax within each of two groups of operations; the gates of an edge sum to 2 (DOTS eq. 4)."""

    name = "softmax-groups"
    summary = "softmax within the operations without and those with weights; each group sums to 1 (DOTS)"

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]."""
        alphas, gates = parameters["alphas"], parameters["alphas"]
        for group in groups_of(self.search.space):
            index = alphas.new_tensor(group).long()
            gates = gates.index_copy(-1, index, alphas.index_select(-1, index).softmax(-1))
        return gates


class Topology(Plan):
    """Operations, then pairs of edges in a new network that keeps an operation of each group (DOTS 3.3, 3.4)."""

    name = "operations-then-pairs"
    summary = "operations first, then pairs of edges in a new network, at last on all training images (DOTS)"

    class Options(EdgePairs.Options):
        """Settings of the temperature in the last stage."""

    def stages(self) -> tuple[Stage, ...]:
        """Warm-up and search of both; 3/7 of the epochs for the operations, as 15 and 15 of 70 were."""
        warmup, epochs = (round(3 * total / 7) for total in (self.search.warmup_epochs, self.search.epochs))
        level = {"gates": EdgePairs.name, "options": {"first_temperature": 1.0, "last_temperature": 1.0}}
        falling = {"gates": EdgePairs.name, "options": self.options.model_dump()}
        later, last = self.search.warmup_epochs - warmup, self.search.epochs - epochs
        joint = {"search": falling, "alpha": {"betas": [0.9, 0.999]}}
        found = [Stage("warmup", warmup), Stage("search", epochs)]
        if later:
            found.append(Stage("warmup", later, fresh=True, kept=2, settings={"search": level}))
        found.append(Stage("joint", last, fresh=not later, kept=None if later else 2, settings=joint))
        return tuple(found)

    def keep(self, scores: Sequence[Sequence[Sequence[float]]], before: Kept, number: int) -> list[list[list[int]]]:
        """The best operation of each group."""
        groups = groups_of(self.search.space)
        return [[[max(group, key=edge.__getitem__) for group in groups] for edge in edges] for edges in scores]


METHOD = Method(
    "operations in two groups, then the pair of edges of each node, at a temperature that falls",
    "DOTS (Gu et al. 2021), eq. 3 to 7",
    darts.settings(
        search={
            "gates": GroupSoftmax.name,
            "stages": Topology.name,
            "options": {"first_temperature": 10.0, "last_temperature": 0.02},
            "head_norm": True,
            "warmup_epochs": 35,
            "epochs": 35,
        },
        alpha={"init": "zeros"},
    ),
    parts=(GroupSoftmax, EdgePairs, Topology),
    formula="edge = sum of the pairs' softmax(b / T) that hold it, T = 10 (0.02 / 10)^(e / (E - 1)); then argmax pair",
    uncertain=(
        "the last stage trains weights and alphas on the images of both splits, alphas first: its records say joint",
        "before it, T is 1, so operations have 1/1000",
    ),
)
