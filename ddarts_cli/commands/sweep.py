"""`ddarts sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddarts_cli.options import out_option, set_option

if TYPE_CHECKING:
    from tuning.sweep import StudyResult


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@out_option("storage/name of the file")
@click.option("--new", is_flag=True, help="If the study's name is taken, take the next free one: name-2, name-3, ...")
def command(file: Path, overrides: tuple[str, ...], out: Path | None, new: bool) -> None:
    """Run the searches of FILE: Optuna proposes, Ray Tune runs, MLflow records.

    A sweep that was stopped goes on with `ddarts resume`.

    \b
    Examples:
      ddarts sweep experiments/quickstart_sweep.yaml
      ddarts sweep experiments/quickstart_sweep.yaml --set tune.num_samples=20 --set name=longer
    """
    from ddarts_cli.console import say
    from tuning.config import load_sweep

    if out is not None:
        overrides = (*overrides, f"storage={out.absolute().parent}", f"name={out.name}")
    config = load_sweep(file, overrides)
    taken = config.study_dir
    if new and taken.exists():
        name = next(free for k in range(2, 10**6) if not (taken.parent / (free := f"{config.name}-{k}")).exists())
        say(f"study {config.name} exists already: this one is {name}")
        config = load_sweep(file, (*overrides, f"name={name}"))
    say(
        f"sweep {config.name}: {config.tune.num_samples} searches by {config.tune.searcher}, {config.tune.scheduler}, "
        f"on {config.data.name}, over {', '.join(config.space)}; seed {config.seed}; in {config.study_dir}"
    )
    from analysis.drawing import draw_genotype
    from ddarts_cli.sweeping import watch
    from tuning.sweep import run_sweep

    with watch(config.tune.num_samples) as listener:
        result = run_sweep(config, draw=draw_genotype, listener=listener)
    conclude(result)


def conclude(result: StudyResult) -> None:
    """The ranked table of a sweep, the paths and the next commands; exit status 130 when it was interrupted.

    Raises:
        click.exceptions.Exit: the sweep was interrupted (130), or no trial completed (1).
    """
    from ddarts_cli.console import finish, say
    from ddarts_cli.sweeping import print_ranking

    study = result.study
    print_ranking(result.trials, [metric for metric, _ in study.objectives])
    if result.untracked:
        say(f"MLflow lacks {result.untracked} trials: ddarts resume {_short(study.path)} sends them when it is back")
    if result.interrupted:
        say(result.message)
        raise click.exceptions.Exit(130)
    folder = _short(study.path)
    if result.best is None:
        finish([folder], [f"ddarts status {folder}"])
        click.echo("Error: no trial completed; the table gives the reasons", err=True)
        raise click.exceptions.Exit(1)
    finish([folder], [f"ddarts export {folder} --top 3", f"ddarts report {folder}", f"ddarts ui {folder}"])


def _short(path: Path) -> Path:
    """The path as seen from here, if it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
