"""The parts that a search has unless its method names others, and the softmax gates. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..genotypes.links import num_sources
from ..genotypes.spaces import num_edges, operations_of
from .parts import Edge, Freezing, Gates, Kept, Parameters, Plan, Progress, Regulariser, Shape, Stage
from .searched_network import Network

if TYPE_CHECKING:
    from torch import Tensor

    from ..datasets.facts import DataInfo
    from ..genotypes.genotype import Genotype
    from ..networks.counting import Tally
    from ..search.discretise import Derivation
    from ..settings.config import ExperimentConfig
    from ..settings.search_settings import DiscretiseConfig, SearchConfig
    from ..supernets.searched import SearchedNetwork
    from ..supernets.supernet import Supernet


class Cells(Network):
    """A chain of cells, whose edges choose from the operations of `search.space`."""

    name = "cells"
    summary = "a chain of cells whose edges choose operations (DARTS)"
    choice = "edge"
    reduced_by = ("search.channels", "search.num_cells")

    @property
    def words(self) -> str:
        """Number of cells and their width."""
        return f"{self.search.num_cells} cells of {self.search.channels} channels"

    @property
    def layout(self) -> str:
        """`normal_reduce` if all normal and all reduction cells share alphas, else `individual`."""
        return "normal_reduce" if self.one_loss else "individual"

    @property
    def groups(self) -> int:
        """Number of groups of cells."""
        from ..supernets.supernet import group_map

        return max(group_map(self.search)) + 1

    @property
    def one_loss(self) -> bool:
        """Whether all normal and all reduction cells share alphas, as in DARTS."""
        return self.search.sharing == "normal_reduce"

    def shape(self, groups: int, kept: Kept | None = None, linked: bool = False) -> Shape:
        """Groups, edges of a cell, operations of an edge, and links of the last cell."""
        search = self.search
        operations = len(operations_of(search.space)) if kept is None else len(kept[0][0])
        links = num_sources(search.num_cells - 1) if linked else 0
        return Shape(groups, num_edges(search.steps), operations, search.steps, links)

    def build(self, info: DataInfo, kept: Kept | None = None) -> Supernet:
        """A `supernet.Supernet`."""
        from ..supernets.supernet import Supernet

        return Supernet(self.search, info, kept)

    def count(self, info: DataInfo) -> Tally:
        """The sums over the operations that are counted by arithmetic, which those of plug-ins are not."""
        from ..networks.counting import count_supernet

        return count_supernet(self.search, info.channels, info.image_size)

    def of_parts(self, values: Tensor) -> Tensor:
        """[cells, edges, operations]; if all normal and all reduction cells share alphas, of these two."""
        from ..supernets.supernet import group_map

        return values if self.one_loss else values[list(group_map(self.search))]

    def derive(
        self, scores: Tensor, config: DiscretiseConfig, image_size: int, links: Sequence[int | None] | None = None
    ) -> Derivation:
        """The genotype of cells (section 5.1)."""
        from ..search.discretise import discretise

        layout: Literal["normal_reduce", "individual"] = "normal_reduce" if self.one_loss else "individual"
        search = self.search
        reductions = search.reduction_positions
        return discretise(self.of_parts(scores), config, search.space, search.steps, reductions, layout, links)

    def heaviest_kept(self, number: int) -> Kept:
        """The operations with most weights, for every edge."""
        from ..supernets.heaviest import heaviest_kept

        return heaviest_kept(self.search, number)

    def heaviest(self, config: DiscretiseConfig, image_size: int) -> Genotype:
        """As many edges, and operations on each, as the rule lets pass."""
        from ..supernets.heaviest import heaviest_cells

        return heaviest_cells(self.search, config)


class Sigmoid(Gates):
    """sigma(alpha): every operation is decided on its own (D-DARTS eq. 2, FairDARTS)."""

    name = "sigmoid"
    summary = "sigma(alpha), every operation on its own (FairDARTS)"
    independent = True

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]."""
        return parameters["alphas"].sigmoid()


