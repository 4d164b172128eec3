"""Estimates what an experiment will take: its size, its steps, its memory and, from a few timed steps, its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from ..data.images import Images, ImageSet
from ..data.sets import DataInfo, load_train
from ..data.splits import Splits, check_batch, split
from ..genotypes.genotype import AnyGenotype
from ..methods import network_of
from ..networks.building import build_network
from ..networks.fused import fused
from ..networks.network import Network
from ..search.search import Search
from ..settings.config import ExperimentConfig
from ..settings.retrain_settings import RetrainConfig
from ..supernets.coalitions import num_coalitions
from ..tensors.hollow import Hollow
from ..tensors.meter import Meter
from ..training.experiment import dealt
from ..training.retrain import Retrain, check_batches
from .memory import StepMemory, step_memory, supernet_size

TIMED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """What one search and the training of its derived network will take.

    Attributes:
        parameters: how many parameters the supernet has.
        macs: how many multiply-adds one image takes through the supernet, in convolutions and linear layers.
        memory: the memory of a search step, in bytes.
        retrain_memory: the peak memory of a training step of the heaviest network that the search may find, in bytes.
        data_memory: the memory of the training images that stay on a GPU, beside the search or the training, in bytes.
        images: how many images the splits weights, alphas and held_out have.
        steps: how many steps of the weights the search has, warm-up included.
        retrain_steps: how many steps the training of the derived network has.
    """

    parameters: int
    macs: int
    memory: StepMemory
    retrain_memory: int
    data_memory: int
    images: tuple[int, int, int]
    steps: int
    retrain_steps: int

    @property
    def peak(self) -> int:
        """The peak memory of search or training, whichever is larger, with the images, in bytes."""
        return max(self.memory.peak, self.retrain_memory) + self.data_memory


def estimate(config: ExperimentConfig, device: torch.device, *, trial: bool = False) -> Estimate:
    """Count everything that an experiment will take. This reads the data set, and computes no step.

    Args:
        config: the settings of the experiment.
        device: the device on which the experiment will run. It need not be there.
        trial: whether the derived network is trained within a trial of a sweep, without the held-out images. Else
            `ddarts retrain` trains it, on all training images except those that choose an epoch.

    Raises:
        UserError: the data cannot be read or do not fit the configuration.
    """
    info, train, splits = _read(config, trial)
    parameters, macs = supernet_size(config, info)
    epochs = config.search.warmup_epochs + config.search.epochs
    return Estimate(
        parameters,
        macs,
        step_memory(config, info, device),
        retrain_memory(config, info),
        data_memory(train, info, device),
        (len(splits.weights), len(splits.alphas), len(splits.held_out)),
        epochs * (len(splits.weights) // config.search.batch_size),
        config.retrain.epochs * (len(_trained(config, info, train, splits, trial)) // config.retrain.batch_size),
    )


def _read(config: ExperimentConfig, trial: bool) -> tuple[DataInfo, Images, Splits]:
    """Read the training images and their splits, and check that no split is smaller than a batch drawn from it.

    Raises:
        UserError: the data cannot be read or do not suffice for a batch.
    """
    info, train = load_train(config.data)
    splits = split(train, config.data, config.seed)
    check_batch("weights", len(splits.weights), config.search.batch_size)
    check_batch("alphas", len(splits.alphas), config.search.batch_size)
    check_batches(config.retrain, len(_trained(config, info, train, splits, trial)))
    return info, train, splits


def _trained(config: ExperimentConfig, info: DataInfo, train: Images, splits: Splits, trial: bool) -> Images:
    """Return the images on which the derived network is trained."""
    if trial:
        return splits.weights.joined(splits.alphas)
    return dealt(config.retrain, info, train, config.seed)[0]


def data_memory(train: Images, info: DataInfo, device: torch.device) -> int:
    """Return how many bytes of images a loop keeps on its device, a GPU.

    It is 0 for images that are streamed, and on a CPU. There the images lie in main memory only once, as bytes, for all
    trials of a process.
    """
    on_device = device.type == "cuda" and isinstance(train, ImageSet)
    return len(train) * (info.channels * info.image_size**2 + 8) if on_device else 0


def heaviest_genotype(config: ExperimentConfig, info: DataInfo) -> AnyGenotype:
    """Return the heaviest genotype that a search on images with these facts may find."""
    return network_of(config.search).heaviest(config.discretise, info.image_size)


def retrain_memory(config: ExperimentConfig, info: DataInfo) -> int:
    """Return the peak memory of a training step of the heaviest network that a search may find, in bytes."""
    return training_memory(config.retrain, heaviest_genotype(config, info), info)


def training_memory(retrain: RetrainConfig, genotype: AnyGenotype, info: DataInfo) -> int:
    """Return the peak memory of a training step of a genotype's network, in bytes.

    What mixed precision saves is not counted.
    """
    with Hollow():
        network = build_network(retrain, genotype, info)
        if isinstance(network, Network):
            network.form = fused
        network.train()
        meter = Meter()
        meter.note(network.parameters())
        meter.note(network.buffers())
        size = info.image_size
        with meter:
            images = torch.zeros(retrain.batch_size, info.channels, size, size)
            labels = torch.zeros(retrain.batch_size, dtype=torch.int64)
            logits = network(images)
            pieces = logits if isinstance(logits, tuple) else (logits,)
            sum(F.cross_entropy(piece, labels) for piece in pieces).backward()  # type: ignore[union-attr]
    weights = 4 * sum(weight.numel() for weight in network.parameters())
    return meter.peak + weights * (bool(retrain.momentum) + bool(retrain.ema_decay))


# --- time -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How many seconds the parts of an experiment take on this machine.

    Attributes:
        weight_step: one step of the weights, with reading the batches of the weights and of the alphas.
        alpha_step: one step of the alphas.
        recalibration: one batch from which statistics are estimated before an evaluation of the supernet.
        image: one image in an evaluation of the supernet.
        retrain_step: one training step of the derived network.
    """

    weight_step: float
    alpha_step: float
    recalibration: float
    image: float
    retrain_step: float

    def search(self, config: ExperimentConfig, found: Estimate) -> float:
        """Return how many seconds a whole search takes.

        Args:
            config: the settings of the experiment.
            found: the estimate of its steps and images.
        """
        epochs = config.search.warmup_epochs + config.search.epochs
        searching = found.steps * config.search.epochs / epochs
        in_steps = found.steps * self.weight_step + searching * self.alpha_step
        recalibrated = min(config.search.recalibration_batches, found.steps // epochs)
        in_steps += epochs * recalibrated * self.recalibration
        ablation = config.ablation
        coalitions = num_coalitions(network_of(config.search).groups, ablation.shapley_permutations)
        return in_steps + (epochs * found.images[2] + coalitions * config.search.batch_size) * self.image

    def retrain(self, found: Estimate) -> float:
        """Return how many seconds the training of the derived network takes at most."""
        return found.retrain_steps * self.retrain_step


def time_steps(
    config: ExperimentConfig,
    device: torch.device | None = None,
    *,
    trial: bool = False,
    genotype: AnyGenotype | None = None,
) -> Timing:
    """Run a search and a training for two epochs of a few steps each, and time the second epoch.

    Args:
        config: the settings of the experiment.
        device: the device to run on, in place of `search.device` and `retrain.device`.
        trial: whether the derived network is trained within a trial; see `estimate`.
        genotype: the genotype to train. None: the heaviest one that the search can find.

    Raises:
        UserError: the data cannot be read or do not suffice for a batch.
    """
    info, train, splits = _read(config, trial)
    steps = min(TIMED_STEPS, len(splits.weights) // config.search.batch_size)
    few = Splits(
        splits.weights.subset(torch.arange(steps * config.search.batch_size)),
        splits.alphas,
        splits.held_out.subset(torch.arange(min(len(splits.held_out), 256))),
    )
    short: dict[str, Any] = {
        "search": config.search.model_copy(update={"stages": "standard", "warmup_epochs": 0, "epochs": 2})
    }
    short |= {"ablation": config.ablation.model_copy(update={"shapley_permutations": 0})}
    _, searched = Search(config.model_copy(update=short), info, few, device).records()
    trained_images = _trained(config, info, train, splits, trial)
    trainings = min(TIMED_STEPS, len(trained_images) // config.retrain.batch_size)
    images = trained_images.subset(torch.arange(trainings * config.retrain.batch_size))
    settings = config.retrain.model_copy(update={"warmup_epochs": 0, "epochs": 2})
    _, trained = Retrain(
        settings, genotype or heaviest_genotype(config, info), info, images, None, config.seed, device
    ).records()
    return Timing(
        (searched.seconds["data"] + searched.seconds["weights"]) / steps,
        searched.seconds["alphas"] / steps,
        searched.seconds["recalibration"] / max(searched.metrics["held_out/recalibration_batches"], 1.0),
        searched.seconds["evaluation"] / len(few.held_out),
        (trained.seconds["data"] + trained.seconds["weights"]) / trainings,
    )
