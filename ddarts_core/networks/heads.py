"""Classifiers inside a network, whose logits are averaged with the network's own logits (C-DARTS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..genotypes.genotype import Genotype
from ..genotypes.shapes import Form
from .derived import auxiliary_head_of
from .network import Network


class Heads(nn.Module):
    """A classifier behind some cells, each an auxiliary head of DARTS.

    Args:
        shapes: the number of channels and the size in pixels of each of these cells' outputs, by position of the cell.
        num_classes: number of outputs.
    """

    def __init__(self, shapes: Mapping[int, tuple[int, int]], num_classes: int) -> None:
        super().__init__()
        self.positions = tuple(shapes)
        self.heads = nn.ModuleList(auxiliary_head_of(*shape, num_classes) for shape in shapes.values())

    def forward(self, outputs: Sequence[Tensor], logits: Tensor) -> Tensor:
        """Mean of the network's logits and of those of the heads, [batch, classes].

        Args:
            outputs: the outputs of all cells.
            logits: the logits of the network.
        """
        found = [head(outputs[position]) for position, head in zip(self.positions, self.heads, strict=True)]
        mean: Tensor = sum(found, start=logits) / (1 + len(found))
        return mean


class HeadedNetwork(Network):
    """The network of a genotype with a head behind each of its reduction cells, but for the last cell."""

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        num_classes: int,
        in_channels: int,
        image_size: int,
        form: Form,
        cells: int,
    ) -> None:
        super().__init__(genotype, channels, num_classes, in_channels, image_size, form, num_cells=cells)
        size, width, shapes = self.stem.output_size(image_size), channels, {}
        for position, cell in enumerate(self.genotype.cells):
            if position in self.genotype.reductions:
                size, width = -(-size // 2), 2 * width
                if position + 1 < len(self.cells):
                    shapes[position] = len(cell.concat) * width, size
        self.heads = Heads(shapes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Mean of all logits, [batch, classes]."""
        outputs = self._run(x)
        mean: Tensor = self.heads(outputs, self.classifier(self.pool(outputs[-1]).flatten(1)))
        return mean
