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

    \b
    Examples:
      ddarts report quickstart_sweep
      ddarts report first second --out comparison.html --reference parameters=200000
    """
    from ddarts_analysis.report import report
    from ddarts_tuning.searchers.importance import importances
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.console import finish, say
    from ddarts_core.shell import ddarts

    folder = storage_folder(storage, overrides)
    found = [find_study(study, folder) for study in studies]
    target = out or found[0].path / "report.html"
    if target.suffix != ".html":
        target = target / "report.html"
    say(f"report on {', '.join(study.name for study in found)}")
    importance = {study.name: importances(study) for study in found}
    page = report([study.path for study in found], target, importance, references)
    done = [study for study in found if any(trial["state"] == "COMPLETED" for trial in study.trials())]
    finish([page], [ddarts("export", done[0].location) if done else ddarts("status", found[0].location)])
