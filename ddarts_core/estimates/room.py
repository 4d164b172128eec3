"""Checks whether the machine has enough memory for a search or a training.

The check takes seconds, and is done before anything of the search or the training is built.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ..datasets.facts import DataInfo
from ..genotypes.derive import trained
from ..genotypes.genotype import AnyGenotype, Genotype
from ..ground.errors import UserError
from ..methods import network_of
from ..networks.counting import Tally, count, is_counted
from ..settings.config import ExperimentConfig
from .memory import CONTEXT_BYTES, step_memory

GENEROUS = 8
"""How many numbers are assumed to be kept for each output of a normalisation, a ReLU or a pool.

It is more than any form of a step keeps.
"""


def memory_of(device: torch.device) -> int:
    """Return the memory of a GPU without what CUDA takes itself, or the main memory of this machine, in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory - CONTEXT_BYTES
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_search(config: ExperimentConfig, info: DataInfo, device: torch.device) -> None:
    """Refuse a search whose tensors the device cannot hold. A search that needs far less is not measured exactly.

    Raises:
        UserError: the tensors do not fit. The message says how much memory the search needs, how much there is, and
            which settings make the search smaller.
    """
    search, there = config.search, memory_of(device)
    network = network_of(search)
    sums, need = network.count(info), 0
    if sums is not None:
        if _generous(sums, search.batch_size) < there:
            return
        need = _states(sums, search.momentum) if search.edge == "mixed" else 0  # others may have fewer channels
    if need <= there:
        need = step_memory(config, info, torch.device(device.type)).peak
    if need > there:
        sizes = f"{network.words}, batches of {search.batch_size}"
        raise _refusal("search", sizes, need, there, device, network.reduced_by)


def check_training(config: ExperimentConfig, genotype: AnyGenotype, info: DataInfo, device: torch.device) -> None:
    """Refuse a training of a genotype's network whose tensors the device cannot hold.

    Raises:
        UserError: the tensors do not fit, with a message as from `check_search`; and see `derive.arrange`.
    """
    from .estimate import training_memory

    retrain, there = config.retrain, memory_of(device)
    derived = trained(genotype, retrain.model_dump())
    wide = f" of {retrain.channels} channels" if isinstance(derived, Genotype) else ""
    sizes = f"{derived.words}{wide}, batches of {retrain.batch_size}"
    need = 0
    if is_counted(derived):
        sums, _ = count(derived, retrain.channels, info.num_classes, info.channels, info.image_size, retrain.form)
        if _generous(sums, retrain.batch_size) < there:
            return
        need = _states(sums, retrain.momentum)
    if need <= there:
        need = training_memory(retrain, genotype, info)
    if need > there:
        raise _refusal("retrain", sizes, need, there, device, ("retrain.channels", "retrain.num_cells"))


def _generous(sums: Tally, batch: int) -> int:
    """Return an upper bound of the bytes of a step: weights, gradients, two moments, and outputs."""
    return 4 * (4 * sums.parameters + GENEROUS * batch * (sums.norm + sums.relu + sums.pool))


def _states(sums: Tally, momentum: float) -> int:
    """Return the bytes of weights, gradients and momentum alone."""
    return 4 * sums.parameters * (2 + bool(momentum))


def _refusal(group: str, sizes: str, need: int, there: int, device: torch.device, settings: Sequence[str]) -> UserError:
    what, place = {"search": "search", "retrain": "training"}[group], "GPU" if device.type == "cuda" else "machine"
    return UserError(
        f"the {what} ({sizes}) needs at least {need / 2**30:.1f} GiB of memory, the {place} has "
        f"{there / 2**30:.1f} GiB: make {', '.join(settings)} or {group}.batch_size smaller"
    )
