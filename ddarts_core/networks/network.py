"""A genotype as a trainable network: stem, cells, classifier, auxiliary head and drop-path (D-DARTS section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ..genotypes.derive import DEPTH, OnDeadCell, Order, arrange
from ..genotypes.genotype import Cell, Genotype
from ..genotypes.links import joined_width
from ..genotypes.shapes import Form, auxiliary_position, check_sizes
from ..ground.errors import UserError
from .derived import DerivedNetwork, DropPath, auxiliary_head_of
from .links import joined
from .operations import FactorizedReduce, Identity, ReLUConvBN, build
from .stem import Stem

DropPathUnit = Literal["operation", "node"]


class CellNetwork(nn.Module):
    """One cell with fixed operations.

    Inputs are the outputs of the cell before the last and of the last cell; both are fitted to the cell's width.
    The output concatenates the cell's nodes: [batch, len(cell.concat) * channels, height, width].
    """

    def __init__(
        self,
        cell: Cell,
        before_last: int,
        last: int,
        channels: int,
        *,
        reduction: bool,
        halve_first: bool,
        drop_path: DropPath,
        drop_path_unit: DropPathUnit,
    ) -> None:
        super().__init__()
        fit = FactorizedReduce if halve_first else ReLUConvBN
        self.preprocess = nn.ModuleList([fit(before_last, channels), ReLUConvBN(last, channels)])
        self.operations = nn.ModuleList(
            build(edge.op, channels, 2 if reduction and edge.source < 2 else 1, True) for edge in cell.edges
        )
        self.drop_path = drop_path
        self.per_node = drop_path_unit == "node"
        self.edges = tuple((edge.source, edge.target) for edge in cell.edges)
        self.concat = cell.concat

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Output of the cell; edges are summed in the order of the genotype."""
        return self.dropped_by(self.drop_path, before_last, last)

    def dropped_by(self, drop: Callable[[Tensor], Tensor], before_last: Tensor, last: Tensor) -> Tensor:
        """Output of the cell, of whose paths samples are dropped by `drop`, which is called once for each path."""
        nodes: dict[int, Tensor] = {0: self.preprocess[0](before_last), 1: self.preprocess[1](last)}
        sums: dict[int, Tensor] = {}
        for (source, target), operation in zip(self.edges, self.operations, strict=True):
            if source not in nodes:
                nodes[source] = drop(sums[source]) if self.per_node else sums[source]
            value = operation(nodes[source])
            if not self.per_node and not isinstance(operation, Identity):
                value = drop(value)
            sums[target] = sums[target] + value if target in sums else value
        for target in self.concat:
            if target not in nodes:
                nodes[target] = drop(sums[target]) if self.per_node else sums[target]
        return torch.cat([nodes[target] for target in self.concat], dim=1)

    @property
    def num_paths(self) -> int:
        """How many paths drop-path may drop: nodes that are read, or operations other than identities."""
        if self.per_node:
            return len({source for source, _ in self.edges if source > 1} | {i for i in self.concat if i > 1})
        return sum(not isinstance(operation, Identity) for operation in self.operations)


#: Outputs of cells and their ReLU, by the number that Python gives to the output, in one pass through a network.
Rectified = dict[int, tuple[Tensor, Tensor]]

#: How a cell is computed, from the outputs of the cell before the last and of the last cell, and from what cells of
#: this pass have left for later ones.
CellForm = Callable[[CellNetwork, Tensor, Tensor, Rectified], Tensor]


