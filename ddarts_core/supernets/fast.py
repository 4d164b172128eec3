"""The cell of `supernet.Cell` with its shared work done once: the same function of the same weights.

A node is the sum of gate * norm(branch(source)) over the edges that enter it and their operations; `Cell.forward`
computes it in that order. Here, for every source node:

- its ReLU, its pools and their normalisation are computed once for all edges that leave it;
- a gate is the scale of an operation's last normalisation: gate * norm(z) is one pass over z, and z alone is kept;
- a separable half (ReLU, depthwise, pointwise) keeps its input only and repeats what its gradient needs.

Edges that leave a node can run merged, as one convolution of stacked channels, which takes the fewest kernels, or each
alone, on tensors that a CPU's cache can hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.fused import Concatenate
from ..networks.operations import (
    BatchNorm,
    Conv2d,
    FactorizedReduce,
    Identity,
    Normalised,
    NormalisedPool,
    ReLUConvBN,
    Separable,
    Zero,
)
from ..networks.separable import normalised_separable, rectified_pointwise, separable, sum_of_edges
from ..tensors.devices import sums_slowly
from ..tensors.once import differentiable_once
from .supernet import Cell, CellNotes, MixedOp, readable

#: Operations whose gate is folded into the normalisation that ends them.
_NORMALISED = (FactorizedReduce, Normalised)

#: Per operation: the outputs of a bundle of edges, [batch, edges * channels, h, w], before the normalisation that ends
#: the operation, if any; [batch, channels, h, w] where all edges share one output; None for the zero operation.
Branches = list[Tensor | None]


class FastForm:
    """Computes cells; a value for `Supernet.form`.

    Args:
        merge_bytes: the largest stacked input, in bytes, of edges that leave a node and run merged; edges with a larger
            one run each alone.

    Example:
        >>> cell = Cell(("skip_connect", "sep_conv_3x3"), 2, (4, 4), 4, reduction=False, after_reduction=False)
        >>> x, gates = torch.randn(2, 4, 6, 6), torch.rand(5, 2)
        >>> torch.allclose(FastForm(merge_bytes=0)(cell, x, x, gates), cell(x, x, gates), atol=1e-5)
        True
    """

    def __init__(self, merge_bytes: float) -> None:
        self.merge_bytes = merge_bytes
        self._plans: WeakKeyDictionary[Cell, _CellPlan | None] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy belongs to other cells."""
        return FastForm, (self.merge_bytes,)

    def _plan(self, cell: Cell) -> _CellPlan | None:
        """The plan of a cell; None if an edge is not a plain sum of operations of known kinds."""
        if cell not in self._plans:
            knows = all(type(edge) is MixedOp and all(map(_is_known, edge.ops)) for edge in cell.edges)
            self._plans[cell] = _CellPlan(cell) if knows else None
        return self._plans[cell]

    def __call__(self, cell: Cell, s0: Tensor, s1: Tensor, gates: Tensor, notes: CellNotes | None = None) -> Tensor:
        """`Cell.forward`; branches of the two inputs, which no gate changes, are taken from `notes` or put there."""
        plan = self._plan(cell)
        if plan is None:
            return readable(cell, s0, s1, gates)
        nodes = _preprocess(cell, s0, s1, notes)
        totals: list[Tensor | None] = [None] * cell.steps
        scales = gates.unsqueeze(-1).expand(-1, -1, cell.channels).contiguous().unbind()
        work = _CellPass(cell.training)
        for source, (merged, alone) in enumerate(zip(plan.merged, plan.alone, strict=True)):
            leaving = merged if nodes[source].nbytes * len(alone.bundles) <= self.merge_bytes else alone
            known = {} if notes is None or source > 1 else notes.branches
            if source not in known:
                known[source] = work.leave(nodes[source], leaving)
            for bundle, branches in zip(leaving.bundles, known[source], strict=True):
                mixed = work.mix(bundle, branches, _stack([scales[edge] for edge in bundle.edges]).unbind())
                parts = mixed.chunk(len(bundle.edges), dim=1) if len(bundle.edges) > 1 else (mixed,)
                for edge, part in zip(bundle.edges, parts, strict=True):
                    target = cell.edge_list[edge][1] - 2
                    total = totals[target]
                    totals[target] = part if total is None else total + part
            if source:  # every edge into the next node has now been added
                node = totals[source - 1]
                assert node is not None
                nodes.append(node)
        work.count_batches()
        output: Tensor = Concatenate.apply(*nodes[2:])
        return output


