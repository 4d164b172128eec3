"""A search or a training that the machine cannot hold is refused before it is built; one that it can hold is not."""

from __future__ import annotations

import pytest
import torch

from ddarts_core.datasets.facts import DataInfo
from ddarts_core.estimates import room
from ddarts_core.estimates.estimate import training_memory
from ddarts_core.estimates.memory import step_memory
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.config import resolve

CPU = torch.device("cpu")
INFO = DataInfo("toy", 10, 1, 8, (0.5,), (0.2,))
CONFIG = resolve(
    {
        "search": {"num_cells": 3, "channels": 4, "steps": 2, "batch_size": 8},
        "retrain": {"num_cells": 3, "channels": 4, "batch_size": 8},
    }
)


def test_what_is_refused_is_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    genotype = ZOO["DARTS_V2"].genotype
    search, training = step_memory(CONFIG, INFO, CPU).peak, training_memory(CONFIG.retrain, genotype, INFO)
    for there, fits in ((search, True), (search - 1, False)):
        monkeypatch.setattr(room, "memory_of", lambda device, there=there: there)
        if fits:
            room.check_search(CONFIG, INFO, CPU)
        else:
            with pytest.raises(UserError, match=r"3 cells of 4 channels, batches of 8.* make search.channels"):
                room.check_search(CONFIG, INFO, CPU)
    monkeypatch.setattr(room, "memory_of", lambda device: training - 1)
    with pytest.raises(UserError, match=r"the training \(3 cells of 4 channels.* make retrain.channels"):
        room.check_training(CONFIG, genotype, INFO, CPU)
    monkeypatch.setattr(room, "memory_of", lambda device: training)
    room.check_training(CONFIG, genotype, INFO, CPU)


def test_what_is_hopeless_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the weights alone, as of 64 cells of 512 channels."""
    monkeypatch.setattr(room, "step_memory", None)
    monkeypatch.setattr(room, "memory_of", lambda device: 24 * 2**30)
    huge = resolve({"search": {"num_cells": 64, "channels": 512}, "retrain": {"num_cells": 64, "channels": 512}})
    with pytest.raises(UserError, match=r"64 cells of 512 channels, batches of 128\) needs at least 124\.\d GiB"):
        room.check_search(huge, INFO, CPU)


def test_what_is_far_from_the_limit_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "step_memory", None)
    room.check_search(CONFIG, INFO, CPU)
    room.check_training(CONFIG, ZOO["DARTS_V2"].genotype, INFO, CPU)