class Softmax(Gates):
    """Softmax of alpha over the operations of an edge (D-DARTS eq. 1, DARTS)."""

    name = "softmax"
    summary = "softmax over the operations of an edge (DARTS)"

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """[groups, edges, operations]; sums to 1 over the last axis."""
        return parameters["alphas"].softmax(-1)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse settings that are defined only for gates which are decided one by one."""
        ablation = config.ablation
        removes = ablation.loss != "none" or ablation.shapley_permutations
        if removes and ablation.removal not in ("identity", "zero"):
            return f"ablation.removal {ablation.removal} works with sigmoid gates only: use identity or zero"
        return None


class Mixed(Edge):
    """The sum of all operations, each times its gate (D-DARTS eq. 1, 2)."""

    name = "mixed"
    summary = "the sum of all operations, each times its gate"


class Unfrozen(Freezing):
    """All weights are trained to the end."""

    name = "none"
    summary = "all weights are trained to the end"


class ZeroOne(Regulariser):
    """Zero-one loss of FairDARTS (D-DARTS eq. 3). The setting `search.w_zero_one` gives its weight too."""

    name = "zero-one"
    summary = "-mean (sigma(alpha) - 1/2)^2, pushes sigmoid gates to 0 or 1 (D-DARTS eq. 3)"

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups]."""
        from ..loops import losses

        return losses.zero_one(parameters["alphas"])

    def gradient(self, parameters: Parameters, gates_of: Callable[[Parameters], Tensor]) -> dict[str, Tensor]:
        """The gradient of eq. 3 in closed form."""
        from ..loops import losses

        return {"alphas": losses.zero_one_gradient(parameters["alphas"])}

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse gates other than sigma(alpha), since this loss is a function of sigma(alpha)."""
        if config.search.independent_gates:
            return None
        return f"search.w_zero_one must be 0 with {config.search.gates}: the zero-one loss is defined on sigmoid gates"


class ZeroOneL1(ZeroOne):
    """FairDARTS' ablation variant of the zero-one loss: -mean |sigma(alpha) - 1/2|."""

    name = "zero-one-l1"
    summary = "-mean |sigma(alpha) - 1/2| (FairDARTS, its ablation study)"

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups]."""
        return -(parameters["alphas"].sigmoid() - 0.5).abs().flatten(1).mean(1)

    def gradient(self, parameters: Parameters, gates_of: Callable[[Parameters], Tensor]) -> dict[str, Tensor]:
        """The gradient by autograd."""
        return Regulariser.gradient(self, parameters, gates_of)


class ExpectedCost(Regulariser):
    """The expected cost of the genotypes that the gates stand for. The setting `search.cost` chooses and weighs it."""

    name = "expected-cost"
    summary = "log(cost), or log(cost / target)^2, of the genotype to be expected; set by search.cost (FBNetV2)"
    drawn = False

    def fit(self, net: SearchedNetwork) -> None:
        """Keep what tells the cost."""
        self._expected = net.expected

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """[groups], the same number for all."""
        setting = self.search.cost
        assert setting is not None, "refused"
        cost: Tensor = self._expected(setting.of, gates).log()
        term = cost if setting.target is None else (cost - math.log(setting.target)).square()
        return term.expand(len(gates))

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse a network that does not know its cost, and a second place for the weight."""
        from . import NETWORKS

        search = config.search
        if search.cost is None or cls.name in search.regularisers:
            return f"search.regularisers {cls.name} is set by search.cost: use that instead"
        if search.cost.of not in NETWORKS[search.network].costs:
            return f"search.cost: search.network {search.network} does not know its {search.cost.of}: leave it out"
        return None


class Standard(Plan):
    """A warm-up, which trains only the weights, and then the search."""

    name = "standard"
    summary = "weights alone for search.warmup_epochs, then weights and alphas in turn for search.epochs"

    def stages(self) -> tuple[Stage, ...]:
        """One stage or two, of one network."""
        warmup = (Stage("warmup", self.search.warmup_epochs),) if self.search.warmup_epochs else ()
        return (*warmup, Stage("search", self.search.epochs))


def networks(
    search: SearchConfig, settings: Sequence[Mapping[str, Any]], kept: Sequence[int], *, restart: bool
) -> tuple[Stage, ...]:
    """Warm-up and search of several networks, one after the other, which get equal shares of the epochs.

    Args:
        search: the settings of the search, which give the epochs.
        settings: for each network, the settings of the experiment that differ in it.
        kept: number of operations per edge, for all networks but the first.
        restart: whether the learning rates begin anew with each network.
    """
    number = len(settings)
    found: list[Stage] = []
    for index, own in enumerate(settings):
        warmup, epochs = (total // number + (index < total % number) for total in (search.warmup_epochs, search.epochs))
        left = kept[index - 1] if index else None
        found.append(Stage("warmup" if warmup else "search", warmup or epochs, True, restart, left, own))
        if warmup:
            found.append(Stage("search", epochs, settings=own))
    return tuple(found)
