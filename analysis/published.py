"""Tables 1 to 5 of the D-DARTS paper as published, and own runs in the same columns."""

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
    """A table of the paper: what it compares, columns (heading, key of a row), marks, and what own rows are."""

    title: str
    columns: Sequence[tuple[str, str]]
    marks: Mapping[str, str]
    note: str
    own: str


_DETECTION = (
    ("Models", "model"),
    ("AP (%)", "ap"),
    ("AP₅₀ (%)", "ap50"),
    ("AP₇₅ (%)", "ap75"),
    ("AP_s (%)", "ap_small"),
    ("AP_m (%)", "ap_medium"),
    ("AP_l (%)", "ap_large"),
)

_FOUR_RUNS = "Top-1 is the best of 4 runs (baselines: from their articles); cost in GPU days"

_TOP_1 = "Top-1 of own retrains: the mean over their seeds ± the standard deviation"
_LAST_EPOCH = "own rows: box AP after the last epoch, one seed, begun and scored on the data that they name"

TABLES: Mapping[int, PublishedTable] = MappingProxyType(
    {
        1: PublishedTable(
            "Models on CIFAR-10", _COMMON, {"◇": "searched on CIFAR-100, all others on CIFAR-10"}, _FOUR_RUNS, _TOP_1
        ),
        2: PublishedTable(
            "Models on CIFAR-100", _COMMON, {"◇": "searched on CIFAR-10, all others on CIFAR-100"}, _FOUR_RUNS, _TOP_1
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
            _TOP_1,
        ),
        4: PublishedTable(
            "Backbones of RetinaNet on MS-COCO",
            _DETECTION,
            {},
            "fine-tuned for 12 epochs; box AP on the held-out split; the paper does not give its recipe in full, and "
            "its ResNet18 row is the 31.7 AP of mmdetection's RetinaNet with ResNet-18",
            _LAST_EPOCH,
        ),
        5: PublishedTable(
            "Backbones of Mask R-CNN on Cityscapes",
            _DETECTION,
            {},
            "the paper does not say whether this is the AP of boxes or of masks: its ResNet18 row has the 40.9 that "
            "mmdetection gives for the boxes of a Mask R-CNN with ResNet-50 which began with weights of COCO, so that "
            "it is probably box AP with such a beginning",
            _LAST_EPOCH,
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
        notes.append(table.own)
    return "\n".join([*lines, "", f"{'; '.join(notes)}."])
