"""The parts that a search has unless its method says otherwise, and softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .parts import Edge, Freezing, Gates, Parameters, Plan, Progress, Regulariser, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.config import ExperimentConfig
    from ..settings.search_settings import SearchConfig


class Sigmoid(Gates):
    """sigma(alpha): every operation on its own (D-DARTS eq. 2, FairDARTS)."""

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
        """Refuse what is defined for independent gates only."""
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
    """Zero-one loss of FairDARTS (D-DARTS eq. 3); `search.w_zero_one` is its weight too."""

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
        """It is a function of sigma(alpha), so it refuses other gates."""
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
    """Warm-up, which trains the weights alone, then the search."""

    name = "standard"
    summary = "weights alone for search.warmup_epochs, then weights and alphas in turn for search.epochs"

    def stages(self) -> tuple[Stage, ...]:
        """One stage or two, of one network."""
        warmup = (Stage("warmup", self.search.warmup_epochs),) if self.search.warmup_epochs else ()
        return (*warmup, Stage("search", self.search.epochs))


def networks(
    search: SearchConfig, settings: Sequence[Mapping[str, Any]], kept: Sequence[int], *, restart: bool
) -> tuple[Stage, ...]:
    """Warm-up and search of networks one after the other; warm-up and search epochs are shared out evenly.

    Args:
        search: has the epochs.
        settings: of the experiment that differ in each network.
        kept: operations per edge of all networks but the first.
        restart: whether each network's learning rates begin anew.
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
