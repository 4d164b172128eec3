"""The network of the genotype, which is trained beside the supernet; one loss differentiates both (C-DARTS)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.sets import DataInfo
from ..genotypes.genotype import Genotype
from ..loops import distillation
from ..methods.parts import Beside
from ..networks.heads import HeadedNetwork
from ..settings.search_settings import SearchConfig
from ..tensors.optimisers import SGD
from ..tensors.seeding import seeded_init

Batch = tuple[Tensor, Tensor]


class Companion:
    """A network that is built anew from a genotype, and gets its weights from a pool.

    The pool keeps the weights of all networks before it.

    Args:
        beside: what the network is, and how it is trained.
        search: the settings of the supernet; the network has the same width, form, momentum, weight decay and
            clipping.
        info: the facts of the images.
        device: the device on which the network is trained.
        layout: the memory format of the network's weights.
        seed: the seed of weights that the pool does not have.
    """

    def __init__(
        self,
        beside: Beside,
        search: SearchConfig,
        info: DataInfo,
        device: torch.device,
        layout: torch.memory_format,
        seed: int,
    ) -> None:
        self.beside, self.search, self.info = beside, search, info
        self.device, self.layout, self.seed = device, layout, seed
        #: Weights and statistics of all networks so far, by their place (`places`).
        self.pool: dict[str, Tensor] = {}
        self.genotype: Genotype | None = None
        self.net: HeadedNetwork | None = None

    def begin(self, genotype: Genotype) -> None:
        """Put the weights back into the pool and build the network of a genotype from it, with a new optimiser."""
        self.keep()
        self._build(genotype)
        assert self.net is not None
        state = self.net.state_dict()
        for name, place in places(self.net.genotype, state).items():
            if place in self.pool and self.pool[place].shape == state[name].shape:
                state[name].copy_(self.pool[place])

    def keep(self) -> None:
        """Copy the weights into the pool."""
        if self.net is not None:
            state = self.net.state_dict()
            self.pool |= {place: state[name].clone() for name, place in places(self.net.genotype, state).items()}

    def _build(self, genotype: Genotype) -> None:
        self.genotype = genotype
        search, info = self.search, self.info
        with seeded_init(self.seed, "companion"):
            net = HeadedNetwork(
                genotype,
                search.channels,
                info.num_classes,
                info.channels,
                info.image_size,
                search.form,
                self.beside.cells,
            )
        self.net = net.to(self.device).to(memory_format=self.layout).train()
        self.sgd = SGD(self.weights, lr=self.beside.lr, momentum=search.momentum, weight_decay=search.weight_decay)

    @property
    def weights(self) -> list[nn.Parameter]:
        """The weights of the network that are trained."""
        assert self.net is not None
        return list(self.net.parameters())

    @property
    def buffers(self) -> list[Tensor]:
        """The statistics of the network."""
        assert self.net is not None
        return list(self.net.buffers())

    def loss(self, searched: Tensor, batch: Batch) -> Tensor:
        """The loss of a step of the alphas and of the network's own weights, given the supernet's logits."""
        assert self.net is not None
        images, labels = batch
        return distillation.joint(searched, self.net(images), labels, self.beside.weight, self.beside.temperature)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step of the network's weights."""
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        nn.utils.clip_grad_norm_(self.weights, self.search.grad_clip)
        self.sgd.step()
        self.sgd.zero_grad()

    def train_alone(self, batch: Batch) -> Tensor:
        """Take one step by the network's own cross entropy, and return this loss."""
        assert self.net is not None
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels)
        self.step(torch.autograd.grad(loss, self.weights))
        return loss.detach()

    def tensors(self) -> Iterable[Tensor]:
        """Everything that outlives a step."""
        yield from self.pool.values()
        if self.net is not None:
            yield from (*self.net.parameters(), *self.net.buffers())
            yield from (state["momentum_buffer"] for state in self.sgd.state.values() if state)

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on."""
        if self.genotype is None or self.net is None:
            return {"genotype": None, "pool": dict(self.pool)}
        return {
            "genotype": self.genotype.to_json(),
            "weights": self.net.state_dict(),
            "sgd": self.sgd.state_dict(),
            "pool": dict(self.pool),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.pool = {place: values.to(self.device) for place, values in state["pool"].items()}
        self.genotype = self.net = None
        if state["genotype"] is not None:
            self._build(Genotype.from_text(state["genotype"]))
            assert self.net is not None
            self.net.load_state_dict(state["weights"])
            self.sgd.load_state_dict(state["sgd"])


def places(genotype: Genotype, names: Iterable[str]) -> dict[str, str]:
    """The place of each weight of a network, which is the same in any network of this depth.

    The place of an operation's weight is its cell, its edge and the operation's name, whatever number the operation has
    in its cell. The place of any other weight is its name.

    Args:
        genotype: the individual genotype, as the network is built.
        names: the names of the network's weights and statistics.

    Example:
        >>> from ddarts_core.genotypes.genotype import Cell, Edge
        >>> cell = Cell((Edge(2, 1, "sep_conv_3x3"),), concat=(2,))
        >>> places(Genotype((cell,)), ["stem.0.weight", "cells.0.operations.0.1.weight"]).values()
        dict_values(['stem.0.weight', 'cells.0.1-2.sep_conv_3x3.1.weight'])
    """
    found = {}
    for name in names:
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "operations":
            edge = genotype.cells[int(parts[1])].edges[int(parts[3])]
            parts[2:4] = [f"{edge.source}-{edge.target}", edge.op]
        found[name] = ".".join(parts)
    return found
