"""`ddarts table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddarts_cli.options import storage_folder, storage_option

if TYPE_CHECKING:
    from analysis.tables import Reduce


@click.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@storage_option
@click.option("--by", required=True, help="Dotted path of the setting that makes the rows.")
@click.option("--metric", default="held_out/accuracy", show_default=True, help="What is averaged over seeds.")
@click.option("--epoch", type=click.Choice(["last", "best", "lowest"]), default="last", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this Markdown file.")
def command(
    studies: tuple[str, ...],
    storage: str,
    overrides: tuple[str, ...],
    by: str,
    metric: str,
    epoch: Reduce,
    out: Path | None,
) -> None:
    """Tabulate a metric by a setting: mean, 95 % interval and difference to the first value, over seeds.

    \b
    Examples:
      ddarts table small-w-zero-one --by search.w_zero_one --metric saturation/over_0.9
      ddarts table small-convergence --by method
    """
    from analysis.collect import load
    from analysis.tables import by_setting, markdown
    from ddarts_cli.console import finish
    from ddarts_core.files import write_atomic
    from tuning.study import find_study

    folder = storage_folder(storage, overrides)
    text = markdown(by_setting(load(*(find_study(study, folder).path for study in studies)), by, metric, epoch), metric)
    click.echo(text)
    if out is not None:
        write_atomic(out, text + "\n")
        finish([out], [f"ddarts report {studies[0]}"])
