"""The architecture parameters of a search, and what the parts of the search (`methods.parts`) make of them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..genotypes.links import num_sources
from ..methods import EDGES, GATES, REGULARISERS, network_of
from ..methods.common import ExpectedCost, ZeroOne
from ..methods.parts import Kept, Parameters, Progress, Regulariser, Shape
from ..settings.search_settings import RegulariserConfig, SearchConfig
from ..supernets.searched import SearchedNetwork


def leaves_of(parameters: Parameters) -> dict[str, Tensor]:
    """Copies of the parameters by which one can differentiate."""
    return {name: values.detach().clone().requires_grad_() for name, values in parameters.items()}


def _seen(term: Regulariser, progress: Progress) -> Progress:
    """Where the search is, as the gates of a term see it."""
    return progress if term.drawn else replace(progress, purpose="evaluation", draw=None, draw_once=None)


class Architecture:
    """Gates, scores and regularisers of a search.

    Args:
        search: the settings of the search, which name the parts.
        num_groups: number of groups of cells; the cells of a group share parameters.
        kept: the operations of the space that each edge has, [groups][edges][operations]; None means all.

    Example:
        >>> from ddarts_core.settings.search_settings import SearchConfig
        >>> architecture = Architecture(SearchConfig(steps=1), num_groups=3)
        >>> architecture.gates(architecture.parameters(), Progress()).shape
        torch.Size([3, 2, 7])
    """

    def __init__(self, search: SearchConfig, num_groups: int, kept: Kept | None = None) -> None:
        self.kept = kept
        #: Gates that a plan decided, which follow no parameter any more, NaN where they do; None before the first.
        self.fixed: Tensor | None = None
        self._gates = GATES[search.gates](search)
        network = network_of(search)
        self.shape: Shape = network.shape(num_groups, kept, self._gates.has_links)
        #: Number of operations of the space.
        self.size = network.shape(num_groups).operations
        self._edge = EDGES[search.edge](search)
        terms = {ZeroOne.name: RegulariserConfig(weight=search.w_zero_one)} if search.w_zero_one else {}
        terms |= {} if search.cost is None else {ExpectedCost.name: search.cost}
        self.terms: list[tuple[Regulariser, RegulariserConfig]] = [
            (REGULARISERS[name](search), setting) for name, setting in (terms | search.regularisers).items()
        ]
        #: By what terms are divided: FairDARTS' zero-one loss is one mean over both groups, D-DARTS' a mean per cell.
        #: A term that is a sum over both groups is multiplied by it beforehand.
        self.share = num_groups if network.one_loss else 1

    @property
    def independent(self) -> bool:
        """Whether gates of an edge are decided one by one (sigmoid) and not against each other (softmax)."""
        return self._gates.independent

    def parameters(self, stream: torch.Generator | None = None) -> dict[str, Tensor]:
        """Parameters at the start: zeros, or drawn from a stream."""
        return self._gates.parameters(self.shape, stream)

    def fit(self, net: SearchedNetwork) -> None:
        """Tell the terms which network they are of."""
        for term, _ in self.terms:
            term.fit(net)

    def begin(self, net: nn.Module, progress: Progress) -> None:
        """Tell the edges of a supernet that a step begins."""
        self._edge.begin(net, progress)

    def gates(
        self,
        parameters: Parameters,
        progress: Progress,
        probe: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Weights of all operations of every edge, [groups, edges, all]; those that the edge adds come last.

        With links, the weights of the links follow, in as many further rows as they fill.

        Args:
            parameters: the parameters of the architecture by name.
            progress: where the search is.
            probe: in a step of the weights, the function on which its gates may depend (`Gates.against`).
        """
        gates = self._gates.gates(parameters, progress)
        if probe is not None:
            gates = self._gates.against(gates, progress, probe)
        whole = self.whole(gates, progress)
        if not self.shape.links:
            return whole
        links = self._gates.links(parameters, progress)
        padded = F.pad(links, (0, -links.shape[1] % whole.shape[-1]))
        return torch.cat([whole, padded.unflatten(1, (-1, whole.shape[-1]))], 1)  # type: ignore[no-untyped-call]  # torch

    def whole(self, gates: Tensor, progress: Progress) -> Tensor:
        """Gates of the operations that an edge chooses from, as far as they are not fixed, and of those it adds."""
        return self.extended(self._fix(gates), progress)

    def own_gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """Gates of the operations that an edge chooses from, fixed ones included: [groups, edges, operations]."""
        return self._fix(self._gates.gates(parameters, progress))

    def _fix(self, gates: Tensor) -> Tensor:
        return gates if self.fixed is None else torch.where(self.fixed.isnan(), gates, self.fixed)

    def extended(self, gates: Tensor, progress: Progress) -> Tensor:
        """Gates of the operations that an edge chooses from, and those of the operations that it adds."""
        extra = self._edge.weights(progress)
        if not extra:
            return gates
        return torch.cat([gates, gates.new_tensor(extra).expand(*gates.shape[:2], -1)], -1)

    def scores(self, parameters: Parameters) -> Tensor:
        """The scores that the discretisation ranks, [groups, edges, operations of the space]; 0 for dropped ones."""
        return self.of_space(self.own_scores(parameters))

    def own_scores(self, parameters: Parameters) -> Tensor:
        """Scores of the operations that each edge has, [groups, edges, operations]."""
        return self._fix(self._gates.scores(parameters))

    def of_space(self, values: Tensor) -> Tensor:
        """Values of the operations that each edge has at their places in the space, zeros between them."""
        if self.kept is None:
            return values
        places = torch.tensor(self.kept, device=values.device)
        return values.new_zeros(*values.shape[:2], self.size).scatter(-1, places, values)

    def listed(self, values: Tensor) -> Any:
        """Values [groups, edges, operations] as nested lists, without those beyond a group's options."""
        nested = values.tolist()
        for group, number in zip(nested, self.shape.options, strict=False):
            group[:] = [row[:number] for row in group]
        return nested

    def links(self, parameters: Parameters) -> list[int | None] | None:
        """For each cell, the earlier cell whose link weighs most, or None if there is none; None without links."""
        if not self.shape.links:
            return None
        weights = self._gates.links(parameters, Progress()).tolist()
        sources = [of_cell[: num_sources(position)] for position, of_cell in enumerate(weights)]
        return [max(range(len(own)), key=own.__getitem__, default=None) for own in sources]

    def trained(self, parameters: Parameters, progress: Progress) -> dict[str, Tensor]:
        """Which values a step of the alphas may change, by name; of a name that is left out all of them."""
        return self._gates.trained(parameters, progress)

    @property
    def exact(self) -> bool:
        """Whether the gradient of gates that are drawn is that of the loss under this draw, not an estimate."""
        return self._gates.exact

    def weight(self, setting: RegulariserConfig, progress: Progress) -> float:
        """Weight of a term at this epoch of its stage."""
        share = progress.stage_epoch / progress.stage_epochs
        early = max(1 - 5 * share, 0.0)
        factors = {"constant": 1.0, "rising": share, "falling": 1.0 - share, "early": early}
        return setting.weight * factors[setting.schedule]

    def values(self, parameters: Parameters, progress: Progress) -> dict[str, Tensor]:
        """Weighted terms of each group, [groups], by name. If all groups have one loss, it has the mean of a term."""
        return {
            term.name: self._factor(term)
            * self.weight(setting, progress)
            * term.value(parameters, self._gates.gates(parameters, _seen(term, progress)))
            for term, setting in self.terms
        }

    def _factor(self, term: Regulariser) -> int:
        return self.share if term.summed else 1

    def pull(self, parameters: Parameters, progress: Progress, passes: int = 1) -> dict[str, Tensor]:
        """Gradient of the weighted terms by parameter, divided by a number of passes; empty without terms."""
        total: dict[str, Tensor] = {}
        for term, setting in self.terms:
            weight = self._factor(term) * self.weight(setting, progress) / self.share / passes
            found = term.gradient(parameters, partial(self._gates.gates, progress=_seen(term, progress)))
            for name, gradient in found.items():
                total[name] = total[name] + weight * gradient if name in total else weight * gradient
        return total
