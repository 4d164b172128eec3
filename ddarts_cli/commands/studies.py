"""`ddarts studies`."""

from __future__ import annotations

import click

from ddarts_cli.options import json_option, print_json, storage_folder, storage_option


@click.command()
@storage_option
@json_option
def command(storage: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """List studies, oldest first. Studies that are DAMAGED stand before them, with the reason.

    \b
    Examples:
      ddarts studies
      ddarts studies --storage /srv/studies --json
    """
    from ddarts_tuning.store.study import list_studies

    folder = storage_folder(storage, overrides)
    studies = list_studies(folder)
    if as_json:
        print_json(
            [
                {
                    "name": study.name,
                    "path": study.location,
                    "created": study.data["created"],
                    "state": study.state,
                    "objectives": study.data["objectives"],
                    "trials": study.num_trials,
                    "damage": study.data.get("damage"),
                }
                for study in studies
            ]
        )
        return
    if not studies:
        click.echo(f"no studies in {folder}; the first: ddarts sweep experiments/quickstart_sweep.yaml")
        return
    for study in studies:
        click.echo(
            f"{study.data['created'][:19]:<19}  {study.state:<11}  {study.num_trials:>4} trials  {study.location}"
        )
        if study.state == "DAMAGED":
            click.echo(f"    {study.data['damage']}")
