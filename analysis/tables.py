"""Tables of repeated runs: a metric by the value of a setting, mean and 95 % interval over trials. Pure functions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from ddarts_core.ground import nested
from ddarts_core.ground.errors import UserError, unknown_name
from ddarts_core.loops.records import LATER
from ddarts_core.settings.hashing import PLACES
from ddarts_core.settings.idle import idle

from . import ranking
from .collect import Frames
from .statistics import comparison, mean_interval

Reduce = Literal["last", "best", "lowest"]

#: The row of runs in which the setting has no part, as the weight of an ablation loss that is off.
UNUSED = "not used"

#: Settings that differ within a row and are named under the table.
NAMED = 6


def by_setting(frames: Frames, by: str, metric: str, reduce: Reduce = "last", first: str | None = None) -> pd.DataFrame:
    """Tabulate a metric: one row per value of a setting, over completed trials.

    The columns are the value, `seeds` (how many runs have the metric), the `mean` of the metric, the ends `low` and
    `high` of its 95 % interval, the `difference` to the first value, the ends `difference_low` and
    `difference_high` of its 95 % interval, and `compared`. The second column is called `trials` instead of `seeds` if
    trials of a row differ in more than the seed (see `varying`). The interval of the difference is that of
    `statistics.comparison`, and `compared` says how the runs were compared. Unless that interval leaves out 0, the runs
    do not tell the value from the first one. Held-out images are dealt by the seed, so that their noise is part of the
    spread over seeds. Runs in which the setting changes nothing are one row, `UNUSED`, the last one.

    Args:
        frames: the tables of one or more studies.
        by: dotted path of a setting, for example `ablation.weight`.
        metric: a metric of the epochs (`held_out/accuracy`), else one of `ranking.metrics`: a column of trials
            (`parameters`), or an objective (`derived/held_out/accuracy`).
        reduce: which epoch's value counts, among the epochs that `searched` keeps: that of the last epoch (`last`), the
            highest (`best`) or the lowest (`lowest`).
        first: the value, as text, of the first row, which the other rows are compared with; None takes the smallest.

    Raises:
        UserError: no trial is completed, or none has the setting, the metric or the value `first`.
    """
    trials = _completed(frames)
    values = _metric_values(frames, trials, metric, reduce)
    groups: dict[Any, list[tuple[int, float]]] = {}
    for (study, trial), config in zip(
        trials[["study", "trial_id"]].itertuples(index=False), trials["config_json"], strict=True
    ):
        settings = json.loads(config)
        run = (int(settings["seed"]), values.get((study, trial), math.nan))
        groups.setdefault(_setting(settings, by), []).append(run)
    counted = "trials" if varying(frames, by) else "seeds"
    rows = []
    known = {str(value): value for value in groups}
    if first is not None and first not in known:
        raise unknown_name(f"value of {by}", first, known)
    ordered = sorted(groups, key=lambda value: (str(value) != first, value == UNUSED, isinstance(value, str), value))
    for value in ordered:
        found = mean_interval([value for _, value in groups[value]])
        if "accuracy" in metric:
            found = found.of_shares()
        apart = comparison(groups[ordered[0]], groups[value])
        rows.append(
            {
                by: value,
                counted: found.count,
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "difference": apart.difference,
                "difference_low": apart.low,
                "difference_high": apart.high,
                "compared": apart.choice,
            }
        )
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def varying(frames: Frames, by: str) -> list[str]:
    """Dotted paths of the settings that differ between completed trials with the same value of `by`, ascending.

    Trials in which a setting has no part say nothing of it. The seed and the places of data, runs and devices are left
    out. Where the trials of a row differ in these alone, the spread of the row is that of seeds; in any other row it is
    mixed with the effect of the settings.

    Raises:
        UserError: no trial is completed, or none has the setting.
    """
    groups: dict[Any, list[dict[str, Any]]] = {}
    for config in _completed(frames)["config_json"]:
        settings = json.loads(config)
        unused = dict.fromkeys(idle(settings), UNUSED)
        groups.setdefault(_setting(settings, by), []).append(dict(nested.leaves(settings)) | unused)
    paths = {path for group in groups.values() for leaves in group for path in leaves} - {"seed", by, *PLACES}
    return sorted(path for path in paths if any(_differs(path, group) for group in groups.values()))


def _differs(path: str, group: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting has two values among runs in which it has a part."""
    values = [value for leaves in group if (value := leaves.get(path)) != UNUSED]
    return any(value != values[0] for value in values)


