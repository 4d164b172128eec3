"""The folder of `ddarts transfer` as a page: scores by epoch, what was found in images, and the settings."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic

from . import page

#: Written last of all, so that its folder is that of a finished training.
FILE = "transfer.json"

#: Scores of a row of tables 4 and 5, by its column.
COLUMNS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

#: The task of each table, and the objects whose scores the paper is taken to give.
TASKS: Mapping[int, str] = {4: "coco-detection", 5: "cityscapes-instances"}


def is_transfer(folder: Path) -> bool:
    """Whether a folder is that of a finished `ddarts transfer`."""
    return (folder / FILE).is_file()


def read_transfer(folder: Path) -> dict[str, Any]:
    """What a finished training left in `transfer.json` of its folder.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        for name in ("task", "recipe", "scores", "parameters", "images", "classes", "seed", "config_hash"):
            found[name]
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no finished transfer: it has no {FILE}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / FILE} is damaged: {error}") from error
    return found


def table_row(folder: Path, number: int) -> dict[str, str]:
    """A finished training as a row of table 4 or 5, by column, with its box AP in percent.

    Raises:
        UserError: the training is not finished, or it is of another task than the table `number`.
    """
    found = read_transfer(folder)
    if found["task"] != TASKS[number]:
        raise UserError(f"{folder} is of {found['task']}: table {number} has {TASKS[number]}")
    images = f"{found['images']['held_out']:,} held-out images of {len(found['classes'])} classes"
    row = {"model": f"{folder.resolve().name} (here: {images})"}
    scores = found["scores"]
    for name in COLUMNS:
        if f"box_{name}" in scores:
            row[name] = f"{100 * scores[f'box_{name}']:.1f}"
    return row


def report(folder: Path, target: Path) -> Path:
    """Write the page of a finished training, which needs no other file, to the HTML file `target`.

    Raises:
        UserError: a file of the folder is missing or damaged, or `target` is a folder.
    """
    if target.is_dir():
        raise UserError(f"{str(target)!r} is a folder: name the HTML file to write")
    found = read_transfer(folder)
    try:
        rows = pq.read_table(folder / "records.parquet").to_pylist()
        picture = base64.b64encode((folder / "predictions.png").read_bytes()).decode()
        config = (folder / "config.yaml").read_text(encoding="utf-8")
        yaml.safe_load(config)
    except (OSError, ValueError, yaml.YAMLError, pa.ArrowException) as error:
        raise UserError(f"the transfer in {folder} is damaged: {error}") from error
    body = _body(folder.resolve().name, found, rows, picture, config)
    write_atomic(target, page.document(f"D-DARTS transfer: {folder.resolve().name}", body, None))
    return target


def _body(name: str, found: Mapping[str, Any], rows: list[dict[str, Any]], picture: str, config: str) -> Iterator[str]:
    yield f"<h1>{escape(found['task'])}: {escape(name)}</h1>\n"
    images = found["images"]
    yield page.tiles(
        [
            *((f"{100 * value:.1f} %", f"{_words(key)}, held out") for key, value in found["scores"].items()),
            (
                f"{found['parameters']['detector']:,}",
                f"parameters, the backbone's {found['parameters']['backbone']:,}",
            ),
            (f"{images['train']:,}", "images that trained"),
            (f"{images['held_out']:,}", "held-out images, which only score"),
        ]
    )
    yield "<h2>What is found</h2>\n"
    yield (
        f'<figure><img src="data:image/png;base64,{picture}" alt="Held-out images with boxes" style="max-width:100%">'
        "<figcaption>Held-out images: above what there is, below what the detector finds, with its score in percent; "
        "answers below 50 are not drawn.</figcaption></figure>\n"
    )
    yield "<h2>By epoch</h2>\n"
    names = [name for name in rows[0] if "/" in name] if rows else []
    table = [
        [str(row["epoch"] + 1), *("" if row[name] is None else f"{row[name]:.4f}" for name in names)] for row in rows
    ]
    yield page.table(["epoch", *names], table, range(len(names) + 1))
    yield "<h2>Settings</h2>\n"
    yield page.facts([("recipe", found["recipe"]), ("seed", str(found["seed"])), ("hash", found["config_hash"])])
    yield page.details("config.yaml", config)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("ap", "AP")
