"""ddarts from Python: a dozen names, each imported when it is used.

`docs/python.md` goes through them. A genotype that is the result of a notebook's cell is drawn, and a study shows its
table and its front, as soon as `ddarts` is imported there.

Example:
    >>> import ddarts
    >>> tiny = {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 1, "batch_size": 20}
    >>> found = ddarts.search({"method": "ddarts", "data": {"num_train": 60}, "search": tiny})
    >>> found.genotype.num_cells
    3
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from .lazily import import_from

if TYPE_CHECKING:
    from ddarts_analysis.drawing import draw_genotype

    from ddarts_core.genotypes.genotype import AnyGenotype, Genotype
    from ddarts_core.genotypes.zoo import resolve_genotype as load_genotype
    from ddarts_core.networks.network import Network
    from ddarts_core.search.discretise import discretise

    from .exports import load_export
    from .settings import load_config
    from .studies import open_study, sweep
    from .training import build_search, retrain, search

__all__ = [
    "Genotype",
    "Network",
    "build_search",
    "discretise",
    "draw_genotype",
    "load_config",
    "load_export",
    "load_genotype",
    "open_study",
    "retrain",
    "search",
    "sweep",
]

#: Name -> its module, and what it is called there if otherwise.
_WHERE = {
    "Genotype": "ddarts_core.genotypes.genotype",
    "Network": "ddarts_core.networks.network",
    "build_search": "ddarts.training",
    "discretise": "ddarts_core.search.discretise",
    "draw_genotype": "ddarts_analysis.drawing",
    "load_config": "ddarts.settings",
    "load_export": "ddarts.exports",
    "load_genotype": "ddarts_core.genotypes.zoo:resolve_genotype",
    "open_study": "ddarts.studies",
    "retrain": "ddarts.training",
    "search": "ddarts.training",
    "sweep": "ddarts.studies",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__`, or the version, when it is asked for."""
    if name == "__version__":
        return importlib.import_module("ddarts_core").__version__
    found = globals()[name] = import_from(_WHERE, __name__, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _draw_in_notebooks() -> None:
    """Where IPython runs, tell it how a genotype is drawn; the core, which has genotypes, draws none."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and getattr(shell, "display_formatter", None) is not None:

        def svg(genotype: AnyGenotype) -> str:
            return str(importlib.import_module("ddarts.display").svg_of(genotype))

        formatter = shell.display_formatter.formatters["image/svg+xml"]
        formatter.for_type_by_name("ddarts_core.genotypes.genotype", "Genotype", svg)
        formatter.for_type_by_name("ddarts_core.genotypes.blocks", "StagedGenotype", svg)


_draw_in_notebooks()