class Network(DerivedNetwork):
    """The network of a genotype of cells.

    Args:
        genotype: a genotype of either layout. A `normal_reduce` genotype is stacked; an individual one is derived by
            Algorithm 1 if `num_cells` is larger than its number of cells.
        channels: width C of the first cells, which doubles at reductions.
        num_classes: number of outputs.
        in_channels: number of channels of the images.
        image_size: height and width of the images, 8 or more; None is 32 (cifar) or 224. Only the auxiliary head
            depends on it.
        form: `cifar` (one 3x3 convolution to 3C), `imagenet` (three convolutions of stride 2) or
            `imagenet-published` (the second of them with stride 1, as in D-DARTS' code).
        auxiliary: add the auxiliary head, on the last reduction cell that is not the last cell (else on cell 2n//3).
        num_cells: depth; None keeps an individual genotype and stacks 20 (cifar) or 14 cells of a `normal_reduce` one.
        drop_path_unit: `operation` (each operation but identities, DARTS) or `node` (each summed node, FairDARTS,
            D-DARTS).
        reductions: `thirds`, `genotype`, positions, or None; see `derive.arrange`.
        derive_order: order of Algorithm 1, `paper` or `published`.
        on_dead_cell: what becomes of cells that nothing reads: `warn` (they stay), `connect` or `error`; see
            `derive.arrange`.

    Attributes:
        genotype: the individual genotype as built.
        form: how cells are computed where gradients are needed in training mode; None means as they are written.

    Raises:
        UserError: sizes that cannot be built, or depth and reductions that `derive.arrange` refuses.

    Example:
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> network = Network(ZOO["DD_5"].genotype, channels=4, num_classes=10, image_size=8)
        >>> network(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """

    genotype: Genotype

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        num_classes: int,
        in_channels: int = 3,
        image_size: int | None = None,
        form: Form = "cifar",
        auxiliary: bool = False,
        num_cells: int | None = None,
        drop_path_unit: DropPathUnit = "node",
        reductions: str | Sequence[int] | None = None,
        derive_order: Order = "paper",
        on_dead_cell: OnDeadCell = "warn",
    ) -> None:
        super().__init__()
        if drop_path_unit not in ("operation", "node"):
            raise UserError(f"unknown drop_path_unit {drop_path_unit!r}: choose operation or node")
        size = check_sizes(form, channels, num_classes, in_channels, image_size)
        if num_cells is None and genotype.layout == "normal_reduce":
            num_cells = DEPTH[form]
        self.form: CellForm | None = None
        self.genotype = arrange(genotype, num_cells, reductions, derive_order, on_dead_cell)
        self.stem = Stem(form, channels, in_channels)
        size = self.stem.output_size(size)
        self.auxiliary_position = auxiliary_position(self.genotype) if auxiliary else None

        self.cells = nn.ModuleList()
        before_last, last = self.stem.widths
        halved = self.stem.halves
        width = channels
        widths: list[int] = []  # of the cells' outputs
        for index, cell in enumerate(self.genotype.cells):
            reduction = index in self.genotype.reductions
            if reduction:
                width *= 2
                size = -(-size // 2)
            self.cells.append(
                CellNetwork(
                    cell,
                    before_last if cell.link is None else joined_width(before_last, widths[cell.link]),
                    last,
                    width,
                    reduction=reduction,
                    halve_first=halved,
                    drop_path=self._dropper,
                    drop_path_unit=drop_path_unit,
                )
            )
            before_last, last, halved = last, len(cell.concat) * width, reduction
            widths.append(last)
            if index == self.auxiliary_position:
                self.auxiliary_head = auxiliary_head_of(last, size, num_classes)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def _run(self, x: Tensor) -> list[Tensor]:
        """Outputs of all cells."""
        before_last, last = self.stem(x)
        outputs: list[Tensor] = []
        form = self.form if self.training and torch.is_grad_enabled() else None
        known: Rectified = {}
        cells = cast(Iterable[CellNetwork], self.cells)
        for cell, of_genotype in zip(cells, self.genotype.cells, strict=True):
            first = before_last if of_genotype.link is None else joined(before_last, outputs[of_genotype.link])
            output = cell(first, last) if form is None else form(cell, first, last, known)
            before_last, last = last, output
            outputs.append(last)
        return outputs

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, num_classes]; in training mode with an auxiliary head also that head's logits."""
        outputs = self._run(x)
        logits: Tensor = self.classifier(self.pool(outputs[-1]).flatten(1))
        if self.training and self.auxiliary_head is not None and self.auxiliary_position is not None:
            return logits, self.auxiliary_head(outputs[self.auxiliary_position])
        return logits

    def feature_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """The last cell's output at each resolution, finest first: what a detection head reads."""
        outputs = self._run(x)
        ends = [position - 1 for position in self.genotype.reductions if position > 0]
        return tuple(outputs[index] for index in (*ends, len(outputs) - 1))