def _preprocess(cell: Cell, s0: Tensor, s1: Tensor, notes: CellNotes | None) -> list[Tensor]:
    """`Cell.preprocess`; keeps the cells' outputs themselves and takes their ReLU again in the backward pass."""
    inputs = {} if notes is None else notes.inputs
    for number, (before, x) in enumerate(((cell.preprocess0, s0), (cell.preprocess1, s1))):
        if number not in inputs:
            if isinstance(before, ReLUConvBN):
                weight: Tensor = before[1].weight  # type: ignore[assignment]  # Sequential items are typed Module
                inputs[number] = before[2](rectified_pointwise(x, weight))
            else:
                inputs[number] = before(x)
    return [inputs[0], inputs[1]]


class _Halves:
    """The separable halves of an operation on stacked edges.

    Attributes:
        convolutions: the depthwise and the pointwise convolutions of each half in turn, each of every edge.
        norms: the normalisations between two halves, of every edge; empty if there is one half.
        stride: the stride of the first depthwise convolution.
        dilation: its dilation.
    """

    def __init__(self, ops: Sequence[Separable]) -> None:
        modules: list[tuple[Any, ...]] = list(zip(*ops, strict=True))
        self.convolutions: list[tuple[Conv2d, ...]] = [modules[i] for i in range(len(modules)) if i % 4 in (1, 2)]
        self.norms: tuple[BatchNorm, ...] = modules[3] if len(modules) > 4 else ()
        _, self.stride, self.dilation = _first_of(self.convolutions[0][0])

    def weights(self) -> list[Tensor]:
        """The weights of `convolutions`, stacked."""
        return [_stack([conv.weight for conv in of_edges], dim=0) for of_edges in self.convolutions]


class _Bundle:
    """Edges that leave one node and are computed together, as they have the same operations.

    Attributes:
        edges: the numbers of the edges.
        operations: for each operation of an edge, that of every edge.
        kinds: the class of each operation.
        norms: for each operation the normalisations that end it, if a gate can be folded into them; else none.
        halves: the parts of each separable operation, by its place.
    """

    def __init__(self, cell: Cell, edges: Sequence[int]) -> None:
        self.edges = edges
        mixed: list[Any] = [cell.edges[edge] for edge in edges]
        self.names: tuple[str, ...] = mixed[0].names
        self.operations: list[tuple[Any, ...]] = list(zip(*(edge.ops for edge in mixed), strict=True))
        self.kinds = [type(ops[0]) for ops in self.operations]
        self.norms: list[list[BatchNorm]] = [
            [op.last_norm for op in ops] if isinstance(ops[0], _NORMALISED) else [] for ops in self.operations
        ]
        self.halves = {
            k: _Halves(ops)
            for k, (kind, ops) in enumerate(zip(self.kinds, self.operations, strict=True))
            if kind is Separable
        }


class _Leaving:
    """All edges that leave a node.

    Attributes:
        bundles: the edges in bundles.
        pools: the places (bundle, operation) of pools that compute the same.
    """

    def __init__(self, cell: Cell, bundles: Iterable[Sequence[int]]) -> None:
        self.bundles = [_Bundle(cell, edges) for edges in bundles]
        places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, bundle in enumerate(self.bundles):
            for k, (name, kind) in enumerate(zip(bundle.names, bundle.kinds, strict=True)):
                if kind is NormalisedPool:
                    places[name].append((number, k))
        self.pools = list(places.values())


class _CellPlan:
    """What of a cell's passes follows from its modules alone, found once.

    To look modules up in every pass would take as long as small convolutions do.

    Attributes:
        alone: by source node its edges, each alone.
        merged: by source node its edges, those with the same operations in one bundle.
    """

    def __init__(self, cell: Cell) -> None:
        self.alone: list[_Leaving] = []
        self.merged: list[_Leaving] = []
        for source in range(cell.steps + 1):
            alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
            edges = [edge for edge, (start, _) in enumerate(cell.edge_list) if start == source]
            for edge in edges:
                alike[cell.edges[edge].names].append(edge)  # type: ignore[index]  # ModuleList items are typed Module
            self.alone.append(_Leaving(cell, [[edge] for edge in edges]))
            self.merged.append(_Leaving(cell, alike.values()))


