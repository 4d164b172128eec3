"""`ddarts collect`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli.options import out_option, storage_folder, storage_option


@click.command()
@click.argument("study")
@storage_option
@out_option("STUDY/dataset")
def command(study: str, storage: str, overrides: tuple[str, ...], out: Path | None) -> None:
    """Write the records of STUDY as a Parquet dataset: trials, epochs, contributions, genotypes.

    \b
    Examples:
      ddarts collect quickstart_sweep
      ddarts collect quickstart_sweep --out datasets
    """
    from analysis.collect import collect
    from ddarts_cli.console import finish, say
    from tuning.study import find_study

    found = find_study(study, storage_folder(storage, overrides))
    say(f"collect {found.path}")
    collected = collect(found.path, out)
    for table, rows in collected.rows.items():
        say(f"{table}: {rows:,} rows")
    finish([collected.folder], [f"ddarts report {found.path}"])
