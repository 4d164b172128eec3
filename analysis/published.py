"""Tables 1 to 3 of the D-DARTS paper as published, and own retrains in the same columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ddarts_core.ground.errors import UserError

Row = Mapping[str, str]

_COMMON = (
    ("Models", "model"),
    ("Params (M)", "params_m"),
    ("Loss", "loss"),
    ("Top-1 (%)", "top1_percent"),
    ("Layers", "layers"),
    ("Cost", "gpu_days"),
)


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper: what it compares, its columns (heading, key of a row), and what its marks mean."""

    title: str
    columns: Sequence[tuple[str, str]]
    marks: Mapping[str, str]
    note: str


_FOUR_RUNS = "Top-1 is the best of 4 runs (baselines: from their articles); cost in GPU days"

TABLES: Mapping[int, PublishedTable] = MappingProxyType(
    {
        1: PublishedTable(
            "Models on CIFAR-10", _COMMON, {"◇": "searched on CIFAR-100, all others on CIFAR-10"}, _FOUR_RUNS
        ),
        2: PublishedTable(
            "Models on CIFAR-100", _COMMON, {"◇": "searched on CIFAR-10, all others on CIFAR-100"}, _FOUR_RUNS
        ),
        3: PublishedTable(
            "Models on ImageNet",
            (
                *_COMMON[:2],
                ("+× (M)", "macs_m"),
                ("Parsing Method", "parsing"),
                *_COMMON[2:],
                ("Search Space", "space"),
                ("Searched On", "searched_on"),
            ),
            {"†": "the paper's own implementation in search space S_o"},
            "baselines: from their articles; cost in GPU days; multiply-adds of D-DARTS' rows and of own retrains: "
            "convention B of `ddarts cost`",
        ),
    }
)


def published(number: int) -> list[Row]:
    """Rows of one table as printed in the paper, in its order; numbers are the paper's text.

    Raises:
        UserError: there is no such table.
    """
    if number not in TABLES:
        raise UserError(f"there is no published table {number}: choose one of {', '.join(map(str, TABLES))}")
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["table"]) == number]


def markdown(number: int, own: Iterable[Row] = ()) -> str:
    """The table as Markdown in the paper's columns, own rows below it; nothing is set in bold.

    Raises:
        UserError: there is no such table.
    """
    rows, own = published(number), [*own]
    table = TABLES[number]
    lines = [
        f"D-DARTS, Table {number}: {table.title}",
        "",
        f"| {' | '.join(heading for heading, _ in table.columns)} |",
        f"|{'---|' * len(table.columns)}",
    ]
    for row in (*rows, *own):
        cells = [row.get(key) or "N.D." for _, key in table.columns]
        if row.get("mark"):
            cells[0] += f" {row['mark']}"
        lines.append(f"| {' | '.join(cells)} |")
    notes = [*(f"{mark}: {meaning}" for mark, meaning in table.marks.items()), table.note]
    if own:
        notes.append("Top-1 of own retrains: the mean over their seeds ± the standard deviation")
    return "\n".join([*lines, "", f"{'; '.join(notes)}."])