class _CellPass:
    """One pass through a cell; remembers which normalisations moved their running statistics."""

    def __init__(self, training: bool) -> None:
        self.training = training
        self.moved: list[BatchNorm] = []

    def leave(self, x: Tensor, leaving: _Leaving) -> list[Branches]:
        """Outputs of all operations on a source node, per bundle of its edges."""
        active = F.relu(x)
        pools = self._pools(x, leaving)
        result = []
        for number, bundle in enumerate(leaving.bundles):
            stacked = _stack([active.detach()] * len(bundle.edges))
            branches: Branches = []
            for k, kind in enumerate(bundle.kinds):
                if kind is Zero:
                    branches.append(None)
                elif kind is NormalisedPool:
                    branches.append(pools[number, k])
                elif kind is Identity:
                    branches.append(x)
                elif kind is Separable:
                    branches.append(self._separable(active, stacked, bundle.halves[k]))
                else:
                    branches.append(_stack([op.before_norm(active) for op in bundle.operations[k]]))
            result.append(branches)
        return result

    def mix(self, bundle: _Bundle, branches: Branches, scales: Sequence[Tensor]) -> Tensor:
        """Sum of gate * normalised branch over the operations of a bundle of edges.

        Args:
            bundle: the edges.
            branches: the outputs of the operations on these edges.
            scales: the gates of each operation, one per channel of every edge.
        """
        total: Tensor | None = None
        shared = []
        for branch, scale, norms in zip(branches, scales, bundle.norms, strict=True):
            if branch is None:
                continue
            if norms:
                term = self._normalise(branch, norms, scale)
                total = term if total is None else total.add_(term)
            else:
                shared.append((branch, scale.to(branch.dtype)))
        for branch, scale in shared:
            total = _add_scaled(total, branch, scale, len(bundle.edges))
        assert total is not None
        return total

    def count_batches(self) -> None:
        """`num_batches_tracked` of what moved in this pass."""
        counts = [norm.num_batches_tracked for norm in self.moved]
        if counts:
            torch._foreach_add_(counts, 1)

    def _pools(self, x: Tensor, leaving: _Leaving) -> dict[tuple[int, int], Tensor]:
        """Outputs of the pools, by bundle and place in its edges: those of one name are one pool."""
        found: dict[tuple[int, int], Tensor] = {}
        for same in leaving.pools:
            pooled = self._pool(x, [leaving.bundles[number].operations[k] for number, k in same])
            found.update(zip(same, pooled, strict=True))
        return found

    def _pool(self, x: Tensor, ops: Sequence[Sequence[Any]]) -> list[Tensor]:
        """A pool of a node, normalised, per bundle: all edges share one, unless they read running statistics."""
        pooled = ops[0][0][0](x)
        if not self.training:
            return [_stack([op[1](pooled) for op in of_bundle]) for of_bundle in ops]
        norms: list[BatchNorm] = [op[1] for of_bundle in ops for op in of_bundle]
        first, *others = norms
        running = first.running()
        before = [statistic.clone() for statistic in running]
        shared = _batch_norm(pooled, running, None, first, training=True)
        self.moved += norms if running else []
        if running and others:
            keep = 1 - first.momentum
            for i, (old, new) in enumerate(zip(before, running, strict=True)):
                statistics = [norm.running()[i] for norm in others]
                torch._foreach_mul_(statistics, keep)
                torch._foreach_add_(statistics, [new - keep * old] * len(others))
        return [shared] * len(ops)

    def _separable(self, x: Tensor, stacked: Tensor, halves: _Halves) -> Tensor:
        """ReLU'd input through the separable halves of stacked edges, up to the last normalisation."""
        weights, norms = halves.weights(), halves.norms
        z = separable(x, weights[0], weights[1], halves.stride, halves.dilation, stacked)
        if not norms:
            return z
        if not self.training:
            return separable(F.relu(self._normalise(z, norms, None)), weights[2], weights[3], 1, 1)
        with _Running(self, norms) as running:
            return normalised_separable(z, weights[2], weights[3], running, norms[0].momentum, norms[0].eps)

    def _normalise(self, x: Tensor, norms: Sequence[BatchNorm], scale: Tensor | None) -> Tensor:
        with _Running(self, norms) as running:
            return _batch_norm(x, running, scale, norms[0], self.training)


class _Running:
    """Running statistics of stacked normalisations as one mean and one variance; put back into their owners after."""

    def __init__(self, work: _CellPass, norms: Sequence[BatchNorm]) -> None:
        self.work = work
        self.norms = norms
        self.stacked = [_stack(statistics, dim=0) for statistics in self._of_owners()]

    def _of_owners(self) -> list[tuple[Tensor, ...]]:
        return list(zip(*(norm.running() for norm in self.norms), strict=True))

    def __enter__(self) -> list[Tensor]:
        return self.stacked

    def __exit__(self, *error: object) -> None:
        if not self.work.training or not self.stacked:
            return
        self.work.moved += self.norms
        if len(self.norms) > 1:
            for owners, stacked in zip(self._of_owners(), self.stacked, strict=True):
                torch._foreach_copy_(list(owners), list(stacked.chunk(len(owners))))


