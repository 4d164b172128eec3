"""`ddarts rebuild`."""

from __future__ import annotations

import click

from ddarts_cli import completing
from ddarts_cli.options import storage_folder, storage_option


@click.command()
@click.argument("study", shell_complete=completing.study)
@storage_option
@click.option("--optuna", is_flag=True, help="Make Optuna's journal anew.")
@click.option("--mlflow", is_flag=True, help="Give MLflow everything that it lacks, in a new run if it lost the study.")
def command(study: str, storage: str, overrides: tuple[str, ...], optuna: bool, mlflow: bool) -> None:
    """Make the copies of STUDY's folder anew: Optuna's journal, and the study's runs in MLflow.

    The folder itself stays as it is, except for the names of its runs in MLflow. You may repeat the command: it does
    no harm.

    \b
    Examples:
      ddarts rebuild quickstart_sweep --optuna
      ddarts rebuild quickstart_sweep --mlflow
    """
    from ddarts_analysis.drawing import draw_genotype
    from ddarts_tuning.driver.rebuild import rebuild_journal, rebuild_runs
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.console import say
    from ddarts_core.ground.errors import UserError

    if not (optuna or mlflow):
        raise UserError("ddarts rebuild: name what to make again: --optuna, --mlflow, or both")
    found = find_study(study, storage_folder(storage, overrides))
    if optuna:
        say(f"wrote {rebuild_journal(found)} trials to Optuna's journal of {found.location}")
    if mlflow:
        sent, missing = rebuild_runs(found, draw_genotype)
        lacks = f", and lacks {missing}: it did not answer" if missing else ""
        say(f"MLflow has {sent} trials of {found.location}{lacks}")
        if missing:
            raise click.exceptions.Exit(1)
