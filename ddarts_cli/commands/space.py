"""`ddarts space`."""

from __future__ import annotations

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json


@click.command()
@click.option(
    "--space",
    "name",
    default="S",
    show_default=True,
    shell_complete=completing.space,
    help="Search space: S, S_o, S_none or S_3.",
)
@click.option("--steps", type=click.IntRange(1, 8), default=4, show_default=True, help="Intermediate nodes of a cell.")
@click.option("--cells", type=click.IntRange(1, 200), default=8, show_default=True, help="Cells with own alphas.")
@json_option
def command(name: str, steps: int, cells: int, as_json: bool) -> None:
    """Print the size of a search space (D-DARTS eq. 5).

    \b
    Examples:
      ddarts space
      ddarts space --space S_o --cells 14 --json
    """
    from ddarts_core.genotypes.spaces import cell_space_size, num_edges, operations_of

    operations = operations_of(name)
    size = cell_space_size(len(operations), steps)
    totals = {"two_shared_cells": size**2, "individual_cells": size**cells}
    if as_json:
        print_json(
            {
                "space": name,
                "operations": list(operations),
                "steps": steps,
                "edges": num_edges(steps),
                "cells": cells,
                "per_cell": size,
                **totals,
            }
        )
        return
    click.echo(f"space {name}: {len(operations)} operations: {', '.join(operations)}")
    click.echo(f"one cell ({steps} nodes, {num_edges(steps)} edges): {size:,} = {scientific(size, 4)}")
    click.echo(f"two shared cells (DARTS, FairDARTS): {scientific(size**2)}")
    click.echo(f"{cells} individual cells (D-DARTS): {scientific(size**cells)}")


def scientific(number: int, digits: int = 1) -> str:
    """A whole number of any size in powers of ten: 1037664180 with 4 digits is 1.0377e9."""
    text = str(number)
    exponent = len(text) - 1
    mantissa = number / 10**exponent
    if round(mantissa, digits) >= 10:
        mantissa, exponent = mantissa / 10, exponent + 1
    return f"{mantissa:.{digits}f}e{exponent}"
