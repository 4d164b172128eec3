"""Confusion matrices as a figure, as a chart of the report, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.confusion import FILE, Confusion, Matrix, balanced_accuracy, read_confusion, recalls

from .canvas import new_figure
from .palette import shortened

#: Classes up to which a cell has its count written into it, and has its own label on the chart's axes.
COUNTED, LABELLED = 15, 40

#: Classes up to which a report has the chart, which grows with their square, and a figure names all of them.
DRAWN = 100

_BLUE = "#0072b2"


def read_of_trial(study: Path, trial_id: str) -> tuple[tuple[str, ...], Confusion] | None:
    """Classes, and the matrix of a trial's derived network on its held-out images; None where it left none.

    Raises:
        UserError: the file is damaged.
    """
    path = study / "trials" / trial_id / FILE
    if not path.is_file():
        return None
    classes, found = read_confusion(path)
    return classes, found[0]


def read_of_retrain(folder: Path) -> tuple[tuple[str, ...], list[Confusion]]:
    """Classes, and the matrices of the genotype's networks on the test images, one of each seed.

    Raises:
        UserError: the file is missing or damaged.
    """
    classes, found = read_confusion(folder / FILE)
    return classes, [one for one in found if one.network == "genotype"]


def total(matrices: Sequence[Matrix]) -> list[list[int]]:
    """Sum of matrices of the same classes, as of several seeds."""
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


def words(classes: Sequence[str], matrix: Matrix) -> str:
    """What stands out of a matrix, for a caption and for those who do not see it."""
    images = sum(map(sum, matrix))
    known = [(recall, name) for recall, name in zip(recalls(matrix), classes, strict=True) if not math.isnan(recall)]
    lowest = ", ".join(f"{name} {100 * recall:.1f} %" for recall, name in sorted(known)[:3])
    text = f"{images:,} images, mean recall of the classes {100 * balanced_accuracy(matrix):.2f} %, lowest: {lowest}"
    wrong = [
        (number, classes[true], classes[said])
        for true, row in enumerate(matrix)
        for said, number in enumerate(row)
        if number and true != said
    ]
    if not wrong:
        return f"{text}; none was taken for another class."
    number, true, said = max(wrong, key=lambda found: found[0])
    return f"{text}; most often {true} was taken for {said} ({number:,} of {sum(matrix[list(classes).index(true)]):,})."


def table(classes: Sequence[str], matrix: Matrix) -> list[tuple[str, Sequence[int], float]]:
    """Each class with its row and its recall, the lowest recall first; classes without images last."""
    rows = list(zip(classes, matrix, recalls(matrix), strict=True))
    return sorted(rows, key=lambda row: (math.isnan(row[2]), row[2]))


def figure(classes: Sequence[str], matrix: Matrix, title: str) -> Figure:
    """The matrix, each row as shares of its class's images, and the recall of each class beside it."""
    number = len(classes)
    side = min(max(2.4 + 0.3 * number, 3.2), 18.0)
    size = max(5.5, min(9.0, 200 / number))
    places = range(0, number, math.ceil(number / DRAWN))
    names = [shortened(classes[place]) for place in places]
    drawn = new_figure(side + 2.2, side + 0.6)
    drawn.set_layout_engine("constrained")
    ax, bars = drawn.subplots(1, 2, sharey=True, width_ratios=(side, 1.3))
    shares = [[found / sum(row) if any(row) else math.nan for found in row] for row in matrix]
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(places, names, rotation=90 if number > 6 else 0, fontsize=size)
    ax.set_yticks(places, names, fontsize=size)
    ax.set_xlabel("predicted class", fontsize=9)
    ax.set_ylabel("true class", fontsize=9)
    ax.set_title(title, fontsize=9)
    if number <= COUNTED:
        for true, row in enumerate(matrix):
            for said, found in enumerate(row):
                ink = "white" if shares[true][said] > 0.55 else "#1f2933"
                ax.text(said, true, str(found), ha="center", va="center", fontsize=size, color=ink)
    shown = [0.0 if math.isnan(recall) else recall for recall in recalls(matrix)]
    bars.barh(range(number), shown, color=_BLUE, height=0.7)
    bars.axvline(balanced_accuracy(matrix), color="#d55e00", linewidth=1)
    bars.set_xlim(0, 1)
    bars.set_xticks([0, 1], ["0", "100 %"], fontsize=7)
    bars.set_title(f"recall, mean {100 * balanced_accuracy(matrix):.1f} %", fontsize=8)
    bars.tick_params(left=False, labelleft=False)
    bars.spines[["top", "right"]].set_visible(False)
    return drawn


def figure_of_trial(study: Path | None, trial_id: str) -> Figure:
    """The figure of a trial's derived network on its held-out images.

    Raises:
        UserError: the trial left no matrix.
    """
    found = None if study is None else read_of_trial(study, trial_id)
    if found is None:
        raise UserError(f"trial {trial_id} has no {FILE}: only a derived network that was trained and scored has one")
    classes, one = found
    return figure(classes, one.matrix, f"trial {trial_id}, held-out images")


def figure_of_retrain(folder: Path) -> Figure:
    """The figure of the genotype's networks of a retrain on the test images, summed over the seeds.

    Raises:
        UserError: the folder has no matrix.
    """
    classes, found = read_of_retrain(folder)
    return figure(classes, total([one.matrix for one in found]), f"test images, {seeds_of(found)}")


def seeds_of(found: Sequence[Confusion]) -> str:
    """How many seeds matrices are of, in words."""
    return f"{len(found)} seed{'s' if len(found) > 1 else ''}"


def chart(classes: Sequence[str], matrix: Matrix) -> dict[str, Any]:
    """The matrix as a chart of the report, a plain plotly description that can be read on light and dark paper."""
    number = len(classes)
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": list(classes),
        "y": list(classes),
        "z": [[round(found / sum(row), 4) if any(row) else None for found in row] for row in matrix],
        "text": [[f"{found:,}" for found in row] for row in matrix],
        "zmin": 0,
        "zmax": 1,
        "xgap": 1 if number <= LABELLED else 0,
        "ygap": 1 if number <= LABELLED else 0,
        "colorscale": [[0, "--card"], [1, "rgb(0,114,178)"]],
        "colorbar": {"title": {"text": "share of class"}, "thickness": 12, "tickformat": ".0%"},
        "hovertemplate": "%{y} taken for %{x}: %{text} images, %{z:.1%}<extra></extra>",
    }
    if number <= COUNTED:
        heat["texttemplate"] = "%{text}"
    shown = list(classes)[:: math.ceil(number / LABELLED)]
    axis = {"type": "category", "tickvals": shown, "ticktext": [shortened(name) for name in shown], "showgrid": False}
    return {
        "data": [heat],
        "layout": {
            "xaxis": {**axis, "title": {"text": "predicted class"}},
            "yaxis": {**axis, "title": {"text": "true class"}, "autorange": "reversed"},
            "hovermode": "closest",
        },
    }
