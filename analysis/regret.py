"""What searches are worth by a truth: as one document, as tables in Markdown, and as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import axes, legend
from .palette import COLOURS, dash_of, shape_of
from .prediction import cell_correlations, free_predictors, gate_correlations, one_shot_correlations
from .simulation import simulate
from .statistics import Estimate, mean_interval
from .study import Study
from .truth import Truth, expected_regret, regrets

#: Looks of a simulated search, at most: a fifth of the truth says what there is to say.
LOOKS = 100

RUNS = 200


def judge(truth: Truth, studies: Sequence[Study], runs: int = RUNS) -> dict[str, Any]:
    """Everything that a truth says about itself, about searches, and about what predicts it, as one document.

    Args:
        truth: the truth that judges.
        studies: the studies whose searches are judged.
        runs: how many runs each simulated search has.

    Returns:
        The document as plain data, by part: `truth`, `methods`, `searches`, `cells`, `predictors`, `simulated`.

    Raises:
        UserError: see `truth.regrets`.
    """
    found = truth.architectures
    searches = regrets(truth, studies)
    gates, one_shot = gate_correlations(truth, studies), one_shot_correlations(truth, studies)
    looks = min(LOOKS, max(10, len(found) // 5))
    return {
        "truth": {
            "study": truth.study.name,
            "genotypes": truth.every.size,
            "distinct": len(truth.every),
            "trained": len(found),
            "trainings": len(truth.trainings),
            "best": float(found["accuracy"].max()),
            "median": float(found["accuracy"].median()),
            "worst": float(found["accuracy"].min()),
            "noise": truth.noise,
            "reliability": truth.reliability,
            "seconds": float(truth.trainings["seconds"].mean()),
        },
        "methods": [
            _of_method(truth, str(name), rows, gates, one_shot) for name, rows in searches.groupby("method", sort=True)
        ],
        "searches": searches.to_dict("records"),
        "cells": {name: vars(one) for name, one in cell_correlations(truth, studies).items()},
        "predictors": {name: vars(one) for name, one in free_predictors(truth).items()},
        "simulated": {
            name: [vars(estimate) for estimate in curve] for name, curve in simulate(truth, looks, runs).items()
        },
    }


def _of_method(
    truth: Truth, method: str, rows: pd.DataFrame, gates: pd.DataFrame, one_shot: pd.DataFrame
) -> dict[str, Any]:
    """Means over a method's searches that found a genotype of the truth, with their 95 % intervals."""
    known = rows.dropna(subset="regret")
    by_chance = [expected_regret(truth, int(draws)) for draws in known["draws"]]
    differences = [float(regret) - other for regret, other in zip(known["regret"], by_chance, strict=True)]
    return {
        "method": method,
        "searches": len(rows),
        "outside": len(rows) - len(known),
        "regret": vars(mean_interval(known["regret"].tolist())),
        "rank": vars(mean_interval(known["rank"].tolist())),
        "chance": None if known.empty else float(known["chance"].mean()),
        "draws": round(float(rows["draws"].mean())),
        "random_regret": mean_interval(by_chance).mean,
        "difference": vars(mean_interval(differences)),
        "gates": vars(mean_interval(gates[gates["method"] == method]["rho"].tolist())),
        "one_shot": vars(mean_interval(one_shot[one_shot["method"] == method]["rho"].tolist())),
    }


