"""`ddarts figure`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ddarts_cli import completing
from ddarts_cli.options import reference_option, storage_folder, storage_option


@click.command()
@click.argument("study", shell_complete=completing.study)
@click.argument("name", required=False, shell_complete=completing.figure)
@click.option(
    "--trial",
    shell_complete=completing.trial,
    help="Trial of a figure about one trial (default: the best that has what it shows).",
)
@click.option("--cell", type=click.IntRange(min=0), help="Cell of the figure gates (default: 0).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File ending in .png, .svg or .pdf (default: STUDY/figures/NAME.png).",
)
@reference_option
@storage_option
def command(
    study: str,
    name: str | None,
    trial: str | None,
    cell: int | None,
    out: Path | None,
    references: dict[str, float],
    storage: str,
    overrides: tuple[str, ...],
) -> None:
    """Write the figure NAME of STUDY as a file; without NAME list the figures there are.

    STUDY may also be the folder of a search, which is shown as a study with one trial, or the folder of a retrain,
    which has two figures, confusion and mistakes, both of the test images.

    \b
    Examples:
      ddarts figure quickstart_sweep
      ddarts figure quickstart_sweep pareto --reference parameters=200000 --out pareto.pdf
      ddarts figure quickstart_sweep w_zero_one --out figure3.svg
      ddarts figure quickstart_sweep gates --trial 1 --cell 2
      ddarts figure runs/quickstart contributions
      ddarts figure runs/retrain-0123456789ab confusion
    """
    from ddarts_analysis.figures import save
    from ddarts_analysis.gallery import FIGURES, OF_RETRAIN, read_figure
    from ddarts_tuning.searchers.importance import importances
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.console import finish
    from ddarts_cli.files import beside, find_recorded
    from ddarts_core.ground.errors import UserError
    from ddarts_core.studies.shell import ddarts

    retrain = Path(study).expanduser()
    of_retrain = (retrain / "result.json").is_file() and not (retrain / "study.json").exists()
    if name is None and out is None and of_retrain:
        _list({key: what for key, (what, _) in OF_RETRAIN.items()})
        return
    if of_retrain:
        if name is None or name not in OF_RETRAIN or trial is not None or cell is not None or references:
            raise UserError(
                f"{retrain} is a retrain: it has the figures {' and '.join(OF_RETRAIN)}, and no other option than --out"
            )
        path = save(OF_RETRAIN[name][1](retrain), out or retrain / "figures" / f"{name}.png")
        finish([path], [ddarts("export", retrain)])
        return
    found = find_recorded(study) or find_study(study, storage_folder(storage, overrides))
    folder = found if isinstance(found, Path) else found.path
    if name is None:
        if out is not None:
            raise UserError(f"--out needs the name of a figure: choose one of {', '.join(FIGURES)}")
        _list({key: entry.what for key, entry in FIGURES.items()})
        return
    if references and (
        missing := set(references) - {"pareto": {"parameters"}, "pareto_macs": {"macs"}}.get(name, set())
    ):
        raise UserError(f"the figure {name} has no front by {sorted(missing)[0]}: leave that --reference out")
    figure = read_figure(name, folder, trial=trial, cell=cell, importances=importances, references=references)
    path = save(figure, out or beside(folder) / "figures" / f"{name}.png")
    finish([path], [ddarts("report", folder)])


def _list(figures: Mapping[str, str]) -> None:
    for name, what in figures.items():
        click.echo(f"{name}: {what}")
