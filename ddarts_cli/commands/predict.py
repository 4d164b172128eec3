"""`ddarts predict`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli.options import json_option, print_json

if TYPE_CHECKING:
    from ddarts_core.exports.serving import Predictor

#: Files of an export by `--backend`, the default first.
BACKENDS = {"weights": "weights.safetensors", "onnx": "model.onnx"}

#: Broken files that a sentence names.
NAMED = 5


@click.command()
@click.argument("export", type=click.Path(path_type=Path))
@click.argument("paths", metavar="FILE|FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes to print of each file.")
@click.option("--backend", type=click.Choice([*BACKENDS]), help="What computes (default: weights if there are any).")
@click.option(
    "--skip-broken", is_flag=True, help="Leave out files that are no pictures, and name them, instead of ending."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values: file, place, class, probability.")
@json_option
def command(
    export: Path, paths: tuple[Path, ...], top: int, backend: str | None, skip_broken: bool, as_csv: bool, as_json: bool
) -> None:
    """Print the most probable classes of pictures, by a network that `ddarts export` wrote.

    EXPORT is the exported folder, or one file of it, weights.safetensors or model.onnx. The pictures may be of any size
    and kind that Pillow reads; they are prepared as the test images were. Folders are read with all that is below them.

    \b
    Examples:
      ddarts predict runs/retrain-0123456789ab/export photo.jpg
      ddarts predict runs/quickstart_sweep/export/01_0123456789ab pictures --top 1 --csv > found.csv
      ddarts predict best pictures --backend onnx --json --skip-broken
    """
    from ddarts_core.exports.preprocessing import files_of
    from ddarts_core.ground.errors import UserError

    if as_csv and as_json:
        raise UserError("--csv and --json are two forms of one answer: choose one of them")
    model = _model(export, backend)
    files = list(files_of(paths))
    from ddarts_core.exports.serving import Predictor

    predictor = Predictor(model)
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for file, found in _shown(predictor, files):
        if isinstance(found, UserError):
            broken.append(str(found))
        else:
            best = predictor.best(found, top)
            rows.append({"file": str(file), "classes": [{"class": name, "probability": p} for name, p in best]})
    if broken:
        some = "; ".join(broken[:NAMED]) + (f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else "")
        if not skip_broken:
            raise UserError(
                f"{len(broken)} of {len(files)} files cannot be read: {some}; --skip-broken leaves them out"
            )
        click.echo(f"left out {len(broken)} of {len(files)} files: {some}", err=True)
    if as_json:
        print_json({"model": str(model), "predictions": rows, "broken": broken})
    elif as_csv:
        _print_csv(rows)
    else:
        _print_table(rows)


def _model(export: Path, backend: str | None) -> Path:
    """The file that computes."""
    from ddarts_core.ground.errors import UserError

    if export.is_file():
        if backend is not None and export.name != BACKENDS[backend]:
            raise UserError(f"{export} is not for --backend {backend}: leave --backend out, or name the folder")
        return export
    wanted = list(BACKENDS) if backend is None else [backend]
    found = [export / BACKENDS[name] for name in wanted if (export / BACKENDS[name]).is_file()]
    if not found:
        names = " or ".join(BACKENDS[name] for name in wanted)
        option = " --onnx" if backend == "onnx" else ""
        raise UserError(
            f"{export} has no {names}: it must be a folder that `ddarts export{option}` wrote of a network that "
            "`ddarts retrain` trained"
        )
    return found[0]


def _shown(predictor: Predictor, files: list[Path]) -> Iterator[tuple[Path, Any]]:
    """What `Predictor.of_files` gives, with a bar on standard error if that is a terminal."""
    found: Iterable[tuple[Path, Any]] = predictor.of_files(files)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        found = track(found, "pictures", len(files), console=Console(stderr=True), transient=True)
    yield from found


def _print_csv(rows: Iterable[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "place", "class", "probability"])
    for row in rows:
        for place, found in enumerate(row["classes"], start=1):
            writer.writerow([row["file"], place, found["class"], f"{found['probability']:.6f}"])


def _print_table(rows: list[dict[str, Any]]) -> None:
    width = max((len(row["file"]) for row in rows), default=0)
    for row in rows:
        found = ", ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in row["classes"])
        click.echo(f"{row['file']:{width}}  {found}")
