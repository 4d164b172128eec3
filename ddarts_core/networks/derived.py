"""What networks of all kinds of genotypes have: drop-path, the auxiliary head, and how many parameters they hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..genotypes.genotype import AnyGenotype
from ..ground.errors import UserError
from .operations import BatchNorm


class DropPath(nn.Module):
    """Zero whole samples with probability `probability` and scale the others by 1 / (1 - probability).

    One object is shared by a network: its probability and its generator are set once for all cells. Without a
    generator the draws come from torch's global one. Not active in evaluation mode. With `of_batch`, (number, part), a
    batch is part of a larger one of that number of samples: draws are made for all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None
        self.of_batch: tuple[int, slice] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of [batch, channels, height, width]."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        device = x.device if self.generator is None else self.generator.device
        number, part = self.of_batch or (x.shape[0], slice(None))
        draws = torch.rand(number, 1, 1, 1, generator=self.generator, device=device)[part]
        return x * ((draws < keep).to(x) / keep)


def _pool_to_two(size: int) -> nn.Module:
    """A pool to 2 x 2 pixels: DARTS' 5 x 5 window for its own sizes (8: stride 3, 7: stride 2), else adaptive."""
    return nn.AvgPool2d(5, size - 5, count_include_pad=False) if size in (7, 8) else nn.AdaptiveAvgPool2d(2)


def auxiliary_head_of(channels: int, size: int, num_classes: int) -> nn.Sequential:
    """DARTS' auxiliary classifier; it has the second BatchNorm on ImageNet too, which DARTS left out there."""
    return nn.Sequential(
        nn.ReLU(),
        _pool_to_two(size),
        nn.Conv2d(channels, 128, 1, bias=False),
        BatchNorm(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        BatchNorm(768),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, num_classes),
    )


class DerivedNetwork(nn.Module):
    """A network that is trained from scratch: from images to logits.

    Attributes:
        genotype: as built.
        auxiliary_head: further logits from within the network, in training mode; None where there are none.
        drop_path: probability, 0 to begin with.
        generator: where drop-path draws from; None is torch's global generator.
        of_batch: number of images in the batch, and which of them the network is given; None is all.
        auxiliary_parameters: number of parameters of the auxiliary head.
    """

    genotype: AnyGenotype

    def __init__(self) -> None:
        super().__init__()
        self._dropper = DropPath()
        self.auxiliary_head: nn.Sequential | None = None

    @property
    def drop_path(self) -> float:
        """Probability of drop-path."""
        return self._dropper.probability

    @drop_path.setter
    def drop_path(self, probability: float) -> None:
        if not 0 <= probability < 1:
            raise UserError(f"drop_path {probability} must lie in [0, 1)")
        self._dropper.probability = probability

    @property
    def generator(self) -> torch.Generator | None:
        """Where drop-path draws from."""
        return self._dropper.generator

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        self._dropper.generator = generator

    @property
    def of_batch(self) -> tuple[int, slice] | None:
        """Number of images in the batch, and which of them the network is given; None is all."""
        return self._dropper.of_batch

    @of_batch.setter
    def of_batch(self, of_batch: tuple[int, slice] | None) -> None:
        self._dropper.of_batch = of_batch

    @property
    def auxiliary_parameters(self) -> int:
        """Number of parameters of the auxiliary head."""
        return 0 if self.auxiliary_head is None else sum(p.numel() for p in self.auxiliary_head.parameters())

    @property
    def num_parameters(self) -> int:
        """Number of parameters without those of the auxiliary head."""
        return sum(p.numel() for p in self.parameters()) - self.auxiliary_parameters