def _stack(tensors: Sequence[Tensor], dim: int = 1) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def _add_scaled(total: Tensor | None, branch: Tensor, scale: Tensor, edges: int) -> Tensor:
    """Total + scale * branch, a shared branch once for every edge; `scale` is one factor per channel of every edge."""
    if edges == 1 or branch.shape[1] == len(scale):
        factor = scale.view(1, -1, 1, 1)
        return branch * factor if total is None else total.addcmul_(branch, factor)
    if total is not None and sums_slowly(branch):
        return _AddShared.apply(total, branch, scale, edges)  # type: ignore[no-any-return]  # apply returns Any
    branch, factor = branch.unsqueeze(1), scale.view(1, edges, -1, 1, 1)
    if total is None:
        return (branch * factor).flatten(1, 2)
    by_edge: Tensor = total.unflatten(1, (edges, -1))  # type: ignore[no-untyped-call]  # untyped in torch
    return torch.addcmul(by_edge, branch, factor).flatten(1, 2)


class _AddShared(torch.autograd.Function):
    """Adds scale * branch to the total, of a branch that edges share.

    On a CPU torch takes several times as long where edges and channels are dimensions of their own.
    """

    @staticmethod
    def forward(ctx: Any, total: Tensor, branch: Tensor, scale: Tensor, edges: int) -> Tensor:
        ctx.save_for_backward(branch if ctx.needs_input_grad[2] else None, scale)
        ctx.edges = edges
        ctx.mark_dirty(total)
        return total.addcmul_(_stack([branch] * edges), scale.view(1, -1, 1, 1))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        branch, scale = ctx.saved_tensors
        to_branch = to_scale = None
        if ctx.needs_input_grad[1]:
            # contiguous, as torch's sum leaves it: normalisations round otherwise in another layout
            to_branch = sum_of_edges(gradient * scale.view(1, -1, 1, 1), ctx.edges).contiguous()
        if ctx.needs_input_grad[2]:
            to_scale = (gradient * _stack([branch] * ctx.edges)).sum((0, 2, 3))
        return gradient, to_branch, to_scale, None


def _batch_norm(x: Tensor, running: Sequence[Tensor], scale: Tensor | None, norm: BatchNorm, training: bool) -> Tensor:
    mean, variance = running if running else (None, None)
    return F.batch_norm(x, mean, variance, scale, None, training, norm.momentum, norm.eps)


# --- operations that this form computes; a cell with another one is left to the readable form -----------------------


def _is_known(op: nn.Module) -> bool:
    """Whether an operation is made of what is computed here, and of nothing else.

    A subclass may do something else, and so may modules in another order, as a user's own operation may have them.
    """
    if type(op) is FactorizedReduce:
        return _is_plain(op.norm)
    if type(op) is NormalisedPool:
        return type(op[0]) in (nn.MaxPool2d, nn.AvgPool2d) and _is_plain(op[1])
    if type(op) is Normalised:
        return len(op) > 1 and type(op[0]) is nn.ReLU and _is_plain(op[-1])
    if type(op) is Separable:
        return len(op) in (4, 8) and all(_is_half(*op[i : i + 4], first=i == 0) for i in range(0, len(op), 4))
    return type(op) in (Zero, Identity)


def _is_plain(norm: nn.Module) -> bool:
    """Whether a normalisation is ours, without weights of its own."""
    return type(norm) is BatchNorm and not norm.affine


def _is_half(relu: nn.Module, depthwise: nn.Module, pointwise: nn.Module, norm: nn.Module, *, first: bool) -> bool:
    """Whether four modules are a half of `operations.Separable`; its second one has stride and dilation 1."""
    if not (isinstance(depthwise, Conv2d) and isinstance(pointwise, Conv2d)):
        return False
    width, kernel, stride, dilation = depthwise.in_channels, *_first_of(depthwise)
    keeps_size = kernel % 2 == 1 and (first or stride == dilation == 1)
    return (
        type(relu) is nn.ReLU
        and keeps_size
        and _is_convolution(depthwise, width, kernel, stride, dilation, groups=width)
        and _is_convolution(pointwise, width, 1, 1, 1, groups=1)
        and _is_plain(norm)
    )


def _first_of(conv: nn.Conv2d) -> tuple[int, int, int]:
    return conv.kernel_size[0], conv.stride[0], conv.dilation[0]


def _is_convolution(conv: nn.Conv2d, width: int, kernel: int, stride: int, dilation: int, groups: int) -> bool:
    """Whether a convolution is square, has no bias, keeps the width, and pads with zeros to keep the size at stride 1.

    Its kernel, stride, dilation and groups must be the given ones.
    """
    square = (conv.kernel_size, conv.stride, conv.dilation) == ((kernel,) * 2, (stride,) * 2, (dilation,) * 2)
    padded = (conv.padding, conv.padding_mode) == ((dilation * (kernel // 2),) * 2, "zeros")
    return square and padded and conv.groups == groups and conv.bias is None and conv.out_channels == width
