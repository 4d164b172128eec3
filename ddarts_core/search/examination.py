"""What a part may measure of a supernet: in a step of the weights, by its batch, and between epochs, to decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..methods.parts import Parameters, Progress
from ..supernets.searched import SearchedNetwork
from ..supernets.supernet import batch_statistics, frozen
from .architecture import Architecture

Batch = tuple[Tensor, Tensor]
Item = TypeVar("Item")


def probed(
    net: SearchedNetwork, architecture: Architecture, progress: Progress, batch: Batch, gates: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross entropy of a batch and its gradient by the gates, by running statistics, the weights standing still."""
    images, labels = batch
    leaf = gates.detach().requires_grad_()
    net.eval()
    with frozen(net):
        loss = F.cross_entropy(net(images, architecture.whole(leaf, progress)), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
    net.train()
    return loss.detach(), gradient


def weight_pass(
    net: SearchedNetwork,
    architecture: Architecture,
    parameters: Parameters,
    progress: Progress,
    batch: Batch,
    begin: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Logits and cross entropy in a step of the weights, under gates that may look at its batch first.

    Args:
        net: the supernet.
        architecture: the architecture that gives the supernet's gates.
        parameters: the parameters of the architecture by name.
        progress: where the search is.
        batch: images and labels.
        begin: a function that is called before a look at the batch.
    """

    def look(gates: Tensor) -> tuple[Tensor, Tensor]:
        begin()
        return probed(net, architecture, progress, batch, gates)

    images, labels = batch
    logits: Tensor = net(images, architecture.gates(parameters, progress, look))
    return logits, F.cross_entropy(logits, labels)


class Examination:
    """What `Plan.decide` looks at and changes; the network's weights and statistics stay as they are.

    Args:
        net: the supernet.
        architecture: the architecture that gives the supernet's gates.
        parameters: the parameters of the architecture by name; a plan may put other values in.
        memory: what the plan keeps for later, by name; it is a part of a checkpoint.
        progress: where the search is.
        stream: the random stream of this epoch's decisions.
        batches: a function that returns batches of the alphas' split, in their order or in that of a stream.
        begin: a function that is called before every pass.
    """

    def __init__(
        self,
        net: SearchedNetwork,
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
        """Gates of the operations that an edge chooses from, fixed ones included: [groups, edges, operations]."""
        return self.architecture.own_gates(self.parameters, self.progress)

    @property
    def fixed(self) -> Tensor:
        """Gates that follow no parameter any more; NaN for gates that do. A plan changes this tensor in place."""
        if self.architecture.fixed is None:
            self.architecture.fixed = torch.full_like(self.gates, float("nan"))
        return self.architecture.fixed

    def one_of(self, items: Sequence[Item]) -> Item:
        """One of several values, drawn from the stream."""
        return items[int(torch.randint(len(items), (), generator=self.stream, device=self.stream.device))]

    def batch(self) -> Batch:
        """One batch, drawn from the stream."""
        return next(self._batches(self.stream))

    @torch.no_grad()
    def worth(self, gates: Tensor, batch: Batch | None = None, number: int | None = None) -> tuple[float, float]:
        """Accuracy and minus the mean cross entropy under some gates, normalised by the batch.

        Args:
            gates: gates as in `gates`, with the change that is to be tried.
            batch: the batch on which they are measured; None measures on whole batches of the alphas' split.
            number: the number of these whole batches; None means all.
        """
        correct = loss = torch.zeros((), dtype=torch.float64, device=gates.device)
        images_seen = 0
        self.net.train()
        self.architecture.begin(self.net, self.progress)
        whole = self.architecture.extended(gates, self.progress)
        with batch_statistics(self.net):
            for images, labels in islice(self._batches(None), number) if batch is None else [batch]:
                self._begin()
                logits = self.net(images, whole)
                correct = correct + (logits.argmax(1) == labels).sum()
                loss = loss + F.cross_entropy(logits, labels, reduction="sum")
                images_seen += len(labels)
        return float(correct) / images_seen, -float(loss) / images_seen
