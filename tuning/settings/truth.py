"""A truth: a sweep that trains every genotype of a small space, with every seed that the file names.

This module imports no Ray, Optuna, MLflow or torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import merge, parse_override, read_yaml, set_path
from ddarts_core.settings.config import enumeration_of, resolve

from .config import SweepConfig, resolve_sweep

NUMBER = "search.number"

#: What makes a sweep of a truth: each genotype once, trained to its end.
TUNE = {"searcher": "grid", "scheduler": "fifo", "objective": "derived"}


def load_truth(path: str | Path, overrides: Iterable[str] = ()) -> SweepConfig:
    """Read the file of a truth, and return the sweep that trains its genotypes.

    The file is that of an experiment. Its space may draw `seed`, the seed of the trainings; without this, each genotype
    is trained once. All trainings have the same split of the images, which follows from `data.split.seed`, or from the
    file's seed without it. So a search on the same split never trains on images that score the truth.

    Raises:
        UserError: a setting is wrong, the file draws another setting, or the space has too many genotypes.
    """
    data: dict[str, Any] = dict(read_yaml(path))
    for text in overrides:
        data = set_path(data, *parse_override(text))
    where = str(path)
    config = resolve(data, model=SweepConfig, where=where)
    try:
        every = enumeration_of(config)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if drawn := sorted(set(config.space) - {"seed", NUMBER}):
        raise UserError(
            f"{where}: space.{drawn[0]} has no place in a truth, whose trainings differ in genotype and seed"
        )
    given = config.tune.model_dump(include=config.tune.model_fields_set & set(TUNE))
    if wrong := [name for name, value in given.items() if value != TUNE[name]]:
        raise UserError(f"{where}: tune.{wrong[0]} of a truth is {TUNE[wrong[0]]}: leave it out")
    split = {"data": {"split": {"seed": config.seed if config.data.split.seed is None else config.data.split.seed}}}
    seeds = data.get("space", {}).get("seed", {"type": "categorical", "choices": [config.seed]})
    space = {"seed": seeds, NUMBER: {"type": "int", "low": 0, "high": len(every) - 1}}
    # A range of one number, or a choice of one, is what it is.
    return resolve_sweep({**merge(merge(data, split), {"tune": TUNE}), "space": space}, where=where)
