"""What networks of all kinds of genotypes have: drop-path, the auxiliary head, and how many parameters they hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..genotypes.genotype import AnyGenotype
from ..ground.errors import UserError
from .operations import BatchNorm


class DropPath(nn.Module):
    """Set whole samples to zero with the probability `probability`, and scale the others by 1 / (1 - probability).

    A network has one such object, so that its probability and its generator are set once for all cells. Without a
    generator the draws come from torch's global generator. In evaluation mode nothing is dropped. With `of_batch`,
    (number, part), a batch is a part of a larger batch of `number` samples, and draws are made for all samples of the
    larger batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None
        self.of_batch: tuple[int, slice] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of [batch, channels, height, width]."""
        factors = self.factors(x, x.dtype)
        return x if factors is None else x * factors

    def factors(self, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Draw the factor of each sample, [batch, 1, 1, 1]; None where nothing is dropped.

        Args:
            x: a tensor of these samples, of which the number and the device are read.
            dtype: the number format of the factors.
        """
        if not self.training or self.probability == 0:
            return None
        keep = 1 - self.probability
        device = x.device if self.generator is None else self.generator.device
        number, part = self.of_batch or (x.shape[0], slice(None))
        draws = torch.rand(number, 1, 1, 1, generator=self.generator, device=device)[part]
        return (draws < keep).to(x.device, dtype) / keep


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
        genotype: the genotype as built.
        auxiliary_head: a head that gives further logits from within the network in training mode; None without it.
        drop_path: the probability of drop-path, which is 0 at the begin.
        generator: the generator that drop-path draws from; None stands for torch's global generator.
        of_batch: the number of images in the batch, and which of them the network is given; None means all.
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
