"""`ddarts zoo`."""

from __future__ import annotations

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False, shell_complete=completing.zoo)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the known genotypes, or print the one called NAME as JSON.

    \b
    Examples:
      ddarts zoo
      ddarts zoo DARTS_V2 > genotype.json
      ddarts cost zoo:DARTS_V2 --cells 20 --channels 36
    """
    from ddarts_core.genotypes.zoo import EVERY, PREFIX, resolve_genotype

    if name is not None:
        click.echo(resolve_genotype(PREFIX + name.removeprefix(PREFIX)).to_json(), nl=False)
        return
    if as_json:
        print_json(
            {
                key: {"source": entry.source, "note": entry.note, "genotype": entry.genotype.to_dict()}
                for key, entry in EVERY.items()
            }
        )
        return
    for key, entry in EVERY.items():
        genotype = entry.genotype
        click.echo(f"{PREFIX}{key}: {genotype.words}, {genotype.num_edges} edges; {entry.source}")
        if entry.note:
            click.echo(f"    {entry.note}")
