"""A supernet between two epochs, for a plan of stages to measure on images of the alphas' split, and to decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .architecture import Architecture
from .methods.parts import Progress
from .supernet import Supernet, batch_statistics

Batch = tuple[Tensor, Tensor]


class Examination:
    """What `Plan.decide` looks at and changes; the network's weights and statistics stay as they are.

    Args:
        net: the supernet.
        architecture: of its gates.
        parameters: of the architecture by name; a plan may put other values in.
        memory: what the plan keeps for later, by name; a part of a checkpoint.
        progress: where the search is.
        stream: of this epoch's decisions, its own.
        batches: images of the alphas' split, in their order, or in that of a stream.
        begin: called before every pass.
    """

    def __init__(
        self,
        net: Supernet,
        architecture: Architecture,
        parameters: dict[str, Tensor],
        memory: dict[str, Tensor],
        progress: Progress,
        stream: torch.Generator,
        batches: Callable[[torch.Generator | None], Iterator[Batch]],
        begin: Callable[[], None],
    ) -> None:
        self.net = net
        self.architecture = architecture
        self.parameters = parameters
        self.memory = memory
        self.progress = progress
        self.stream = stream
        self._batches = batches
        self._begin = begin

    @property
    def gates(self) -> Tensor:
        """Of the operations that an edge chooses from, those that are fixed included: [groups, edges, operations]."""
        return self.architecture.own_gates(self.parameters, self.progress)

    @property
    def fixed(self) -> Tensor:
        """Gates that follow no parameter any more, NaN where they do; to be changed in place."""
        if self.architecture.fixed is None:
            self.architecture.fixed = torch.full_like(self.gates, float("nan"))
        return self.architecture.fixed

    def batch(self) -> Batch:
        """One batch, drawn from the stream."""
        return next(self._batches(self.stream))

    @torch.no_grad()
    def worth(self, gates: Tensor, batch: Batch | None = None) -> tuple[float, float]:
        """Accuracy and minus the mean cross entropy under some gates, normalised by the batch.

        Args:
            gates: as `gates`, with what is to be tried.
            batch: that they are measured on; None is all whole batches of the alphas' split.
        """
        correct = loss = torch.zeros((), dtype=torch.float64, device=gates.device)
        number = 0
        self.net.train()
        self.architecture.begin(self.net, self.progress)
        whole = self.architecture.extended(gates, self.progress)
        with batch_statistics(self.net):
            for images, labels in self._batches(None) if batch is None else [batch]:
                self._begin()
                logits = self.net(images, whole)
                correct = correct + (logits.argmax(1) == labels).sum()
                loss = loss + F.cross_entropy(logits, labels, reduction="sum")
                number += len(labels)
        return float(correct) / number, -float(loss) / number
