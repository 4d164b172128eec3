"""The images that a found genotype is trained on, where the search chose their size too. Torch-free."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .config import ExperimentConfig
from .data_settings import DataConfig

if TYPE_CHECKING:
    from ..datasets.facts import DataInfo
    from ..genotypes.genotype import AnyGenotype


def found_size(config: ExperimentConfig, genotype: AnyGenotype) -> int | None:
    """Return the height and width of the images that a search by these settings chose; None if it chooses none."""
    from ..methods import network_of

    return network_of(config.search).trained_size(genotype)


def data_of(config: ExperimentConfig, genotype: AnyGenotype) -> DataConfig:
    """Return the settings of the images that a genotype's network is trained on."""
    size = found_size(config, genotype)
    return config.data if size is None else config.data.model_copy(update={"image_size": size})


def facts_of(info: DataInfo, config: ExperimentConfig, genotype: AnyGenotype) -> DataInfo:
    """Return the facts of these images, from the facts of the images that the search has."""
    size = found_size(config, genotype)
    return info if size is None else replace(info, image_size=size)
