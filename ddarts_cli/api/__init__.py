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

if TYPE_CHECKING:
    from ddarts_analysis.drawing import draw_genotype

    from ddarts_core.discretise import discretise
    from ddarts_core.genotype import Genotype
    from ddarts_core.network import Network
    from ddarts_core.zoo import resolve_genotype as load_genotype

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
    "Genotype": "ddarts_core.genotype",
    "Network": "ddarts_core.network",
    "build_search": "ddarts.training",
    "discretise": "ddarts_core.discretise",
    "draw_genotype": "ddarts_analysis.drawing",
    "load_config": "ddarts.settings",
    "load_export": "ddarts.exports",
    "load_genotype": "ddarts_core.zoo:resolve_genotype",
    "open_study": "ddarts.studies",
    "retrain": "ddarts.training",
    "search": "ddarts.training",
    "sweep": "ddarts.studies",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__`, or the version, when it is asked for."""
    if name == "__version__":
        return importlib.import_module("ddarts_core").__version__
    if name not in _WHERE:
        raise AttributeError(f"module 'ddarts' has no attribute {name!r}: it has {', '.join(__all__)}")
    module, _, called = _WHERE[name].partition(":")
    found = globals()[name] = getattr(importlib.import_module(module), called or name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _draw_in_notebooks() -> None:
    """Where IPython runs, tell it how a genotype is drawn; the core, which has genotypes, draws none."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and getattr(shell, "display_formatter", None) is not None:

        def svg(genotype: Genotype) -> str:
            return str(importlib.import_module("ddarts.display").svg_of(genotype))

        formatter = shell.display_formatter.formatters["image/svg+xml"]
        formatter.for_type_by_name("ddarts_core.genotype", "Genotype", svg)


_draw_in_notebooks()
