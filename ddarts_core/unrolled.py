"""The second-order alpha gradient of DARTS (Liu et al. 2019, eq. 7, 8), with momentum in the virtual step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .architecture import leaves_of
from .methods.parts import Parameters
from .supernet import Supernet

Batch = tuple[Tensor, Tensor]


def unrolled_gradient(
    net: Supernet,
    parameters: Parameters,
    batch: Batch,
    weight_batch: Batch,
    sgd: torch.optim.SGD,
    gates_of: Callable[[Parameters], Tensor],
    radius: float = 0.01,
) -> dict[str, Tensor]:
    """d L_val(w', alpha) / d alpha with w' = w - eta (mu v + grad L_train(w, alpha) + decay w).

    The product with the second derivative is a central difference:
    eta [grad_alpha L_train(w+, alpha) - grad_alpha L_train(w-, alpha)] / 2R, w+- = w +- R grad_w' L_val,
    R = radius / |grad_w' L_val|. The weights are put back exactly. DARTS' radius is coarse on a small or strongly
    curved network: there a smaller one, in float64, comes nearer to the derivative.

    Args:
        net: the supernet in train mode; running statistics must be off.
        parameters: of the architecture by name, detached.
        batch: images and labels of the alpha split.
        weight_batch: images and labels of the weight split.
        sgd: optimiser of the weights: its learning rate, momentum buffers and weight decay.
        gates_of: the gates as a function of the parameters.
        radius: length of the difference's step, 0.01 in DARTS.
    """
    weights = [weight for group in sgd.param_groups for weight in group["params"]]
    settings = sgd.param_groups[0]
    eta, momentum, decay = settings["lr"], settings["momentum"], settings["weight_decay"]
    start = [weight.detach().clone() for weight in weights]
    leaves = list(leaves_of(parameters).values())

    def gradients(images: Tensor, labels: Tensor, of_weights: bool) -> tuple[list[Tensor], list[Tensor]]:
        loss = F.cross_entropy(net(images, gates_of(dict(zip(parameters, leaves, strict=True)))), labels)
        found = torch.autograd.grad(loss, [*leaves, *weights] if of_weights else leaves)
        return list(found[: len(leaves)]), list(found[len(leaves) :])

    def place(direction: list[Tensor], factor: Tensor | float) -> None:
        with torch.no_grad():
            for weight, origin, step in zip(weights, start, direction, strict=True):
                weight.copy_(origin + factor * step)

    _, on_train = gradients(*weight_batch, of_weights=True)
    velocity = [sgd.state[weight].get("momentum_buffer") for weight in weights]
    virtual = [
        gradient + decay * origin + (0 if speed is None else momentum * speed)
        for gradient, origin, speed in zip(on_train, start, velocity, strict=True)
    ]
    try:
        place(virtual, -eta)
        direct, on_validation = gradients(*batch, of_weights=True)
        scale = radius / torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in on_validation]))
        place(on_validation, scale)
        plus, _ = gradients(*weight_batch, of_weights=False)
        place(on_validation, -scale)
        minus, _ = gradients(*weight_batch, of_weights=False)
    finally:
        with torch.no_grad():
            for weight, origin in zip(weights, start, strict=True):
                weight.copy_(origin)
    return {
        name: of_alphas - eta * (above - below) / (2 * scale)
        for name, of_alphas, above, below in zip(parameters, direct, plus, minus, strict=True)
    }
