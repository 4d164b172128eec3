"""Training of a detector on a derived network by several workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train.torch

from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.networks.network import Network
from ddarts_core.training.parallel import Group
from ddarts_core.transfer.examples import Look
from ddarts_core.transfer.model import MEAN, STD, read_weights
from ddarts_core.transfer.scan import Splits, read_splits
from ddarts_core.transfer.settings import TransferConfig
from ddarts_core.transfer.training import Transfer

from .distributed import Together, Workers, rooted, sources
from .worker import Job, Tell, go_on, run_epochs, unanimous


class DistributedTransfer(Together):
    """A training on another task by several workers.

    Args:
        config: the configuration of the training.
        genotype: the genotype of the network.
        weights: the weights of an export, with which the backbone begins; on a cluster they must be in a folder that
            all machines share. None begins without them.
        splits: the splits, whose images this process has checked, so that the workers do not check them again.
        folder: the folder of the training.
        workers: how many workers train, and what each gets.
    """

    def __init__(
        self,
        config: TransferConfig,
        genotype: Genotype,
        weights: Path | None,
        splits: Splits,
        folder: Path,
        workers: Workers,
    ) -> None:
        data = config.data.model_copy(update={"root": rooted(config.data.root)})
        own = config.model_copy(update={"data": data})
        given = None if weights is None else weights.absolute()
        super().__init__(_Job(folder.absolute(), sources(), own, genotype, given, splits.looks), workers)


@dataclass(frozen=True)
class _Job(Job):
    config: TransferConfig
    genotype: Genotype
    weights: Path | None
    looks: tuple[tuple[Look, ...], tuple[Look, ...]]

    def train(self, group: Group, tell: Tell) -> None:
        run, records = unanimous(group, lambda: self._begin(group))
        run_epochs(run, records, self, "transfer", self.config.training.checkpoint_every, group, tell)

    def _begin(self, group: Group) -> tuple[Transfer, list[dict[str, Any]]]:
        """The loop, at its begin or where its checkpoint was taken, and its records so far."""
        network: Network | None = None
        mean: Sequence[float] = MEAN
        std: Sequence[float] = STD
        if self.weights is not None:
            network, blueprint = read_weights(self.weights, self.genotype)
            mean, std = blueprint.info.mean, blueprint.info.std
        splits = read_splits(self.config, looks=self.looks)
        device = ray.train.torch.get_device()
        run = Transfer(self.config, self.genotype, splits, network, mean, std, device, group)
        return run, go_on(run, self, "transfer")
