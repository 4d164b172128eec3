"""The masked supernet of FBNetV2: every genotype of a space of stages, computed by one set of weights.

A block has the weights of its largest choice, and runs once for each resolution. A choice decides which of the block's
channels, which part of its kernel and which of its other parts count, by `masks` and by weights. Masks of channels come
after the normalisations, because the shift of a normalisation would fill masked channels again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..genotypes.blocks import squeezed
from ..genotypes.shapes import halved
from ..genotypes.stage_space import CHOSEN, BlockChoices, StageSpace
from ..networks.operations import BatchNorm
from ..networks.staged import ACTIVATIONS, InvertedResidual, SqueezeExcitation, StagedNetwork
from .masks import centres, first_channels, interspersed, same_width, subsampled
from .searched import SearchedNetwork
from .supernet import CellNotes, readable

#: Gates of the decisions about one block, by field.
OfBlock = Mapping[str, Tensor]


class MaskedBlock(nn.Module):
    """A block of the masked supernet: it computes all that this block may be.

    Args:
        choices: the choices of the block.
        before: the numbers of channels that the block's input may have.
    """

    def __init__(self, choices: BlockChoices, before: Sequence[int]) -> None:
        super().__init__()
        self.choices, self.before = choices, tuple(before)
        inputs, outputs, self.kernel = max(before), max(choices.channels), max(choices.kernel)
        self.middles = choices.middles(before)
        if choices.inverted:
            middle = max(self.middles)
            if choices.expand:
                self.expand, self.expand_norm = nn.Conv2d(inputs, middle, 1, bias=False), BatchNorm(middle)
            self.deep = nn.Conv2d(middle, middle, self.kernel, groups=middle, bias=False)
            self.deep_norm = BatchNorm(middle)
            if True in choices.squeeze:
                few = max(map(squeezed, self.middles))
                self.squeeze, self.excite = nn.Conv2d(middle, few, 1), nn.Conv2d(few, middle, 1)
            self.last = nn.Conv2d(middle, outputs, 1, bias=False)
        else:
            self.last = nn.Conv2d(inputs, outputs, self.kernel, bias=False)
        self.last_norm = BatchNorm(outputs)
        self.activations = nn.ModuleList(ACTIVATIONS[name]() for name in choices.activation)

    def _activate(self, x: Tensor, gates: OfBlock) -> Tensor:
        """Sum of the activations, each times its gate."""
        mixed: Tensor
        if len(self.activations) == 1:
            mixed = self.activations[0](x)
        else:
            weighed = zip(gates["activation"], self.activations, strict=True)
            mixed = torch.stack([gate * activation(x) for gate, activation in weighed]).sum(0)
        return mixed

    def _masked(self, weight: Tensor, gates: OfBlock) -> Tensor:
        """Weights of a convolution times the mask of its kernel."""
        return weight * centres(self.choices.kernel, gates["kernel"])

    def _excited(self, x: Tensor, gates: OfBlock, middle: Tensor) -> Tensor:
        """The input times what the gates leave of its squeeze-excitation, which is as narrow as the chosen middle.

        Args:
            x: the channels in the middle of the block, [batch, channels, height, width].
            gates: the gates of the block's decisions.
            middle: the gates of the widths of the middle.
        """
        names = self.choices.squeeze
        if True not in names:
            return x
        few = first_channels([squeezed(size) for size in self.middles], middle)
        inner = self.squeeze(x.mean((2, 3), keepdim=True)).relu() * few[:, None, None]
        found = x * F.hardsigmoid(self.excite(inner))
        with_it = gates["squeeze"][names.index(True)]
        return with_it * found + (gates["squeeze"].sum() - with_it) * x

    def forward(self, x: Tensor, gates: OfBlock, before: Tensor) -> Tensor:
        """[batch, inputs, height, width] to [batch, channels, ...].

        Args:
            x: the input of the block, masked by whatever computed it.
            gates: the gates of the block's decisions.
            before: the gates of the widths of the input.
        """
        stride, pad = self.choices.stride, self.kernel // 2
        if not self.choices.inverted:
            y = F.conv2d(x, self._masked(self.last.weight, gates), None, stride, pad)
            y = self._activate(self.last_norm(y), gates)
            plain: Tensor = y * first_channels(self.choices.channels, gates["channels"])[:, None, None]
            return plain
        y, middle = x, before
        if self.choices.expand:
            y, middle = self._activate(self.expand_norm(self.expand(x)), gates), gates["middle"]
        y = F.conv2d(y, self._masked(self.deep.weight, gates), None, stride, pad, groups=y.shape[1])
        y = self._activate(self.deep_norm(y), gates)
        y = self._excited(y * first_channels(self.middles, middle)[:, None, None], gates, middle)
        last = first_channels(self.choices.channels, gates["channels"])[:, None, None]
        found: Tensor = self.last_norm(self.last(y)) * last
        if stride > 1:
            return found
        wide = min(x.shape[1], found.shape[1])
        added = F.pad(x[:, :wide], (0, 0, 0, 0, 0, found.shape[1] - wide))
        return found + same_width(self.before, before, self.choices.channels, gates["channels"]) * added


class MaskedSupernet(SearchedNetwork):
    """The network that a search over genotypes of stages trains.

    Args:
        space: the space that the search chooses from.
        num_classes: number of outputs.
        in_channels: number of channels of the images.

    Example:
        >>> space = StageSpace((BlockChoices((4, 8), stride=2), BlockChoices((8,), (12, 16))), image_size=8)
        >>> net = MaskedSupernet(space, num_classes=3, in_channels=1)
        >>> net(torch.zeros(2, 1, 8, 8), net.one_hot((1, 0))).shape
        torch.Size([2, 3])
    """

    def __init__(self, space: StageSpace, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(len(space.decisions), readable)
        self.space, self.num_classes, self.in_channels = space, num_classes, in_channels
        widths = [(in_channels,), *(block.channels for block in space.blocks)]
        self.blocks = nn.ModuleList(map(MaskedBlock, space.blocks, widths))
        last = max(widths[-1])
        self.hidden = nn.Linear(last, space.hidden, bias=False) if space.hidden else None
        self.activation = ACTIVATIONS[space.activation]()
        self.classifier = nn.Linear(space.hidden or last, num_classes)

    @property
    def masked(self) -> list[MaskedBlock]:
        """The blocks in order, as what they are."""
        return [cast(MaskedBlock, block) for block in self.blocks]

    def one_hot(self, choice: Sequence[int]) -> Tensor:
        """Gates [decisions, options] of one genotype, by the number of its option for each decision."""
        decisions = self.space.decisions
        gates = torch.zeros(len(decisions), max(len(decision.options) for decision in decisions))
        gates[range(len(decisions)), list(choice)] = 1
        return gates.to(self.classifier.weight)

    def expected(self, quantity: str, gates: Tensor) -> Tensor:
        """Expected `macs` or `parameters` of a genotype."""
        from .expected_cost import expected_macs, expected_parameters

        count = {"macs": expected_macs, "parameters": expected_parameters}[quantity]
        return count(self.space, gates, self.in_channels, self.num_classes)

    def answer(self, outputs: Sequence[Tensor]) -> Tensor:
        """The logits, which `outputs` computes."""
        return outputs[-1]

    def outputs(self, x: Tensor, gates: Tensor, notes: Sequence[CellNotes] | None = None) -> list[Tensor]:
        """The logits [batch, num_classes] alone.

        Args:
            x: the images, [batch, in_channels, height, width].
            gates: the gates, [decisions, options] or [decisions, 1, options], in the order of `StageSpace.decisions`.
                In the row of a decision the gates beyond its options are not read.
            notes: None, as no cell is removed.
        """
        with self.precision():
            return [self._logits(x, gates)]

    def _logits(self, images: Tensor, gates: Tensor) -> Tensor:
        steps, of_blocks = by_block(self.space, gates)
        x, size, before = images, images.shape[2], gates.new_ones(1)
        for block, of_block in zip(self.masked, of_blocks, strict=True):
            size = halved(size, block.choices.stride)
            parts = [
                weight * interspersed(block(subsampled(x, step), of_block, before), step, size)
                for step, weight in zip(self.space.steps, steps, strict=True)
            ]
            x, before = torch.stack(parts).sum(0), of_block["channels"]
        pixels = steps @ steps.new_tensor([float(halved(size, step) ** 2) for step in self.space.steps])
        y = x.sum((2, 3)) / pixels
        if self.hidden is not None:
            y = self.activation(self.hidden(y))
        logits: Tensor = self.classifier(y)
        return logits

    @torch.no_grad()
    def cut(self, choice: Sequence[int]) -> StagedNetwork:
        """The network of one genotype of the space, with its share of the weights and statistics.

        Args:
            choice: the genotype, by the number of its option for each decision.
        """
        network = StagedNetwork(self.space.genotype(choice), self.num_classes, self.in_channels)
        network.to(self.classifier.weight)
        for masked, block in zip(self.masked, network.blocks, strict=True):
            if not masked.choices.inverted:
                _take(block, [masked.last, masked.last_norm])
            else:
                assert isinstance(block, InvertedResidual)
                *expand, deep = block.layers[: 1 + masked.choices.expand]
                *squeeze, last = block.layers[1 + masked.choices.expand :]
                for inner in expand:
                    _take(inner, [masked.expand, masked.expand_norm])
                _take(deep, [masked.deep, masked.deep_norm])
                for inner in squeeze:
                    assert isinstance(inner, SqueezeExcitation)
                    _take(nn.Sequential(inner.squeeze, inner.excite), [masked.squeeze, masked.excite])
                _take(last, [masked.last, masked.last_norm])
        if self.hidden is not None:
            _take(network.hidden, [self.hidden])
        _take(nn.Sequential(network.classifier), [self.classifier])
        return network


def by_block(space: StageSpace, gates: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """The gates of the resolutions, and by field the gates of every block; they are 1 where nothing is to decide."""
    rows = zip(space.decisions, gates.flatten(0, -2), strict=True)
    decided = {(d.place, d.field): row[: len(d.options)] for d, row in rows}
    one = gates.new_ones(1)
    blocks = [{name: decided.get((place, name), one) for name in CHOSEN} for place in range(len(space.blocks))]
    return decided.get((None, "step"), one), blocks


def _take(into: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Copy the first channels and the centre of the kernels of larger layers into the layers of a module, in order."""
    for small, large in zip(into.children(), layers, strict=False):
        own = small.state_dict()
        for name, whole in large.state_dict().items():
            place = tuple(slice(0, size) for size in own[name].shape[:2])
            if own[name].dim() == 4:
                skipped = (whole.shape[2] - own[name].shape[2]) // 2
                inner = slice(skipped, skipped + own[name].shape[2])
                place = (*place, inner, inner)
            own[name].copy_(whole[place])
