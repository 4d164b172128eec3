"""Own functions that autograd can differentiate once, and that raise an error when they are differentiated twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

Backward = Callable[..., Any]


def differentiable_once(backward: Backward) -> Backward:
    """A backward pass that refuses to be recorded for another one.

    torch's `once_differentiable` complains only if the second pass reaches its result. A product with a second
    derivative by other tensors (the alphas) never reaches it, and would silently lack the part that goes through this
    function.

    Raises:
        RuntimeError: gradients are computed with `create_graph`.
    """

    @wraps(backward)
    def once(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the fast form of a cell can be differentiated only once: use search.implementation readable for "
                "second derivatives"
            )
        return backward(ctx, *gradients)

    return once
