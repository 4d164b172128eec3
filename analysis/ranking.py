"""Which trial is best: one ranking for the sweep's table, the export and the report. Pure functions on plain rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ddarts_core.ground.errors import UserError

Row = Mapping[str, Any]

Item = TypeVar("Item")

#: Short names that a user may type.
ALIASES: Mapping[str, str] = {"params": "parameters", "flops": "macs", "trial": "number"}

#: The keyword that ranks by the front of accuracy and parameters.
PARETO = "pareto"

_ACCURACIES = ("accuracy", "balanced_accuracy")
_NUMERIC = (
    *("objective", "parameters", "macs", "seconds", "number", "num_epochs", "search_seconds", "search_macs"),
    *("latency_ms", "latency_spread_ms"),
    *("baseline_accuracy", "baseline_parameters", "baseline_macs", "gain", "transfer_box_ap", "transfer_box_ap50"),
    *(f"{network}{name}" for name in _ACCURACIES for network in ("", "derived_", "held_out_")),
)


def is_beyond(row: Row) -> bool:
    """Whether a trial's network is beyond a limit of the sweep.

    Args:
        row: the trial's row of table `trials`, or its `trial.json`. Trials of older versions do not say whether their
            networks are: the answer is False.
    """
    return isinstance(row.get("beyond"), (str, list)) and bool(row["beyond"])


def contenders(trials: Sequence[Row]) -> list[Row]:
    """The trials that may be best: those within all limits, or all trials if none is."""
    return [row for row in trials if not is_beyond(row)] or [*trials]


def rank(trials: Sequence[Row], by: str = "-objective") -> list[Row]:
    """Completed trials, best first; those beyond a limit of the sweep come after all that are within.

    Args:
        trials: rows of table `trials` (`study.trial_row`, or a frame's `to_dict("records")`).
        by: metrics, separated by commas, such as `-accuracy,params`. A minus before a metric means that its largest
            value comes first. A later metric decides between trials that are equal in the earlier ones, and at last
            the trial number decides. `accuracy` is the derived network's where it is known, else the supernet's.
            `pareto` keeps only the `contenders` on the `pareto_front` of accuracy (`sought`) and parameters.

    Raises:
        UserError: a metric that no completed trial has.

    Example:
        >>> rows = [{"state": "COMPLETED", "number": n, "objective": v} for n, v in enumerate((0.5, 0.7))]
        >>> [row["number"] for row in rank(rows, "-objective")]
        [1, 0]
    """
    completed = [row for row in trials if row["state"] == "COMPLETED"]
    if by.strip() == PARETO:
        completed = contenders(completed)
        keys = [(sought(completed), True), ("parameters", False)]
        points = [tuple(value(row, name) for name, _ in keys) for row in completed]
        known = [i for i, point in enumerate(points) if not any(math.isnan(v) for v in point)]
        front = pareto_front([points[i] for i in known], [largest for _, largest in keys])
        completed = [completed[known[i]] for i in front]
    else:
        keys = _parse(by)
        for name, _ in keys:
            if completed and not any(_has(row, name) for row in completed):
                raise UserError(
                    f"no completed trial has a metric {name!r} to rank by: choose from {', '.join(metrics(completed))}"
                )

    def order(row: Row) -> tuple[float, ...]:
        values = [value(row, name) for name, _ in keys]
        signed = [-v if largest else v for v, (_, largest) in zip(values, keys, strict=True)]
        return (is_beyond(row), *(math.inf if math.isnan(v) else v for v in signed), float(row.get("number") or 0))

    return sorted(completed, key=order)


def epochs_of(config: Mapping[str, Any], trained: bool, searched: int | None = None) -> str:
    """A trial's numbers of epochs as a table shows them.

    Args:
        config: the configuration of the trial.
        trained: whether the training of the derived network counts. If so, its number of epochs follows that of the
            search behind a plus sign.
        searched: how many epochs the search had; None stands for those of the configuration, of which a search does
            not have all if it stops by itself or spent its seconds.

    Returns:
        The number of epochs of the search, warm-up included, and of the training if it counts.

    Example:
        >>> epochs_of({"search": {"epochs": 4, "warmup_epochs": 1}, "retrain": {"epochs": 3}}, trained=True)
        '5+3'
    """
    if searched is None:
        search = config.get("search") or {}
        searched = (search.get("warmup_epochs") or 0) + (search.get("epochs") or 0)
    return f"{searched}+{(config.get('retrain') or {}).get('epochs')}" if trained else str(searched)


UNEQUAL = "Trials had different numbers of epochs: their accuracies are not of equal budgets."
"""What a table says whose trials had."""


def default_order(objectives: Sequence[Mapping[str, Any]]) -> str:
    """The `by` that a study's objectives [{metric, mode}] ask for; `-objective` when there are none."""
    if not objectives:
        return "-objective"
    first, *others = objectives
    keys = [("" if first.get("mode") == "min" else "-") + "objective"]
    keys += [("" if o.get("mode") == "min" else "-") + str(o["metric"]) for o in others]
    return ",".join(keys)


def sought(trials: Iterable[Row]) -> str:
    """Which accuracy the first objective of these trials is of: `accuracy`, or `balanced_accuracy` (`tune.metric`)."""
    first = (next(iter(_objectives(row)), "") for row in trials)
    return "balanced_accuracy" if any(name.endswith("balanced_accuracy") for name in first) else "accuracy"


def names() -> list[str]:
    """Names that `rank` accepts where trials have them, short ones included."""
    return sorted({*_NUMERIC, *ALIASES})


def metrics(trials: Sequence[Row]) -> list[str]:
    """Names that `rank` accepts for these trials."""
    names = {name for name in _NUMERIC for row in trials if _has(row, name)}
    for row in trials:
        names |= set(_objectives(row))
    return sorted(names)


def value(row: Row, name: str) -> float:
    """A trial's number by metric name; NaN where it has none."""
    found = _lookup(row, name)
    return math.nan if found is None else float(found)


def pareto_front(points: Sequence[Sequence[float]], largest: Sequence[bool]) -> list[int]:
    """Indices, ascending, of the points that no other point dominates.

    A point dominates another when it is at least as good everywhere and better somewhere; `largest` says for each
    coordinate whether more is better. Equal points are all kept.

    Example:
        >>> pareto_front([(0.9, 5), (0.8, 3), (0.7, 4)], [True, False])
        [0, 1]
    """
    signed = [[-v if more else v for v, more in zip(point, largest, strict=True)] for point in points]

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return [i for i, point in enumerate(signed) if not any(dominates(other, point) for other in signed)]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced in their order; the first and the last are always among them.

    Args:
        items: the items to choose from.
        most: the largest number of items to return, two or more.

    Example:
        >>> evenly("abcdefg", 3)
        ['a', 'd', 'g']
    """
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _parse(by: str) -> list[tuple[str, bool]]:
    keys = []
    for part in by.split(","):
        text = part.strip()
        name = text.lstrip("+-")
        if not name:
            raise UserError(f"cannot rank by {by!r}: expected metrics such as -accuracy,params")
        keys.append((ALIASES.get(name, name), text.startswith("-")))
    return keys


def _objectives(row: Row) -> dict[str, Any]:
    return dict(json.loads(row.get("objectives_json") or "{}"))


def _lookup(row: Row, name: str) -> Any:
    if name in _ACCURACIES:
        derived = row.get(f"derived_{name}")
        return row.get(f"held_out_{name}") if _empty(derived) else derived
    if name in _NUMERIC:
        found = row.get(name)
        return None if _empty(found) else found
    return _objectives(row).get(name)


def _empty(found: Any) -> bool:
    return found is None or (isinstance(found, float) and math.isnan(found))


def _has(row: Row, name: str) -> bool:
    return not _empty(_lookup(row, name))
