"""What a search asks of the network that it trains, whether or not this network is made of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from .supernet import CellForm, CellNotes


class SearchedNetwork(nn.Module):
    """A network that is computed from images and gates.

    Args:
        num_groups: number of groups of gates.
        form: how cells are computed; it has no effect on a network without cells.
    """

    def __init__(self, num_groups: int, form: CellForm) -> None:
        super().__init__()
        self.num_groups = num_groups
        #: How cells are computed: `execution.prepare` may put an equal, faster form here.
        self.form = form
        #: The context that the network is computed in: mixed precision enters here.
        self.precision: Callable[[], AbstractContextManager[object]] = nullcontext

    def train(self, mode: bool = True) -> SearchedNetwork:
        """As of any module, but a network that is in the mode already does not look for all its modules again."""
        return self if self.training == mode else super().train(mode)

    @cached_property
    def weights(self) -> list[nn.Parameter]:
        """All weights, found once: the network must be complete, and on its device."""
        return list(self.parameters())

    @cached_property
    def norms(self) -> list[_BatchNorm]:
        """All batch normalisations, found once."""
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Images [batch, channels, height, width] and gates [groups, rows, options] -> logits [batch, classes]."""
        return self.answer(self.outputs(x, gates))

    def outputs(self, x: Tensor, gates: Tensor, notes: Sequence[CellNotes] | None = None) -> list[Tensor]:
        """What the network computes in turn, of which `answer` makes the logits.

        Args:
            x: the images, [batch, channels, height, width].
            gates: the gates, [groups, rows, options].
            notes: one empty `CellNotes` for each cell, which this pass fills; None where nothing is removed later.
        """
        raise NotImplementedError

    def answer(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits [batch, classes] from what `outputs` gives."""
        raise NotImplementedError

    def expected(self, quantity: str, gates: Tensor) -> Tensor:
        """What a genotype costs on average if the gates are the probabilities of its options; differentiable.

        Args:
            quantity: one of what the part of the network names as `methods.searched_network.Network.costs`.
            gates: the gates, [groups, rows, options].
        """
        raise NotImplementedError
