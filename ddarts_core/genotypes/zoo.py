"""Published genotypes by name: of the DARTS family, of D-DARTS, of FBNetV2, and handcrafted networks. Torch-free."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from ..ground.errors import UserError, unknown_name
from .blocks import StagedGenotype
from .genotype import AnyGenotype, Genotype
from .handcrafted import ENCODED, HANDCRAFTED
from .published_text import Notes, load_text, read_text

PREFIX = "zoo:"


Kind = TypeVar("Kind", bound=AnyGenotype, covariant=True)


@dataclass(frozen=True)
class ZooEntry(Generic[Kind]):
    """A genotype, where it was published, and what a user should know about it."""

    genotype: Kind
    source: str
    note: str


def _load() -> tuple[dict[str, ZooEntry[Genotype]], dict[str, ZooEntry[StagedGenotype]]]:
    """Read the published genotypes, those of cells and those of stages."""
    zoo: dict[str, ZooEntry[Genotype]] = {}
    staged: dict[str, ZooEntry[StagedGenotype]] = {}
    data = json.loads(Path(__file__).with_name("zoo.json").read_text(encoding="utf-8"))
    for name, entry in data.items():
        genotype, _ = read_text(entry["genotype"])
        if isinstance(genotype, StagedGenotype):
            staged[name] = ZooEntry(genotype, entry["source"], entry["note"])
        else:
            zoo[name] = ZooEntry(Genotype.narrowed(genotype), entry["source"], entry["note"])
    for name, builder in HANDCRAFTED.items():
        source = "D-DARTS section 4.4"
        zoo[name] = ZooEntry(builder(1), source, "cells read the cell before them; train with 64 channels")
        if name in ENCODED:
            zoo[f"{name}_published"] = ZooEntry(
                builder(0), source, "the published wiring: cells read only input 0, so every second cell is dead"
            )
    return zoo, staged


_OF_CELLS, _STAGED = _load()

#: Genotypes of cells by name, in a fixed order.
ZOO: Mapping[str, ZooEntry[Genotype]] = MappingProxyType(_OF_CELLS)

#: Genotypes of stages by name.
STAGED: Mapping[str, ZooEntry[StagedGenotype]] = MappingProxyType(_STAGED)

#: All that `zoo:NAME` means.
EVERY: Mapping[str, ZooEntry[AnyGenotype]] = MappingProxyType({**ZOO, **STAGED})


def resolve_genotype(argument: str) -> AnyGenotype:
    """The genotype that is meant by `zoo:NAME`, or by a file with JSON or a published text form.

    Raises:
        UserError: see `read_genotype`.

    Example:
        >>> resolve_genotype("zoo:ResNet18").num_cells
        4
    """
    return read_genotype(argument)[0]


def read_genotype(argument: str) -> tuple[AnyGenotype, Notes]:
    """The genotype that a command line argument means: `zoo:NAME`, or a file with JSON or a published text form.

    Returns:
        The genotype, and sentences for the user about a file that is not read as it is written
        (`published_text.read_text`).

    Raises:
        UserError: the name is not in `EVERY`, or the file is missing or not a genotype.
    """
    if argument.startswith(PREFIX):
        name = argument.removeprefix(PREFIX)
        if name not in EVERY:
            near = difflib.get_close_matches(name.lower(), [known.lower() for known in EVERY], n=1)
            hint = "".join(f"; did you mean {known!r}?" for known in EVERY if known.lower() in near)
            raise UserError(f"{unknown_name('zoo genotype', name, EVERY)}{hint}")
        return EVERY[name].genotype, ()
    if not argument:
        raise UserError("the name of a genotype is empty: give a file or zoo:NAME")
    return load_text(argument)
