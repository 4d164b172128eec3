"""What a plug-in imports, and what loads one, in one place; each is imported when it is used (docs/extending.md).

Example:
    >>> from ddarts.plugins import S, load
    >>> len(S)
    7
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazily import import_from

if TYPE_CHECKING:
    from ddarts_tuning.settings.searchers import SEARCHERS, Searcher

    from ddarts_core.data.sets import OwnImages, Published
    from ddarts_core.datasets.facts import DataInfo
    from ddarts_core.datasets.sources import Found
    from ddarts_core.genotypes.spaces import S_O, S
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.plugins import load, load_installed
    from ddarts_core.ground.validation import Strict
    from ddarts_core.methods import common, darts, parts, rules
    from ddarts_core.methods.method import Method
    from ddarts_core.networks.operations import BatchNorm, Normalised

__all__ = [
    "SEARCHERS",
    "S_O",
    "BatchNorm",
    "DataInfo",
    "Found",
    "Method",
    "Normalised",
    "OwnImages",
    "Published",
    "S",
    "Searcher",
    "Strict",
    "UserError",
    "common",
    "darts",
    "load",
    "load_installed",
    "parts",
    "rules",
]

_WHERE = {
    "BatchNorm": "ddarts_core.networks.operations",
    "DataInfo": "ddarts_core.datasets.facts",
    "Found": "ddarts_core.datasets.sources",
    "Method": "ddarts_core.methods.method",
    "Normalised": "ddarts_core.networks.operations",
    "OwnImages": "ddarts_core.data.sets",
    "Published": "ddarts_core.data.sets",
    "SEARCHERS": "ddarts_tuning.settings.searchers",
    "S": "ddarts_core.genotypes.spaces",
    "S_O": "ddarts_core.genotypes.spaces",
    "Searcher": "ddarts_tuning.settings.searchers",
    "Strict": "ddarts_core.ground.validation",
    "UserError": "ddarts_core.ground.errors",
    "common": "ddarts_core.methods",
    "darts": "ddarts_core.methods",
    "load": "ddarts_core.ground.plugins",
    "load_installed": "ddarts_core.ground.plugins",
    "parts": "ddarts_core.methods",
    "rules": "ddarts_core.methods",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` when it is asked for."""
    found = globals()[name] = import_from(_WHERE, __name__, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
