"""A derived network as a backbone in torchvision's sense: it turns images into named feature maps of one width."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from ..ground.errors import UserError
from ..networks.network import Network
from .taps import FIRST_CELL, Tap, taps

#: What a pyramid has above C5's own level: RetinaNet's P6 from P5 or C5 and P7, or Mask R-CNN's pooled P5.
Top = Literal["p5", "c5", "pool"]


class FeatureMaps(nn.Module):
    """The stem and the cells of a network, whose outputs are read at strides 4, 8, 16 and 32.

    The height and the width of images must be multiples of 32, to which torchvision's detectors pad them. With an odd
    size, a `FactorizedReduce` would put its pixels beside those of the other operations.

    Args:
        network: the network whose stem and cells are taken. Its classifier and auxiliary head are left out.
        form: the form of the stem, which says the strides of the stem.
        frozen_stages: 0 trains everything. 1 does not train what comes before the output at stride 4, 2 what comes
            before the output at stride 8, and so on up to 4.
        frozen_statistics: whether all batch normalisation keeps its running statistics, and uses them in training too.

    Attributes:
        taps: the outputs that are read, the finest first.

    Raises:
        UserError: the network has no output at one of the strides, or `frozen_stages` is not in 0 to 4.

    Example:
        >>> import torch
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> network = Network(ZOO["ResNet18"].genotype, 4, 10, form="imagenet-published")
        >>> maps = FeatureMaps(network, "imagenet-published")(torch.zeros(1, 3, 64, 64))
        >>> {name: tuple(x.shape) for name, x in maps.items()}
        {'0': (1, 16, 16, 16), '1': (1, 32, 8, 8), '2': (1, 64, 4, 4), '3': (1, 128, 2, 2)}
    """

    def __init__(self, network: Network, form: str, *, frozen_stages: int = 0, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.taps = taps(network.genotype, _width(network), form)
        if not 0 <= frozen_stages <= len(self.taps):
            raise UserError(f"frozen_stages {frozen_stages} must lie in 0 to {len(self.taps)}")
        self.stem = network.stem
        self.cells = network.cells[: self.taps[-1].place - FIRST_CELL + 1]
        self.frozen_statistics = frozen_statistics
        self._frozen = list(self._modules_up_to(self.taps[frozen_stages - 1])) if frozen_stages else []
        for module in self._frozen:
            module.requires_grad_(False)

    def _modules_up_to(self, tap: Tap) -> Iterator[nn.Module]:
        """Yield all modules that the output at a tap depends on."""
        yield from list(self.stem)[: min(tap.place, 1) + 1]  # a slice of it would be a stem
        yield from self.cells[: max(0, tap.place - FIRST_CELL + 1)]

    def train(self, mode: bool = True) -> FeatureMaps:
        """Set the mode as for every module, except that frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if mode:
            frozen = [self] if self.frozen_statistics else self._frozen
            for module in frozen:
                for norm in module.modules():
                    if isinstance(norm, _BatchNorm):  # of torch, also one that sees the batches of several GPUs
                        norm.eval()
        return self

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Turn images [batch, 3, height, width] into feature maps with the names `0` to `3`, the finest first."""
        before_last, last = self.stem(x)
        outputs = [before_last, last]
        for cell in self.cells:
            before_last, last = last, cell(before_last, last)
            outputs.append(last)
        return OrderedDict((str(number), outputs[tap.place]) for number, tap in enumerate(self.taps))


def _width(network: Network) -> int:
    """Return the width C of a network that has a form for large images: the stem of such a form has C channels."""
    return int(network.stem.widths[0])


class Pyramid(nn.Module):
    """A body with a feature pyramid on top, which torchvision's detectors accept as a backbone.

    Args:
        body: a module from images to an ordered mapping of feature maps, the finest first.
        channels: how many channels each of these maps has.
        out_channels: how many channels each map of the pyramid has.
        top: what follows above the coarsest level. torchvision silently makes P6 from P5 if C5 is as wide as the
            pyramid; here P6 is made from what is asked for.
        skip: how many of the finest maps the pyramid leaves out (RetinaNet: 1).
    """

    def __init__(self, body: nn.Module, channels: Sequence[int], out_channels: int, top: Top, skip: int = 0) -> None:
        super().__init__()
        self.body = body
        self.skip = skip
        self.out_channels = out_channels
        self.fpn = FeaturePyramidNetwork([*channels[skip:]], out_channels, _top(top, channels[-1], out_channels))

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Turn images into maps of `out_channels` channels, the finest first.

        The keys are those of the body's maps, followed by those of the top's maps.
        """
        maps = [*self.body(x).items()][self.skip :]
        found: OrderedDict[str, Tensor] = self.fpn(OrderedDict(maps))
        return found


def _top(top: Top, c5: int, out_channels: int) -> ExtraFPNBlock:
    if top == "pool":
        return LastLevelMaxPool()
    block = LastLevelP6P7(out_channels if top == "p5" else c5, out_channels)
    block.use_P5 = top == "p5"
    return block
