"""A genotype of stages as a trainable network: plain convolutions and inverted residual blocks (FBNetV2)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..genotypes.blocks import Block, StagedGenotype, squeezed
from ..genotypes.shapes import check_images, halved
from ..ground.errors import UserError
from .derived import DerivedNetwork, DropPath, auxiliary_head_of
from .operations import BatchNorm

#: Module by the name of an activation.
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "hswish": nn.Hardswish}


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: str | None = None
) -> nn.Sequential:
    """A convolution without bias, its normalisation, and an activation if one is named."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        BatchNorm(outputs),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [ACTIVATIONS[activation]()]))


class SqueezeExcitation(nn.Module):
    """Channels times a hard sigmoid of two linear maps of their means (MobileNetV3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = squeezed(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.relu = nn.Conv2d(channels, few, 1), nn.ReLU()
        self.excite, self.gate = nn.Conv2d(few, channels, 1), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        factors: Tensor = self.gate(self.excite(self.relu(self.squeeze(self.pool(x)))))
        return x * factors


class InvertedResidual(nn.Module):
    """A block with `middle` channels between two 1x1 convolutions; see `genotypes.blocks.Block`.

    If the input is added to the output, the factor of the last normalisation is 0 at the begin, as in FBNetV2. So the
    block begins as the identity. Drop-path drops the block's residual, and not the added input.
    """

    def __init__(self, block: Block, inputs: int, drop_path: DropPath) -> None:
        super().__init__()
        middle = block.middle
        layers: list[nn.Module] = []
        if block.expand:
            layers.append(_convolution(inputs, middle, activation=block.activation))
        layers.append(_convolution(middle, middle, block.kernel, block.stride, middle, block.activation))
        if block.squeeze:
            layers.append(SqueezeExcitation(middle))
        last = _convolution(middle, block.channels)
        self.layers = nn.Sequential(*layers, last)
        self.drop_path = drop_path
        self.adds = block.stride == 1 and inputs == block.channels
        if self.adds:
            nn.init.zeros_(last[1].weight)  # type: ignore[arg-type]  # an item of a Sequential is a Module

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, height, width] to [batch, channels, ...]."""
        found: Tensor = self.layers(x)
        return x + self.drop_path(found) if self.adds else found


class StagedNetwork(DerivedNetwork):
    """The network of a genotype of stages.

    Args:
        genotype: the genotype of the network.
        num_classes: number of outputs.
        in_channels: number of channels of the images.
        image_size: height and width of the images; None is what the genotype is meant for. Only the auxiliary head
            depends on it.
        auxiliary: add the auxiliary head, on the block before the last one that halves the image.

    Attributes:
        auxiliary_position: position of the block whose output the auxiliary head reads; None without this head.

    Raises:
        UserError: sizes that cannot be built, or an auxiliary head where no block behind the first halves the image.

    Example:
        >>> import torch
        >>> network = StagedNetwork(StagedGenotype(((Block(8, 3, 2), Block(8, 3, middle=16)),)), num_classes=10)
        >>> network(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """

    genotype: StagedGenotype

    def __init__(
        self,
        genotype: StagedGenotype,
        num_classes: int,
        in_channels: int = 3,
        image_size: int | None = None,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        size = genotype.image_size if image_size is None else image_size
        check_images(num_classes, in_channels, size)
        self.genotype = genotype
        self.auxiliary_position = genotype.auxiliary_position if auxiliary else None
        if auxiliary and self.auxiliary_position is None:
            raise UserError("no block behind the first halves the image: set retrain.auxiliary_weight to 0")
        self.blocks = nn.ModuleList()
        last = in_channels
        for position, block in enumerate(genotype.blocks):
            self.blocks.append(
                InvertedResidual(block, last, self._dropper)
                if block.middle
                else _convolution(last, block.channels, block.kernel, block.stride, activation=block.activation)
            )
            last, size = block.channels, halved(size, block.stride)
            if position == self.auxiliary_position:
                self.auxiliary_head = auxiliary_head_of(last, size, num_classes)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden: nn.Module = nn.Identity()
        if genotype.hidden:
            self.hidden = nn.Sequential(
                nn.Linear(last, genotype.hidden, bias=False), ACTIVATIONS[genotype.activation]()
            )
        self.classifier = nn.Linear(genotype.hidden or last, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, num_classes]; in training mode with an auxiliary head also that head's logits."""
        auxiliary: Tensor | None = None
        for position, block in enumerate(self.blocks):
            x = block(x)
            if self.training and self.auxiliary_head is not None and position == self.auxiliary_position:
                auxiliary = self.auxiliary_head(x)
        logits: Tensor = self.classifier(self.hidden(self.pool(x).flatten(1)))
        return logits if auxiliary is None else (logits, auxiliary)
