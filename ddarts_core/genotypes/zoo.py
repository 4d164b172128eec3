"""Published genotypes by name: those of the DARTS family, of D-DARTS, and handcrafted networks. Torch-free."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..ground.errors import UserError, unknown_name
from .genotype import Genotype
from .handcrafted import ENCODED, HANDCRAFTED
from .published_text import Notes, load_text

PREFIX = "zoo:"


@dataclass(frozen=True)
class ZooEntry:
    """A genotype, where it was published, and what to know about it."""

    genotype: Genotype
    source: str
    note: str


def _load() -> dict[str, ZooEntry]:
    data = json.loads(Path(__file__).with_name("zoo.json").read_text(encoding="utf-8"))
    zoo = {
        name: ZooEntry(Genotype.from_text(entry["genotype"]), entry["source"], entry["note"])
        for name, entry in data.items()
    }
    for name, builder in HANDCRAFTED.items():
        source = "D-DARTS section 4.4"
        zoo[name] = ZooEntry(builder(1), source, "cells read the cell before them; train with 64 channels")
        if name in ENCODED:
            zoo[f"{name}_published"] = ZooEntry(
                builder(0), source, "the published wiring: cells read only input 0, so every second cell is dead"
            )
    return zoo


#: Entry by name, in a fixed order.
ZOO: Mapping[str, ZooEntry] = MappingProxyType(_load())


def resolve_genotype(argument: str) -> Genotype:
    """The genotype that is meant by `zoo:NAME`, or by a file with JSON or a published text form.

    Raises:
        UserError: see `read_genotype`.

    Example:
        >>> resolve_genotype("zoo:ResNet18").num_cells
        4
    """
    return read_genotype(argument)[0]


def read_genotype(argument: str) -> tuple[Genotype, Notes]:
    """The genotype that a command line argument means: `zoo:NAME`, or a file with JSON or a published text form.

    Returns:
        It, and sentences for the user on a file that is not read as it is written (`published_text.read_text`).

    Raises:
        UserError: the name is not in `ZOO`, or the file is missing or not a genotype.
    """
    if argument.startswith(PREFIX):
        name = argument.removeprefix(PREFIX)
        if name not in ZOO:
            near = difflib.get_close_matches(name.lower(), [known.lower() for known in ZOO], n=1)
            hint = "".join(f"; did you mean {known!r}?" for known in ZOO if known.lower() in near)
            raise UserError(f"{unknown_name('zoo genotype', name, ZOO)}{hint}")
        return ZOO[name].genotype, ()
    if not argument:
        raise UserError("the name of a genotype is empty: give a file or zoo:NAME")
    return load_text(argument)
