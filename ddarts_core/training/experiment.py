"""What `ddarts retrain` compares: a genotype and, if asked for, its search's start and random genotypes.

All of them are trained with the same seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.sets import DataInfo, Images, load_test
from ..data.splits import hold_out
from ..genotypes.dead_cells import dead_sentence
from ..genotypes.derive import trained
from ..genotypes.genotype import AnyGenotype, Genotype
from ..genotypes.random_genotype import random_genotype, space_of
from ..loops import checkpoint
from ..loops.confusion import Evaluation
from ..networks.building import build_network
from ..networks.cost import retrain_cost
from ..settings.config import ExperimentConfig
from ..settings.data_settings import DataConfig
from ..settings.found import data_of
from ..settings.retrain_settings import RetrainConfig
from ..settings.warm_start import start_genotype
from ..tensors.devices import check_amp, pick_device
from .retrain import Retrain, check_batches


def dealt(config: RetrainConfig, info: DataInfo, images: Images, seed: int) -> tuple[Images, Images | None]:
    """Return the images that train, and the images that choose an epoch, or None if no image chooses.

    Raises:
        UserError: a class has too few images for both.
    """
    fraction = config.validation_fraction
    return hold_out(images, fraction, seed, info.classes) if fraction else (images, None)


def random_name(number: int) -> str:
    """Return the name of a random genotype, whose number counts from 0: `random`, `random-2`, `random-3`, ..."""
    return "random" if number == 0 else f"random-{number + 1}"


@dataclass(frozen=True)
class Experiment:
    """Genotypes that are trained with the same seeds on the same images.

    Attributes:
        config: the settings of every training.
        contenders: the genotypes by name: `genotype`, `start`, and as many random ones as were asked for
            (`random_name`).
        seeds: the seeds. Each contender is trained once with each seed.
    """

    config: ExperimentConfig
    contenders: Mapping[str, AnyGenotype]
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls, genotype: AnyGenotype, config: ExperimentConfig, num_seeds: int, num_random: int, start: bool = False
    ) -> Experiment:
        """Make an experiment.

        Args:
            genotype: the genotype to train.
            config: the settings of every training.
            num_seeds: how many seeds there are: `config.seed` and the numbers that follow it.
            num_random: how many random genotypes are trained too. They are drawn with `config.seed` and the numbers
                that follow it.
            start: whether the genotype that the search started from is trained too, if there is one.

        Raises:
            UserError: random genotypes are asked for, but no space has all operations of the genotype, or the genotype
                is not made of cells.
        """
        contenders = {"genotype": genotype}
        if start and config.search.start is not None:
            contenders["start"] = start_genotype(config.search)
        if num_random:
            cells = Genotype.narrowed(genotype, "--random-baseline")
            space = space_of(cells, config.search.space)
            contenders |= {random_name(k): random_genotype(cells, config.seed + k, space) for k in range(num_random)}
        return cls(config, contenders, tuple(range(config.seed, config.seed + num_seeds)))

    @property
    def data(self) -> DataConfig:
        """The settings of the images that every contender is trained and scored on."""
        return data_of(self.config, self.contenders["genotype"])

    def is_done(self, result: dict[str, Any] | None) -> bool:
        """Whether the content of `result.json` has exactly these seeds and contenders. None: there is no result yet."""
        return result is not None and (
            result["seeds"] == list(self.seeds) and result["test"].keys() == self.contenders.keys()
        )

    def check_images(self, info: DataInfo, images: Images) -> None:
        """Refuse training images that do not suffice for a batch, or for the images that choose an epoch.

        Raises:
            UserError: with one of the seeds, the images do not suffice.
        """
        for seed in self.seeds:
            train, _ = dealt(self.config.retrain, info, images, seed)
            check_batches(self.config.retrain, len(train))

    def check_device(self) -> torch.device:
        """Return the device on which trainings of this process run.

        Raises:
            UserError: the device is not there, or it cannot compute in the precision that is asked for.
        """
        device = pick_device(self.config.retrain.device, "retrain.device")
        check_amp(self.config.retrain.amp, device, "retrain.amp")
        return device

    def dead_cells(self, info: DataInfo) -> Iterator[str]:
        """Yield a sentence on each contender whose network has cells that nothing reads.

        Raises:
            UserError: no network can be built from a genotype with these settings.
        """
        for name, contender in self.contenders.items():
            with torch.device("meta"):
                built = build_network(self.config.retrain, contender, info).genotype
            if dead := built.dead_cells:
                words = "the network of the genotype" if name == "genotype" else f"the network of {name}"
                facts = dead_sentence(dead, built.num_cells)
                yield f"{words}: {facts}; retrain.on_dead_cell=connect gives them a reader"

    def training(self, contender: str, info: DataInfo, images: Images, seed: int) -> Retrain:
        """Return one training, which has not begun yet."""
        train, validation = dealt(self.config.retrain, info, images, seed)
        return Retrain(self.config.retrain, self.contenders[contender], info, train, validation, seed)

    def finish(self, run: Retrain, contender: str, weights: Path) -> Evaluation:
        """Evaluate a network on the test images after its training, and keep its weights in a file.

        If validation images chose an epoch, the weights of that epoch are evaluated and kept. The test images are read
        here and nowhere else.

        Args:
            run: the training, which is over.
            contender: the name of the genotype that it trained.
            weights: the file to write.
        """
        if run.best_epoch is not None:
            run.load_best()
        test = run.evaluate(load_test(self.data), mistakes=True)
        checkpoint.save(weights, {"weights": run.weights(), "genotype": self.contenders[contender].to_json()})
        return test

    def parameters(self, contender: str, info: DataInfo) -> int:
        """Count the weights of a contender's network."""
        return retrain_cost(self.contenders[contender], self.config, info).parameters

    def facts(self, contender: str, info: DataInfo) -> dict[str, Any]:
        """Return what `result.json` says about a contender beside its scores."""
        genotype = self.contenders[contender]
        return {
            "genotype_hash": genotype.hash,
            "edges": genotype.num_edges,
            "parameters": self.parameters(contender, info),
            "dead_cells": list(trained(genotype, self.config.retrain.model_dump()).dead_cells),
        }
