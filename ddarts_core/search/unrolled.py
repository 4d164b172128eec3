"""The second-order alpha gradient of DARTS (Liu et al. 2019, eq. 7, 8), with momentum in the virtual step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..methods.parts import Parameters
from ..settings.search_settings import Hessian
from ..supernets.searched import SearchedNetwork
from ..supernets.supernet import readable
from .architecture import leaves_of

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Bilevel:
    """One alpha step that takes the coming weight step into account.

    Attributes:
        net: the supernet in training mode; its running statistics must be off.
        parameters: the architecture parameters, detached.
        batch: images and labels of the alpha split.
        weight_batch: images and labels of the weight split.
        sgd: the optimiser of the weights, which gives learning rate, momentum buffers and weight decay.
        gates_of: the gates as a function of the parameters.
    """

    net: SearchedNetwork
    parameters: Parameters
    batch: Batch
    weight_batch: Batch
    sgd: torch.optim.SGD
    gates_of: Callable[[Parameters], Tensor]

    def first(self, number: int) -> Bilevel:
        """The same alpha step with only the first images of both batches."""
        (x, y), (x2, y2) = self.batch, self.weight_batch
        return replace(self, batch=(x[:number], y[:number]), weight_batch=(x2[:number], y2[:number]))

    def gradient(self, hessian: Hessian = "finite", radius: float = 0.01) -> dict[str, Tensor]:
        """d L_val(w', alpha) / d alpha with w' = w - eta (mu v + grad L_train(w, alpha) + decay w).

        It is grad_alpha L_val(w', alpha) - eta P with P the product of the second derivative of L_train by alpha and w
        with d = grad_w' L_val, which `finite_product` approaches and `exact_product` computes. The weights are put
        back exactly.

        Args:
            hessian: `exact` needs the readable form of cells.
            radius: the radius of `finite_product`.
        """
        direct, direction = self._after_virtual_step()
        eta = self.sgd.param_groups[0]["lr"]
        if hessian == "exact":
            second = [eta * product for product in self.exact_product(direction)]
        else:
            second = self.finite_product(direction, radius, eta)
        return {name: first - part for name, first, part in zip(self.parameters, direct, second, strict=True)}

    def finite_product(self, direction: Sequence[Tensor], radius: float = 0.01, factor: float = 1.0) -> list[Tensor]:
        """P times a factor, as DARTS has it: [grad_alpha L(w + R d) - grad_alpha L(w - R d)] / 2R, R = radius / |d|.

        DARTS' radius 0.01 is coarse on a small or strongly curved network: see `product_error`.

        Args:
            direction: d, by weight.
            radius: length of the step.
            factor: of the result.

        Returns:
            One tensor for each of `parameters`.
        """
        scale = radius / torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in direction]))
        with self._weights_back() as start:
            self._place(start, direction, scale)
            plus, _ = self._gradients(self.weight_batch)
            self._place(start, direction, -scale)
            minus, _ = self._gradients(self.weight_batch)
        return [factor * (above - below) / (2 * scale) for above, below in zip(plus, minus, strict=True)]

    def exact_product(self, direction: Sequence[Tensor]) -> list[Tensor]:
        """P by double backward (Pearlmutter 1994): the gradient of grad_w L . d by alpha, with d held constant.

        Args:
            direction: d, by weight.

        Returns:
            One tensor for each of `parameters`.
        """
        leaves = leaves_of(self.parameters)
        by_weights = torch.autograd.grad(
            self._loss(leaves, self.weight_batch), self._weights, create_graph=True, materialize_grads=True
        )
        ends = [(first, d) for first, d in zip(by_weights, direction, strict=True) if first.requires_grad]
        firsts, directions = ([end[k] for end in ends] for k in (0, 1))
        return list(torch.autograd.grad(firsts, list(leaves.values()), directions, materialize_grads=True))

    def products(self) -> tuple[Tensor, Tensor]:
        """P_exact and P_finite, each flattened; for this the cells are computed in the readable form."""
        form, self.net.form = self.net.form, readable
        try:
            _, direction = self._after_virtual_step()
            return _joined(self.exact_product(direction)), _joined(self.finite_product(direction))
        finally:
            self.net.form = form

    def product_error(self) -> float:
        """|P_finite - P_exact| / |P_exact|: above 1 the gradient of the first order, which has no P, is nearer."""
        exact, finite = self.products()
        size = float(torch.linalg.vector_norm(exact))
        return float(torch.linalg.vector_norm(finite - exact)) / size if size else math.inf

    @property
    def _weights(self) -> list[Tensor]:
        return [weight for group in self.sgd.param_groups for weight in group["params"]]

    def _after_virtual_step(self) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of L_val at w' by the parameters and by the weights."""
        settings = self.sgd.param_groups[0]
        _, on_train = self._gradients(self.weight_batch, of_weights=True)
        velocity = [self.sgd.state[weight].get("momentum_buffer") for weight in self._weights]
        with self._weights_back() as start:
            virtual = [
                gradient + settings["weight_decay"] * origin + (0 if speed is None else settings["momentum"] * speed)
                for gradient, origin, speed in zip(on_train, start, velocity, strict=True)
            ]
            self._place(start, virtual, -settings["lr"])
            return self._gradients(self.batch, of_weights=True)

    def _loss(self, parameters: Parameters, batch: Batch) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images, self.gates_of(parameters)), labels)

    def _gradients(self, batch: Batch, of_weights: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        leaves = leaves_of(self.parameters)
        by = [*leaves.values(), *(self._weights if of_weights else [])]
        # Weights of operations that gates leave out have no part in the loss: their gradient is 0.
        found = torch.autograd.grad(self._loss(leaves, batch), by, materialize_grads=True)
        return list(found[: len(leaves)]), list(found[len(leaves) :])

    @contextmanager
    def _weights_back(self) -> Iterator[list[Tensor]]:
        """Yields copies of the weights, which are put back at the end."""
        start = [weight.detach().clone() for weight in self._weights]
        try:
            yield start
        finally:
            with torch.no_grad():
                for weight, origin in zip(self._weights, start, strict=True):
                    weight.copy_(origin)

    @torch.no_grad()
    def _place(self, start: Sequence[Tensor], direction: Sequence[Tensor], factor: Tensor | float) -> None:
        for weight, origin, step in zip(self._weights, start, direction, strict=True):
            weight.copy_(origin + factor * step)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
