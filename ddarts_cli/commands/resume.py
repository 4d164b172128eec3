"""`ddarts resume`."""

from __future__ import annotations

import click

from ddarts_cli import completing
from ddarts_cli.options import storage_folder, storage_option


@click.command()
@click.argument("study", shell_complete=completing.study)
@storage_option
@click.option(
    "--address", metavar="auto|HOST:PORT|ray://HOST:PORT", help="Ray cluster to run on (default: this machine)."
)
@click.option("--failed", is_flag=True, help="Run the trials that failed again, with the same settings.")
def command(study: str, storage: str, overrides: tuple[str, ...], address: str | None, failed: bool) -> None:
    """Go on with STUDY after a crash or a stop. A finished study is only checked.

    STUDY is a name under the storage folder, or a study's folder or URI.

    \b
    Examples:
      ddarts resume quickstart_sweep
      ddarts resume quickstart_sweep --failed
      ddarts resume /srv/studies/large
      ddarts resume s3://bucket/studies/large --address auto
    """
    from ddarts_tuning.store.progress import summary
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.console import resumable, say
    from ddarts_core.studies.shell import ddarts

    found = find_study(study, storage_folder(storage, overrides))
    shown = summary(found)
    say(f"resume {found.location}: {found.state}, {shown['num_samples']} trials, {len(found.trials())} begun")
    say(f"MLflow: {found.data['tracking_uri']}, where the study was begun")
    from ddarts_analysis.drawing import draw_genotype
    from ddarts_tuning.driver.sweep import resume_sweep

    from ddarts_cli.commands.sweep import conclude
    from ddarts_cli.sweeping import board_of, watch

    go_on = ddarts("resume", found.location)
    with resumable(go_on, lambda: True), watch(board_of(found, shown["num_samples"]), go_on) as listener:
        result = resume_sweep(found.location, failed=failed, draw=draw_genotype, listener=listener, address=address)
    conclude(result)
