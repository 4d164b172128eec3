"""The parts that a search has unless its method names others, and the softmax gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .parts import Edge, Freezing, Gates, Parameters, Plan, Progress, Regulariser, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig
    from ..settings.search_settings import SearchConfig


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