def markdown(table: pd.DataFrame, metric: str, varied: Sequence[str] = (), digits: int = 4) -> str:
    """The table of `by_setting` as Markdown.

    No value is in bold: the intervals say what differs. A dash stands for a value that there is not.

    Args:
        table: the table of `by_setting`.
        metric: the metric, which heads the column of its mean.
        varied: the settings of `varying`, which a line under the table names.
        digits: how many decimals means, differences and intervals have.
    """
    by, counted = table.columns[:2]
    lines = [
        f"| {by} | {counted} | {metric} | 95 % interval | difference to the first | 95 % interval | compared |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, row in enumerate(table.itertuples(index=False)):
        value, seeds, mean, low, high, difference, difference_low, difference_high, compared = row
        apart = ["–", "–", "–"]  # the first is not compared with itself
        if place:
            signed = f"+.{digits}f"
            apart = [_number(difference, signed), _interval(difference_low, difference_high, signed), compared]
        cells = [value, seeds, _number(mean, f".{digits}f"), _interval(low, high, f".{digits}f"), *apart]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if varied:
        named = [*varied[:NAMED], "..."] if len(varied) > NAMED else [*varied]
        lines += ["", f"The trials of a row differ in more than their seeds: {', '.join(named)}"]
    return "\n".join(lines)


def searched(epochs: pd.DataFrame) -> pd.DataFrame:
    """The epochs that trained alphas: all but retraining and warm-up.

    A trial that never trains its alphas, such as one of random search, is counted by the epochs of its weights.
    """
    rows = epochs[~epochs["phase"].isin(LATER)]
    warmup = rows["phase"] == "warmup"
    kept: pd.DataFrame = rows[
        ~warmup | warmup.groupby([rows["study"], rows["trial_id"]], observed=True).transform("all")
    ]
    return kept


def _completed(frames: Frames) -> pd.DataFrame:
    trials: pd.DataFrame = frames.trials[frames.trials["state"] == "COMPLETED"]
    if trials.empty:
        raise UserError("no trial is completed: there is nothing to tabulate yet (see ddarts status)")
    return trials


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _interval(low: float, high: float, form: str) -> str:
    """Both ends of an interval; a dash where there is no interval, as of a single seed."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{low:{form}} to {high:{form}}"


def _setting(config: Any, path: str) -> Any:
    try:
        value = nested.get_path(config, path)
    except (KeyError, TypeError):
        raise UserError(f"no trial has a setting {path!r}: give a dotted path such as search.w_zero_one") from None
    if isinstance(value, Mapping):
        raise UserError(
            f"{path!r} is a group of settings: give one of them, such as {path}.{next(iter(value), 'NAME')}"
        )
    if path in idle(config):
        return UNUSED
    return value if isinstance(value, (int, float, str)) else json.dumps(value)


def _metric_values(frames: Frames, trials: pd.DataFrame, metric: str, reduce: Reduce) -> dict[tuple[Any, ...], float]:
    epochs = searched(frames.epochs)
    name = epochs["split"].astype(str) + "/" + epochs["metric"].astype(str)
    recorded = set(name)
    if metric not in recorded:
        rows: list[Any] = trials.to_dict("records")
        known = ranking.metrics(rows)
        if metric not in known:
            raise unknown_name("metric", metric, recorded.union(known))
        return {(row["study"], row["trial_id"]): ranking.value(row, metric) for row in rows}
    picked = epochs[name == metric].sort_values("epoch").groupby(["study", "trial_id"], observed=True)["value"]
    found = {"last": picked.last, "best": picked.max, "lowest": picked.min}[reduce]()
    return {tuple(key) if isinstance(key, tuple) else (key,): float(number) for key, number in found.items()}