def plain(value: Any) -> Any:
    """The document as plain data for JSON: NaN and missing values become None, which JSON writes as null."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if value is pd.NA or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


# --- words ----------------------------------------------------------------------------------------------------------


def markdown(found: Mapping[str, Any]) -> str:
    """The document in Markdown: what the truth is, and the tables."""
    return "\n\n".join([truth_words(found["truth"]), *(_table(*one) for one in tables(found))])


def truth_words(truth: Mapping[str, Any]) -> str:
    """What was trained, how far accuracies lie apart, and how much of that is chance, in sentences."""
    share = "all" if truth["trained"] == truth["distinct"] else f"{truth['trained']:,} of"
    lines = [
        f"Truth {truth['study']}: {share} {truth['distinct']:,} distinct genotypes trained, {truth['trainings']:,} "
        f"trainings of {truth['seconds']:.1f} s. Accuracy from {_percent(truth['worst'])} over "
        f"{_percent(truth['median'])} (median) to {_percent(truth['best'])}."
    ]
    if math.isnan(truth["noise"]):
        lines.append("Each was trained with one seed: how much of the order is chance cannot be told.")
    else:
        lines.append(
            f"Two trainings of one genotype differ by a standard deviation of {100 * truth['noise']:.2f} points; "
            f"{_percent(truth['reliability'])} of the variance between genotypes is not chance."
        )
    return " ".join(lines)


def tables(found: Mapping[str, Any]) -> list[tuple[Sequence[str], list[Sequence[str]]]]:
    """The tables of the document, each as its head and its rows.

    The first table has a row per method; it is left out if there are no searches. The tables of what predicts the
    truth follow, and the table of the simulated searches is the last.
    """
    tables: list[tuple[Sequence[str], list[Sequence[str]]]] = []
    if found["methods"]:
        head: Sequence[str] = (
            "method",
            "searches",
            "regret, points",
            "rank",
            "random search, points",
            "difference, points",
            "chance",
            "gates and worth",
            "one-shot",
        )
        rows: list[Sequence[str]] = [
            (
                one["method"],
                f"{one['searches']}" + (f", {one['outside']} outside" if one["outside"] else ""),
                _interval(one["regret"], 100),
                _interval(one["rank"], 1, "{:.0f}"),
                "" if one["chance"] is None else f"{100 * one['random_regret']:.2f} ({one['draws']} draws)",
                _interval(one["difference"], 100),
                "" if one["chance"] is None else f"{one['chance']:.2f}",
                _interval(one["gates"], 1),
                _interval(one["one_shot"], 1),
            )
            for one in found["methods"]
        ]
        tables.append((head, rows))
    for head, key in (
        (("measured of a cell", "rank correlation with what cutting it costs", "cells"), "cells"),
        (("known without training", "rank correlation with accuracy", "genotypes"), "predictors"),
    ):
        correlations: list[Sequence[str]] = [
            (name.replace("_", " "), _interval({**one, "mean": one["rho"]}, 1), f"{one['count']}")
            for name, one in found[key].items()
        ]
        if correlations:
            tables.append((head, correlations))
    looks = len(next(iter(found["simulated"].values())))
    shown = sorted({1, *(count for count in (3, 10, 30, 100) if count <= looks), looks})
    simulated: list[Sequence[str]] = [
        (name, *(_interval(curve[count - 1], 100) for count in shown)) for name, curve in found["simulated"].items()
    ]
    tables.append(
        (
            ("simulated search: regret, points, after", *(f"{count} look{'s' * (count > 1)}" for count in shown)),
            simulated,
        )
    )
    return tables


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(found: Mapping[str, float], factor: float, form: str = "{:.2f}") -> str:
    """`mean (low to high)`, or the mean alone where there is no interval."""
    mean, low, high = (found[key] for key in ("mean", "low", "high"))
    if math.isnan(mean):
        return ""
    text = form.format(factor * mean)
    return text if math.isnan(low) else f"{text} ({form.format(factor * low)} to {form.format(factor * high)})"


# --- figures --------------------------------------------------------------------------------------------------------


def regret_figure(truth: Truth, found: Mapping[str, Any]) -> Figure:
    """Accuracies of the truth in descending order with the noise of their means, and on them what each method found."""
    rows = truth.architectures.sort_values("rank")
    figure, ax = axes("rank of the genotype in the truth", "accuracy (held out)")
    places = range(1, len(rows) + 1)
    ax.plot(places, rows["accuracy"], color="#9ca3af", linewidth=1.2)
    if not math.isnan(truth.noise):
        low, high = rows["accuracy"] - rows["error"], rows["accuracy"] + rows["error"]
        ax.fill_between(places, low, high, color="#9ca3af", alpha=0.25, linewidth=0, label="noise of seeds")
    order = {number: place for place, number in zip(places, rows.index, strict=True)}
    searches = pd.DataFrame(found["searches"])
    for index, (method, of_method) in enumerate(searches.groupby("method") if len(searches) else ()):
        known = of_method.dropna(subset="regret")
        ax.scatter(
            [order[int(number)] for number in known["number"]],
            known["accuracy"],
            s=22,
            color=COLOURS[index % len(COLOURS)],
            marker=shape_of(index)[0],
            label=f"{method} (n = {len(known)})",
            zorder=3,
        )
    legend(ax)
    return figure


def methods_figure(truth: Truth, found: Mapping[str, Any]) -> Figure:
    """The regret of each method with its 95 % interval, the best on top, and random search of the same cost beside it.

    A line shows the regret of one genotype that is drawn at random.
    """
    known = [one for one in found["methods"] if one["chance"] is not None]
    order = sorted(known, key=lambda one: float(one["regret"]["mean"]), reverse=True)
    figure, ax = _intervals([(one["method"], one["regret"]) for one in order], "regret, points", 100)
    beside = [100 * one["random_regret"] for one in order]
    ax.scatter(
        beside, range(len(order)), marker="|", s=60, color=COLOURS[1], label="random search, same cost", zorder=3
    )
    ax.axvline(
        100 * expected_regret(truth, 1), color=COLOURS[6], linestyle="--", linewidth=0.9, label="one random draw"
    )
    ax.legend(fontsize=7.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def predictors_figure(found: Mapping[str, Any]) -> Figure:
    """Rank correlations with the truth, with their 95 % intervals: of networks, of cells, and of searches by method."""
    rows = [
        *((f"one-shot, {one['method']}", one["one_shot"]) for one in found["methods"]),
        *((f"gates, {one['method']}", one["gates"]) for one in found["methods"]),
        *((f"cells: {name}", {**one, "mean": one["rho"]}) for name, one in found["cells"].items()),
        *((name.replace("_", " "), {**one, "mean": one["rho"]}) for name, one in found["predictors"].items()),
    ]
    figure, ax = _intervals(
        [row for row in rows if not math.isnan(row[1]["mean"])], "rank correlation with the truth", 1
    )
    ax.axvline(0, color=COLOURS[6], linestyle="--", linewidth=0.9)
    ax.set_xlim(-1, 1)  # of few searches an interval by Student's t leaves the range of correlations
    return figure


def _intervals(rows: Sequence[tuple[str, Mapping[str, float]]], what: str, factor: float) -> tuple[Figure, Axes]:
    """A point with its interval on a line of its own for each row, the last row on top."""
    figure, ax = axes(what, "", height=0.8 + 0.19 * max(4, len(rows)))
    for place, (_, one) in enumerate(rows):
        mean, low, high = (factor * one[key] for key in ("mean", "low", "high"))
        ax.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.4)
        ax.scatter([mean], [place], s=18, color=COLOURS[0], zorder=4)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    return figure, ax


def simulation_figure(found: Mapping[str, Any]) -> Figure:
    """One curve per simulated search: mean regret of the best genotype so far, by the number of trainings.

    A band around each curve is the 95 % interval of the mean over the runs.
    """
    figure, ax = axes("trainings", "regret, points")
    for index, (name, curve) in enumerate(found["simulated"].items()):
        colour = COLOURS[index % len(COLOURS)]
        estimates = [Estimate(**one) for one in curve]
        places = range(1, len(estimates) + 1)
        means = [100 * one.mean for one in estimates]
        ax.plot(places, means, dash_of(index)[0], color=colour, linewidth=1.4, label=name)
        low, high = ([100 * getattr(one, end) for one in estimates] for end in ("low", "high"))
        ax.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set_xscale("log")
    legend(ax)
    return figure
