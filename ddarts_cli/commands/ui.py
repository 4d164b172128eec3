"""`ddarts ui`."""

from __future__ import annotations

import click

from ddarts_cli import completing
from ddarts_cli.options import storage_folder, storage_option


@click.command()
@click.argument("study", shell_complete=completing.study)
@click.option("--port", type=click.IntRange(1, 65_535), help="Port on 127.0.0.1 (default: a free one).")
@storage_option
def command(study: str, port: int | None, storage: str, overrides: tuple[str, ...]) -> None:
    """Serve the MLflow UI on the store of STUDY, on this machine only, until Ctrl-C.

    \b
    Examples:
      ddarts ui quickstart_sweep
      ddarts ui quickstart_sweep --port 5000
    """
    from ddarts_tuning.driver.moving import place_artifacts
    from ddarts_tuning.driver.rebuild import is_damaged
    from ddarts_tuning.store.study import find_study
    from ddarts_tuning.tracking.study_run import share_view
    from ddarts_tuning.tracking.view import address

    from ddarts_cli.console import say
    from ddarts_cli.server import free_port, serve
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.redact import hide_secrets
    from ddarts_core.studies.shell import ddarts
    from ddarts_core.studies.sqlite_uri import file_of

    found = find_study(study, storage_folder(storage, overrides))
    uri = str(found.data["tracking_uri"])
    database = file_of(uri)
    if database is None:
        link = address(uri, found.data["experiment_id"]) if uri.startswith("http") else uri
        say(f"study {found.name!r} is tracked at a server, which has a UI of its own:")
        say(hide_secrets(link))
        return
    if not database.is_file():
        raise UserError(
            f"study {found.name!r}: its MLflow database {database} is missing; report and collect need none"
        )
    if is_damaged(database):
        again = ddarts("rebuild", found.location, "--mlflow")
        raise UserError(f"study {found.name!r}: its MLflow database {database} is damaged: `{again}` makes it again")
    place_artifacts(found)
    chosen = free_port(port)
    say(f"ui {found.location}: starting MLflow, about ten seconds")
    url = address(f"http://127.0.0.1:{chosen}", found.data["experiment_id"], share_view(found))
    raise click.exceptions.Exit(serve(database, chosen, url))
