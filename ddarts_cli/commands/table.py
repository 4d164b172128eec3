"""`ddarts table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddarts_cli import completing
from ddarts_cli.options import OutFile, storage_folder, storage_option

if TYPE_CHECKING:
    from ddarts_analysis.tables import Reduce


@click.command()
@click.argument("studies", nargs=-1, metavar="STUDY|RETRAIN|TRANSFER...", shell_complete=completing.study)
@storage_option
@click.option("--by", shell_complete=completing.setting, help="Dotted path of the setting that makes the rows.")
@click.option(
    "--metric",
    default="held_out/accuracy",
    show_default=True,
    shell_complete=completing.metric,
    help="What is averaged over the trials of a row.",
)
@click.option(
    "--epoch",
    type=click.Choice(["last", "best", "lowest"]),
    default="last",
    show_default=True,
    help="Which epoch's value to take of a metric that has one for every epoch.",
)
@click.option("--first", help="Value of the setting in the first row, which the others are compared with.")
@click.option("--published", type=click.IntRange(1, 5), help="Print this table of the paper, with own runs below it.")
@click.option("--out", type=OutFile(".md", "a table is Markdown"), help="Also write the table to this Markdown file.")
def command(
    studies: tuple[str, ...],
    storage: str,
    overrides: tuple[str, ...],
    by: str | None,
    metric: str,
    epoch: Reduce,
    first: str | None,
    published: int | None,
    out: Path | None,
) -> None:
    """Tabulate a metric by a setting: mean, 95 % interval and difference to the first value, over seeds.

    A study may be the folder of a search, which has one trial. Give several to compare them.
    Where the trials of a row differ in more than their seeds the table counts trials and names these settings.

    With --published N print Table N of the D-DARTS paper in its columns; folders of `ddarts retrain` become rows of it,
    with the mean test accuracy over their seeds, and of tables 4 and 5 those of `ddarts transfer`, with their box AP.

    \b
    Examples:
      ddarts table quickstart_sweep --by ablation.loss --metric saturation/over_0.9
      ddarts table methods_digits --by method --first random
      ddarts table --published 1
      ddarts table --published 2 runs/retrain-0123456789ab
      ddarts table --published 4 runs/transfer-0123456789ab
    """
    from ddarts_cli.console import finish
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.files import write_atomic

    following: list[str] = []
    if published is not None:
        text = _published(published, studies)
    elif not studies or by is None:
        raise UserError("name one or more studies and --by SETTING, or --published 1 to 5")
    else:
        from ddarts_analysis.collect import load
        from ddarts_analysis.tables import by_setting, markdown, varying
        from ddarts_tuning.store.study import find_study

        from ddarts_cli.files import find_recorded
        from ddarts_core.studies.shell import ddarts

        folder = storage_folder(storage, overrides)
        paths = [find_recorded(study) or find_study(study, folder).path for study in studies]
        frames = load(*paths, tables=("trials", "epochs"))
        text = markdown(by_setting(frames, by, metric, epoch, first), metric, varying(frames, by))
        following = [ddarts("report", studies[0])]
    click.echo(text)
    if out is not None:
        write_atomic(out, text + "\n")
        finish([out], following)


def _published(number: int, runs: tuple[str, ...]) -> str:
    from ddarts_analysis.published import markdown
    from ddarts_analysis.transfer import TASKS
    from ddarts_analysis.transfer import table_row as transfer_row

    if not runs:
        return markdown(number)
    if number in TASKS:
        return markdown(number, [transfer_row(Path(folder), number) for folder in runs])
    from ddarts_cli.models import table_row

    return markdown(number, [table_row(Path(folder)) for folder in runs])
