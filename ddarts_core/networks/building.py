"""The network of a genotype of any kind, by the settings of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..genotypes.blocks import StagedGenotype
from ..genotypes.derive import trained
from ..genotypes.genotype import AnyGenotype, Genotype
from .derived import DerivedNetwork
from .network import Network
from .staged import StagedNetwork

if TYPE_CHECKING:
    from ..datasets.facts import DataInfo
    from ..settings.retrain_settings import RetrainConfig


def build_network(config: RetrainConfig, genotype: AnyGenotype, info: DataInfo) -> DerivedNetwork:
    """The network that these settings train on these data.

    Raises:
        UserError: see `Network`, `StagedNetwork` and `derive.trained`.
    """
    auxiliary = config.auxiliary_weight > 0
    if isinstance(genotype, StagedGenotype):
        kept = StagedGenotype.narrowed(trained(genotype, config.model_dump()))
        return StagedNetwork(kept, info.num_classes, info.channels, info.image_size, auxiliary)
    return Network(
        Genotype.narrowed(genotype),
        config.channels,
        info.num_classes,
        info.channels,
        info.image_size,
        config.form,
        auxiliary=auxiliary,
        num_cells=config.num_cells,
        drop_path_unit=config.drop_path_unit,
        reductions=config.reductions,
        derive_order=config.derive_order,
        on_dead_cell=config.on_dead_cell,
    )
