"""`ddarts draw`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli import completing
from ddarts_cli.options import read_genotype


@click.command()
@click.argument("genotype", shell_complete=completing.genotype)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File ending in .svg, .png or .pdf (default: beside a genotype's file, as .svg; of zoo:NAME, NAME.svg here).",
)
@click.option("--title", help="Line above the cells.")
def command(genotype: str, out: Path | None, title: str | None) -> None:
    """Draw the cells of GENOTYPE: a JSON file, a file with a published text form, or zoo:NAME.

    \b
    Examples:
      ddarts draw runs/quickstart/genotype.json
      ddarts draw zoo:DARTS_V2 --out darts.png --title "DARTS, second order"
    """
    from ddarts_analysis.drawing import draw_genotype

    from ddarts_cli.console import finish
    from ddarts_core.genotypes.zoo import PREFIX
    from ddarts_core.studies.shell import ddarts

    found = read_genotype(genotype)
    path = out or Path(genotype.removeprefix(PREFIX)).with_suffix(".svg")
    finish([draw_genotype(found, path, title=title)], [ddarts("cost", genotype)])
