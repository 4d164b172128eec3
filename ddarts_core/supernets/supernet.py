"""The supernet: mixed operations on edges, cells as acyclic graphs, a chain of cells (D-DARTS sections 3, 4.1).

Alphas are no parameters of these modules: every forward pass takes the gates, so that no optimiser of the weights can
reach an alpha. Cells of all methods are the same; which alphas a cell follows is one index map, `Supernet.group_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.sets import DataInfo
from ..genotypes.links import joined_width, num_sources
from ..genotypes.spaces import edge_list, operations_of
from ..ground.errors import UserError
from ..methods import EDGES, GATES, PLANS
from ..methods.parts import Kept
from ..networks.heads import Heads
from ..networks.links import joined
from ..networks.operations import BatchNorm, FactorizedReduce, ReLUConvBN, build_candidate
from ..networks.stem import Stem
from ..settings.search_settings import Removal, SearchConfig
from ..settings.warm_start import identical_groups, start_genotype
from ..tensors.hollow import is_hollow
from ..tensors.layout import layout_of
from .searched import SearchedNetwork


class MixedOp(nn.Module):
    """One edge: the sum of all operations of the space, each times its gate (eq. 1, 2)."""

    def __init__(self, names: Sequence[str], channels: int, stride: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.ops = nn.ModuleList(build_candidate(name, channels, stride) for name in names)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[batch, channels, height, width] and [operations] -> [batch, channels, height / stride, width / stride]."""
        mixed: Tensor = gates[0] * self.ops[0](x)
        for gate, op in zip(gates[1:], self.ops[1:], strict=True):
            mixed = mixed + gate * op(x)  # not addcmul, which autocast computes in float32 on a GPU
        return mixed


#: Computes an edge: the mixed operation, its input and its gates.
Mix = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass
class CellNotes:
    """What a cell's pass computed that does not depend on its gates, for passes of the same inputs to use again.

    Attributes:
        inputs: the preprocessed inputs of the cell by their numbers, 0 and 1.
        branches: by number of an input, the outputs of the operations on the edges that leave that input, in whatever
            order the form of the cell keeps them.
    """

    inputs: dict[int, Tensor] = field(default_factory=dict)
    branches: dict[int, list[list[Tensor | None]]] = field(default_factory=dict)

    def of(self, *numbers: int) -> CellNotes:
        """The notes on some inputs only, for a pass in which the others differ."""
        return CellNotes(
            {number: self.inputs[number] for number in numbers if number in self.inputs},
            {number: self.branches[number] for number in numbers if number in self.branches},
        )


