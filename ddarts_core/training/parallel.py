"""Several processes train one network together: they divide every batch, and the result is that of one process.

Each process computes its share of each batch (`images.Share`). Values that depend on a whole batch are put together by
torch's process group, which is opened by the code that starts the processes. DistributedDataParallel puts the gradient
together, torch's SyncBatchNorm (on GPUs) or `SyncedBatchNorm` (elsewhere) the statistics of batch normalisation, and
`Group.total` sums.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ..data.images import Share
from ..networks.operations import BatchNorm
from ..tensors.once import differentiable_once

#: The statistics are equal already: none are sent before each step. torch 2.14 has renamed the argument.
_KEEP_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


Wrapped = TypeVar("Wrapped", bound=nn.Module)


@dataclass(frozen=True)
class Group:
    """The processes that compute each batch together. By default this process is alone.

    All processes of a group must ask for the same sums in the same order.

    Attributes:
        rank: the number of this process, from 0.
        count: how many processes there are.

    Example:
        >>> Group().total(torch.ones(2))
        tensor([1., 1.])
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Group:
        """Return the group of the process group that torch has open."""
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def share(self) -> Share:
        """The part of each batch that this process computes."""
        return Share(self.rank, self.count)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes. It is the same to the bit in all of them."""
        if self.count == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def gathered(self, value: Any) -> list[Any]:
        """Return the values that the processes brought, in the order of their ranks. They must be plain data."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def synchronised(self, network: Wrapped) -> Wrapped:
        """Return `network`, changed so that its batch normalisation sees whole batches from now on."""
        if self.count > 1 and next(network.parameters()).device.type == "cuda":
            return cast(Wrapped, nn.SyncBatchNorm.convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]  # torch
        if self.count > 1:
            synchronise(network)
        return network

    def distribute(self, network: nn.Module) -> nn.Module:
        """Return the module to train in place of `network`. It shares the parameters and statistics of `network`.

        Its batch normalisation sees whole batches. Its gradient is the mean of the gradients of the processes. To get
        the gradient of the mean loss over the batch, each process minimises
        (mean loss over its share) * (its share of the batch, as a fraction) * `count`.
        """
        if self.count == 1:
            return network
        network = self.synchronised(network)
        parameter = next(network.parameters())
        on_gpu = parameter.device.type == "cuda"
        # An operation that leads to no output has no gradient: it must not be waited for. With this on, gradients are
        # also added up in the same order in every step, without which a resumed training would round otherwise.
        return DistributedDataParallel(
            network,
            device_ids=[parameter.device] if on_gpu else None,
            find_unused_parameters=True,
            **_KEEP_BUFFERS,
        )


ALONE = Group()


def synchronise(network: nn.Module) -> None:
    """Replace every `BatchNorm` within `network` by a module that sees whole batches and has the same parameters."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if type(child) is BatchNorm:
                setattr(module, name, SyncedBatchNorm.of(child))


class SyncedBatchNorm(BatchNorm):
    """Batch normalisation with the statistics over the images of all processes together, on any device.

    Processes may hold different numbers of images, but each must hold at least one.
    """

    @classmethod
    def of(cls, norm: BatchNorm) -> SyncedBatchNorm:
        """Make a module that shares the parameters and the running statistics of `norm`: they are not copied."""
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced.weight, synced.bias = norm.weight, norm.bias
        synced.running_mean, synced.running_var = norm.running_mean, norm.running_var
        synced.num_batches_tracked = norm.num_batches_tracked
        return synced.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the features [images of this process, channels, height, width]."""
        if not self.training:
            return super().forward(input)
        mean, variance, number = _statistics(input.detach())
        running = self.running()
        if running:
            with torch.no_grad():
                unbiased = variance * (number / (number - 1))
                for statistic, new in zip(running, (mean, unbiased), strict=True):
                    statistic.lerp_(new.to(statistic), self.momentum)
                self.num_batches_tracked.add_(1)
        return _Normalise.apply(input, self.weight, self.bias, mean, variance, number, self.eps)  # type: ignore[no-any-return]  # apply is untyped


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the mean and the variance of each channel over all processes, and how many values a channel has.

    The means and the sums of squared deviations of the parts are combined as by Chan, Golub and LeVeque (1983), which
    avoids cancellation. float16 and bfloat16 are computed in float32.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    parts = torch.stack(found)
    numbers = parts[:, -1:]
    means, variances = parts[:, :-1].chunk(2, dim=1)
    number = numbers.sum()
    mean = (numbers * means).sum(0) / number
    squares = (numbers * (variances + (means - mean).square())).sum(0)
    return mean, squares / number, float(number)


class _Normalise(torch.autograd.Function):
    """Batch normalisation with given statistics, whose gradient takes into account that they depend on all images.

    The gradients of weight and bias are those of this process's images. They are added up over the processes later,
    together with the gradients of all other parameters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        number: float,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.number, ctx.eps = number, eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias.

        d x = scale * (g - mean of g - z * mean of g z), where z is the normalised x, g is the gradient of the output,
        and the means are over all processes.
        """
        x, weight, mean, variance = ctx.saved_tensors
        column = (slice(None), None, None)
        inverse = (variance + ctx.eps).rsqrt()
        wide = gradient.to(mean.dtype)
        z = (x.to(mean.dtype) - mean[column]) * inverse[column]
        own = torch.stack([wide.sum((0, 2, 3)), (wide * z).sum((0, 2, 3))])
        of_all = own.clone()
        dist.all_reduce(of_all)
        of_gradient, of_product = of_all / ctx.number
        scale = inverse if weight is None else inverse * weight
        to_x = scale[column] * (wide - of_gradient[column] - z * of_product[column])
        to_bias, to_weight = (None, None) if weight is None else own.to(weight.dtype)
        return to_x.to(x.dtype), to_weight, to_bias, None, None, None, None
