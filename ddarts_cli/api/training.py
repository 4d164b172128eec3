"""Searches and trainings in this process; no file is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddarts_core.data.sets import load_test
from ddarts_core.data.splits import split
from ddarts_core.datasets.facts import DataInfo
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.loops.confusion import Evaluation
from ddarts_core.loops.records import EpochRecord
from ddarts_core.networks.derived import DerivedNetwork
from ddarts_core.search.discretise import Derivation
from ddarts_core.search.search import Search
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.found import data_of
from ddarts_core.training.experiment import dealt
from ddarts_core.training.retrain import Retrain

from .data import Data, test_images, train_images
from .settings import Settings, load_config

#: Is told of every epoch.
Watch = Callable[[EpochRecord], object]


@dataclass(frozen=True)
class Found:
    """What a search found. A notebook draws its genotype.

    Attributes:
        genotype: the architecture.
        derivation: the architecture again, and which of its nodes and cells had to be mended or are dead.
        records: one record of each epoch.
        config: the whole configuration.
        info: facts of the images.
    """

    genotype: AnyGenotype
    derivation: Derivation
    records: tuple[EpochRecord, ...]
    config: ExperimentConfig
    info: DataInfo

    def _repr_svg_(self) -> str:
        from .display import svg_of

        return svg_of(self.genotype)


@dataclass(frozen=True)
class Trained:
    """What a training gave: records, network and scores.

    Attributes:
        network: the network with the weights that were scored, in evaluation mode on the device that trained it.
        records: one record of each epoch.
        test: loss and confusion matrix on the test images; None without them.
        config: the whole configuration.
        info: facts of the images, by which the network's input is normalised.
    """

    network: DerivedNetwork
    records: tuple[EpochRecord, ...]
    test: Evaluation | None
    config: ExperimentConfig
    info: DataInfo


def build_search(settings: Settings, data: Data | None = None, *, classes: Sequence[str] | None = None) -> Search:
    """Build a search that has not begun.

    Going through its `records()` runs it, one epoch at a time. Its `discretise()` gives a genotype after any epoch.

    Args:
        settings: settings as for `load_config`.
        data: training images, as tensors (images, labels) or as a torch `Dataset`; None reads those of the settings.
        classes: names of the classes of given images.

    Raises:
        UserError: a setting is wrong, or the images do not fit it.

    Example:
        >>> tiny = {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 2, "batch_size": 20}
        >>> search = build_search({"method": "darts", "data": {"num_train": 60}, "search": tiny})
        >>> for record in search.records():
        ...     print(record.epoch, record.phase, search.discretise().genotype.num_edges)
        0 search 4
        1 search 4
    """
    config = load_config(settings)
    info, images = train_images(config.data, data, classes)
    return Search(config, info, split(images, config.data, config.seed))


def search(
    settings: Settings, data: Data | None = None, *, classes: Sequence[str] | None = None, watch: Watch | None = None
) -> Found:
    """Run one search to its end. The seed of the settings fixes the result.

    `data.split` deals the images to three splits. One trains the weights, one the alphas, and one trains nothing:
    the `held_out/` metrics of the records are computed on it. Test images are never read.

    Args:
        settings: settings as for `load_config`.
        data: training images, as tensors (images, labels) or as a torch `Dataset`; None reads those of the settings.
        classes: names of the classes of given images.
        watch: a function that is told of every epoch.

    Raises:
        UserError: a setting is wrong, or the images do not fit it.
        Diverged: a loss is not finite.

    Example:
        >>> import torch
        >>> images, labels = torch.randint(0, 256, (90, 1, 8, 8), dtype=torch.uint8), torch.arange(90) % 3
        >>> settings = {"search": {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 1, "batch_size": 30}}
        >>> found = search(settings, (images, labels), classes=["cat", "dog", "fox"])
        >>> found.genotype.num_cells, found.info.classes, len(found.records)
        (3, ('cat', 'dog', 'fox'), 1)
    """
    run = build_search(settings, data, classes=classes)
    records = []
    for record in run.records():
        records.append(record)
        if watch is not None:
            watch(record)
    derivation = run.discretise()
    return Found(derivation.genotype, derivation, tuple(records), run.config, run.info)


def retrain(
    genotype: AnyGenotype,
    settings: Settings,
    data: Data | None = None,
    *,
    test: Data | None = None,
    classes: Sequence[str] | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train the network of a genotype from scratch, then read the test images once.

    Args:
        genotype: the genotype of the network.
        settings: settings as for `load_config`; the group `retrain` says how to train. One seed stands for one
            training.
        data: training images, as for `search`.
        test: test images, in the form of the training images. None reads the test images of the settings if the
            training images are those of the settings too; otherwise no test images are read.
        classes: names of the classes of given images.
        watch: a function that is told of every epoch.

    Raises:
        UserError: a setting is wrong, the images do not fit it, or the network cannot be built.

    Example:
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> settings = {"data": {"num_train": 60}, "retrain": {"channels": 2, "epochs": 1, "batch_size": 30}}
        >>> trained = retrain(ZOO["ResNet18"].genotype, settings)
        >>> 0 <= trained.test.metrics["accuracy"] <= 1, len(trained.records)
        (True, 1)
    """
    config = load_config(settings)
    read = data_of(config, genotype)
    info, images = train_images(read, data, classes)
    train, validation = dealt(config.retrain, info, images, config.seed)
    run = Retrain(config.retrain, genotype, info, train, validation, config.seed)
    records = []
    for record in run.records():
        records.append(record)
        if watch is not None:
            watch(record)
    if validation is not None:
        run.load_best()
    scored = None
    if test is not None:
        scored = run.evaluate(test_images(info, test))
    elif data is None:
        scored = run.evaluate(load_test(read))
    network = run.network
    network.load_state_dict(run.weights())
    return Trained(network.eval(), tuple(records), scored, config, info)