class Cell(nn.Module):
    """A cell: two inputs, `steps` nodes that sum their incoming edges, the nodes' concatenation as output."""

    def __init__(
        self,
        names: Sequence[str],
        steps: int,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        after_reduction: bool,
        build_edge: Callable[[Sequence[str], int, int], nn.Module] = MixedOp,
        by_edge: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.steps = steps
        self.channels = channels
        self.reduction = reduction
        before = FactorizedReduce if after_reduction else ReLUConvBN
        self.preprocess0 = before(in_channels[0], channels, affine=False)
        self.preprocess1 = ReLUConvBN(in_channels[1], channels, affine=False)
        self.edge_list = edge_list(steps)
        self.edges = nn.ModuleList(
            build_edge(of_edge, channels, 2 if reduction and source < 2 else 1)
            for of_edge, (source, _) in zip(by_edge or [names] * len(self.edge_list), self.edge_list, strict=True)
        )

    def forward(self, s0: Tensor, s1: Tensor, gates: Tensor, mix: Mix = nn.Module.__call__) -> Tensor:
        """Outputs of the two cells before and [edges, operations] -> [batch, steps * channels, height, width].

        `mix` computes an edge, from the edge, its source node and its gates.
        """
        nodes = [self.preprocess0(s0), self.preprocess1(s1)]
        edge = 0
        for _ in range(self.steps):
            total = mix(self.edges[edge], nodes[0], gates[edge])
            for source in range(1, len(nodes)):
                total = total + mix(self.edges[edge + source], nodes[source], gates[edge + source])
            edge += len(nodes)
            nodes.append(total)
        return torch.cat(nodes[2:], dim=1)

    def preprocess(self, s0: Tensor, s1: Tensor, notes: CellNotes | None = None) -> list[Tensor]:
        """Both inputs at the width of the cell. Those that `notes` holds are taken from there, others are put there."""
        inputs = {} if notes is None else notes.inputs
        if 0 not in inputs:
            inputs[0] = self.preprocess0(s0)
        if 1 not in inputs:
            inputs[1] = self.preprocess1(s1)
        return [inputs[0], inputs[1]]

    def removed(self, s0: Tensor, s1: Tensor, removal: Removal, notes: CellNotes | None = None) -> Tensor:
        """What stands in for the removed cell's output: zeros, or the mean of its preprocessed inputs.

        The mean is average-pooled in a reduction cell and repeated for every node, so that shapes are kept.
        """
        if removal == "zero":
            height, width = (size // 2 if self.reduction else size for size in s1.shape[2:])
            zeros = s1.new_zeros(len(s1), self.steps * self.channels, height, width)
            return zeros.contiguous(memory_format=layout_of(s1))
        first, second = self.preprocess(s0, s1, notes)
        mean = (first + second) / 2
        if self.reduction:
            mean = F.avg_pool2d(mean, 2)
        return torch.cat([mean] * self.steps, dim=1)


class CellForm(Protocol):
    """A way to compute `Cell.forward`; one that can may take from `notes`, and put there, what no gate changes."""

    def __call__(self, cell: Cell, s0: Tensor, s1: Tensor, gates: Tensor, notes: CellNotes | None = None) -> Tensor:
        """Outputs of the two cells before and [edges, operations] -> [batch, steps * channels, height, width]."""
        ...


def readable(cell: Cell, s0: Tensor, s1: Tensor, gates: Tensor, notes: CellNotes | None = None) -> Tensor:
    """The form that reads like the equations: `Cell.forward` itself."""
    return cell(s0, s1, gates)  # type: ignore[no-any-return]  # nn.Module.__call__ returns Any


class Supernet(SearchedNetwork):
    """A chain of cells between a stem and a linear classifier.

    Args:
        config: the settings of the search, which give the space, the number of cells, their width and steps, the
            reductions, the sharing of alphas and the kind of edge.
        info: facts of the images: their channels, their size and their classes.
        kept: the numbers of the operations of the space that each edge has, [groups][edges][operations]; None means
            that every edge has all of them.

    Raises:
        UserError: a reduction would have to halve an odd size, or the images are too small for the reductions.

    Example:
        >>> info = DataInfo("digits", num_classes=10, channels=1, image_size=8, mean=(0.5,), std=(0.5,))
        >>> net = Supernet(SearchConfig(num_cells=3, channels=4, steps=2), info)
        >>> net(torch.zeros(2, 1, 8, 8), torch.full((3, 5, 7), 0.5)).shape
        torch.Size([2, 10])
    """

    def __init__(self, config: SearchConfig, info: DataInfo, kept: Kept | None = None) -> None:
        group_of = group_map(config)
        super().__init__(max(group_of) + 1, readable)
        self.group_of = group_of
        edge = EDGES[config.edge](config)
        names = (*operations_of(config.space), *edge.extra)
        reductions = config.reduction_positions
        _check_size(info.image_size, len(reductions) + Stem.halvings(config.form))
        width = config.channels
        self.stem = Stem(config.form, width, info.channels)
        self.cells = nn.ModuleList()
        #: Whether cells read one earlier cell beside the two before them.
        self.has_links = GATES[config.gates](config).has_links
        widths: list[int] = []  # of the cells' outputs
        before, last = self.stem.widths
        halved = self.stem.halves
        for position in range(config.num_cells):
            reduction = position in reductions
            width *= 2 if reduction else 1
            sources = widths[: num_sources(position)] if self.has_links else []
            self.cells.append(
                Cell(
                    names,
                    config.steps,
                    (max((joined_width(before, source) for source in sources), default=before), last),
                    width,
                    reduction=reduction,
                    after_reduction=halved,
                    build_edge=edge.build,
                    by_edge=None if kept is None else _named(kept[self.group_of[position]], names, edge.extra),
                )
            )
            before, last, halved = last, config.steps * width, reduction
            widths.append(last)
        if config.share_weights:
            self._share_weights(config.start)
        self.heads: Heads | None = None
        if PLANS[config.stages].has_heads:
            size = self.stem.output_size(info.image_size)
            inner = [position for position in reductions if position + 1 < config.num_cells]
            shapes = {position: (widths[position], size // 2 ** (k + 1)) for k, position in enumerate(inner)}
            self.heads = Heads(shapes, info.num_classes)
        self.head_norm = nn.Sequential(BatchNorm(last), nn.ReLU()) if config.head_norm else None
        self.classifier = nn.Linear(last, info.num_classes)

    def _share_weights(self, start: str | None) -> None:
        """Give cells of one group and width the weights of the first (D-DARTS 4.4 ii); each keeps its statistics.

        Raises:
            UserError: there are no two such cells.
        """
        first: dict[tuple[int, int, bool], Cell] = {}
        shared = False
        for group, cell in zip(self.group_of, self.cells, strict=True):
            assert isinstance(cell, Cell)
            owner = first.setdefault((group, cell.channels, cell.reduction), cell)
            if owner is cell:
                continue
            shared = True
            for name, weight in owner.edges.named_parameters():
                module, _, own = name.rpartition(".")
                setattr(cell.edges.get_submodule(module), own, weight)
        if not shared:
            raise UserError(
                f"search.share_weights: no two identical cells of search.start {start} have equal width, so that there "
                "is nothing to share: leave it out"
            )

    def answer(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits from what `outputs` gives: those of the classifier, with heads the mean of all."""
        logits = self.logits(outputs[-1])
        if self.heads is None:
            return logits
        with self.precision():
            return self.heads(outputs[2:], logits)  # type: ignore[no-any-return]  # nn.Module.__call__ returns Any

    def outputs(self, x: Tensor, gates: Tensor, notes: Sequence[CellNotes] | None = None) -> list[Tensor]:
        """Both inputs of the first cell and the output of every cell: cell k reads items k and k + 1, writes k + 2.

        Args:
            x: the images, [batch, channels, height, width].
            gates: the gates, [groups, edges, operations]; with links, rows of the weights of links follow the edges.
            notes: one empty `CellNotes` per cell, which this pass fills for `without`; they cost memory, not time.
        """
        of_groups = gates.unbind()
        with self.precision():
            outputs = list(self.stem(x))
        for k in range(len(self.cells)):
            note = None if notes is None else notes[k]
            s0 = self._linked(k, outputs, of_groups[self.group_of[k]]) if self.has_links else outputs[k]
            outputs.append(self.output(k, s0, outputs[k + 1], of_groups, note))
        return outputs

    def _linked(self, k: int, outputs: Sequence[Tensor], gates: Tensor) -> Tensor:
        """Input 0 of cell k: joined to the earlier cell of the largest weight, and the whole times that weight.

        Args:
            k: the cell.
            outputs: the two outputs of the stem, and the outputs of the cells before cell k.
            gates: the gates of the cell's edges, and behind them the weights of links (`Architecture.gates`).
        """
        number = num_sources(k)
        if not number:
            return outputs[k]
        weights = gates[len(self.cells[k].edges) :].flatten()[:number]  # type: ignore[arg-type]  # a ModuleList
        chosen = 0 if is_hollow(weights) else int(weights.argmax())
        with self.precision():
            return weights[chosen] * joined(outputs[k], outputs[2 + chosen])

    def output(
        self, k: int, s0: Tensor, s1: Tensor, gates: Tensor | Sequence[Tensor], note: CellNotes | None = None
    ) -> Tensor:
        """Output of cell k on its inputs s0 and s1.

        Args:
            k: the cell.
            s0: the first input of the cell, from `outputs`.
            s1: the second input of the cell.
            gates: the gates of all groups, [groups, edges, operations].
            note: the notes of the cell, which the form may use and fill; None keeps none.
        """
        cell: Cell = self.cells[k]  # type: ignore[assignment]  # ModuleList items are typed Module
        with self.precision():
            return self.form(cell, s0, s1, gates[self.group_of[k]], note)

    def logits(self, last: Tensor) -> Tensor:
        """Global average pooling and the classifier on the last cell's output."""
        if self.head_norm is not None:
            last = self.head_norm(last)
        return self.classifier(last.mean((2, 3), dtype=self.classifier.weight.dtype))  # type: ignore[no-any-return]  # nn.Module.__call__ returns Any

    def without(
        self,
        group: int,
        s0: Tensor,
        s1: Tensor,
        gates: Tensor,
        removal: Removal,
        noise: Tensor | None = None,
        notes: Sequence[CellNotes] | None = None,
    ) -> Tensor:
        """Logits of the network without the cells of a group (the set C without C_i of eq. 6).

        Cells before the first removed one are unchanged, so the pass starts there.

        Args:
            group: the group of alphas that is removed.
            s0: the first input of the first removed cell, from `outputs`.
            s1: the second input of the first removed cell.
            gates: the gates of all groups, [groups, edges, operations], which the cells that stay follow.
            removal: `identity` or `zero` replace the cell's output, `uniform` and `random` its gates.
            noise: the gates that replace those of the removed cells if the removal is `random`, [cells, edges,
                operations].
            notes: the notes of the full pass. They serve for both inputs of the first removed cell and for the first
                input of the next cell, which are as they were in the full pass.
        """
        first = self.group_of.index(group)
        with self.precision():
            for k in range(first, len(self.cells)):
                cell: Cell = self.cells[k]  # type: ignore[assignment]  # ModuleList items are typed Module
                known = None
                if notes is not None and k <= first + 1:
                    known = notes[k].of(0, 1) if k == first else notes[k].of(0)
                if self.group_of[k] != group:
                    out = self.form(cell, s0, s1, gates[self.group_of[k]], known)
                elif removal in ("identity", "zero"):
                    out = cell.removed(s0, s1, removal, known)
                elif removal == "uniform":
                    out = self.form(cell, s0, s1, torch.full_like(gates[group], 0.5), known)
                else:
                    assert noise is not None
                    out = self.form(cell, s0, s1, noise[k], known)
                s0, s1 = s1, out
        return self.logits(s1)


def _named(kept: Sequence[Sequence[int]], names: Sequence[str], extra: Sequence[str]) -> list[list[str]]:
    """Names of the operations of every edge."""
    return [[*(names[k] for k in of_edge), *extra] for of_edge in kept]


def of_cells(net: SearchedNetwork) -> Supernet:
    """The network itself, for what looks into cells and is refused where there are none."""
    assert isinstance(net, Supernet)
    return net


def group_map(config: SearchConfig) -> tuple[int, ...]:
    """The number of the group of alphas that each cell follows, by cell.

    Each cell has a group of its own (D-DARTS), or the group is 0 for normal and 1 for reduction cells (DARTS), or cells
    that are identical in the genotype that the search starts from share a group (DARTOpti).
    """
    if config.sharing == "own":
        return tuple(range(config.num_cells))
    if config.sharing == "identical":
        return identical_groups(start_genotype(config))
    return tuple(int(k in config.reduction_positions) for k in range(config.num_cells))


def _check_size(image_size: int, num_halvings: int) -> None:
    if image_size % 2**num_halvings or image_size < 2**num_halvings:
        raise UserError(
            f"images of {image_size} pixels cannot be halved {num_halvings} times: set data.image_size to a multiple "
            f"of {2**num_halvings}, or use fewer search.reductions"
        )


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Normalise by the batch and leave the running statistics alone: alpha and ablation passes must not move them."""
    every = net.norms if isinstance(net, SearchedNetwork) else net.modules()
    norms = [module for module in every if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False  # in training mode torch then neither reads nor moves them
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def frozen(net: SearchedNetwork, but: Sequence[Tensor] = ()) -> Iterator[None]:
    """Within the block no weights of a network but those in `but` get gradients.

    So the alpha step neither computes nor stores what the gradients of the other weights would need.
    """
    wanted = set(map(id, but))
    weights = [weight for weight in net.weights if weight.requires_grad and id(weight) not in wanted]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
