"""`ddarts report`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli import completing
from ddarts_cli.options import OutFile, reference_option, storage_folder, storage_option


@click.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...", shell_complete=completing.study)
@storage_option
@reference_option
@click.option(
    "--out",
    type=OutFile(".html", "a report is an HTML page"),
    help="HTML file, or folder for report.html (default: STUDY).",
)
def command(
    studies: tuple[str, ...],
    storage: str,
    overrides: tuple[str, ...],
    references: dict[str, float],
    out: Path | None,
) -> None:
    """Write figures and tables of one or more studies as one HTML page that needs no network.

    STUDY may also be the folder of a search, which is shown as a study with one trial, or a folder of `ddarts
    transfer`.

    \b
    Examples:
      ddarts report quickstart_sweep
      ddarts report runs/quickstart
      ddarts report runs/transfer-0123456789ab
      ddarts report first second --out comparison.html --reference parameters=200000
    """
    from ddarts_analysis.report import report
    from ddarts_analysis.transfer import is_transfer
    from ddarts_tuning.searchers.importance import importances
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.console import finish, say
    from ddarts_cli.files import beside, find_recorded
    from ddarts_core.studies.shell import ddarts

    if any(is_transfer(Path(study).expanduser()) for study in studies):
        _report_transfer(studies, out)
        return
    folder = storage_folder(storage, overrides)
    found = [find_recorded(study) or find_study(study, folder) for study in studies]
    paths = [one if isinstance(one, Path) else one.path for one in found]
    target = out or beside(paths[0]) / "report.html"
    if target.suffix != ".html":
        target = target / "report.html"
    say(f"report on {', '.join(path.name for path in paths)}")
    page = report(paths, target, importances, references)
    places = [one if isinstance(one, Path) else one.location for one in found]
    done = [
        place
        for one, place in zip(found, places, strict=True)
        if (one.is_dir() if isinstance(one, Path) else any(trial["state"] == "COMPLETED" for trial in one.trials()))
    ]
    if done:
        finish([page], [ddarts("export", done[0])])
    else:  # a study in one file has nothing to export
        file = isinstance(found[0], Path)
        finish([page], [ddarts("figure" if file else "status", places[0])])


def _report_transfer(folders: tuple[str, ...], out: Path | None) -> None:
    from ddarts_analysis.transfer import TASKS, read_transfer, report

    from ddarts_cli.console import finish
    from ddarts_core.ground.errors import UserError
    from ddarts_core.studies.shell import ddarts

    if len(folders) > 1:
        raise UserError("the page of a transfer has one folder: give them one by one")
    folder = Path(folders[0]).expanduser()
    target = out or folder / "report.html"
    if target.suffix != ".html":
        target = target / "report.html"
    task = read_transfer(folder)["task"]
    number = next(number for number, own in TASKS.items() if own == task)
    finish([report(folder, target)], [ddarts("table", "--published", number, folder)])
