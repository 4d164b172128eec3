"""One form for an ablation loss, which a file may name in two places: in `ablation` or in `search.regularisers`.

A configuration keeps the first form: the group `ablation` also holds the settings of the passes that measure the cells.
Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ground.errors import UserError
from ..ground.validation import validate
from .search_settings import RegulariserConfig

_TERMS = "search.regularisers."


def in_one_form(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Move an ablation loss that `search.regularisers` names into the group `ablation`.

    What the term does not say stays as the group `ablation` says it.

    Args:
        settings: the settings as a file has them, in groups.

    Returns:
        A copy of the settings in which an ablation loss stands only in `ablation`.

    Raises:
        UserError: two ablation losses are named, or the term and `ablation` give one setting different values.

    Example:
        >>> in_one_form({"search": {"regularisers": {"ablation-paper": {"weight": 2.0}}}})
        {'search': {}, 'ablation': {'loss': 'paper', 'weight': 2.0}}
    """
    from ..methods.parts import Ablation

    found = dict(settings)
    search, own = found.get("search"), found.get("ablation", {})
    terms: Any = search.get("regularisers") if isinstance(search, Mapping) else None
    named = [name for name in terms if str(name).startswith(Ablation.PREFIX)] if isinstance(terms, Mapping) else []
    if not named or not isinstance(own, Mapping) or search is None:
        return found
    if len(named) > 1:
        raise UserError(f"search.regularisers names {' and '.join(named)}: a search has one ablation loss at most")
    name = named[0]
    validate(RegulariserConfig, terms[name], f"{_TERMS}{name}")
    said = {"loss": name.removeprefix(Ablation.PREFIX), **terms[name]}
    for key, value in said.items():
        if own.get(key, value) != value:
            raise UserError(
                f"{_TERMS}{name} means ablation.{key} {value}, but ablation.{key} is {own[key]}: leave one of them out"
            )
    rest = {other: term for other, term in terms.items() if other != name}
    kept = {key: value for key, value in search.items() if key != "regularisers"}
    return {**found, "search": {**kept, **({"regularisers": rest} if rest else {})}, "ablation": {**own, **said}}


def where_kept(settings: Mapping[str, Any], path: str) -> str:
    """Return the dotted path under which settings in the form of `in_one_form` keep what a path means.

    Args:
        settings: all settings of an experiment, in that form.
        path: the dotted path of any setting. Only a path into the term of the ablation loss in use is changed.
    """
    from ..methods.parts import Ablation

    name, _, key = path.removeprefix(_TERMS).rpartition(".")
    in_use = path.startswith(_TERMS) and name == f"{Ablation.PREFIX}{settings['ablation']['loss']}"
    return f"ablation.{key}" if in_use else path
