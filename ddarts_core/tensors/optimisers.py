"""torch's SGD and Adam without torch's compiler, whose import takes as long as that of torch itself.

torch.optim imports the compiler only to say that the methods of its optimisers are not to be compiled. Here the methods
are taken as they were written. A search that compiles (`search.compile`) compiles edges of the supernet, and never an
optimiser.
"""

from __future__ import annotations

from inspect import unwrap

import torch


class _Plain(torch.optim.Optimizer):
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)


class SGD(_Plain, torch.optim.SGD):
    """`torch.optim.SGD`, bit for bit.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> weight.grad = torch.ones(1)
        >>> SGD([weight], lr=0.5).step()
        >>> weight.item()
        0.5
    """

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class Adam(_Plain, torch.optim.Adam):
    """`torch.optim.Adam`, bit for bit.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> weight.grad = torch.ones(1)
        >>> Adam([weight], lr=0.5).step()
        >>> round(weight.item(), 6)
        0.5
    """

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
