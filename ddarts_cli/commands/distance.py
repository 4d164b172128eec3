"""`ddarts distance`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, read_genotype


@click.command()
@click.argument("a", shell_complete=completing.genotype)
@click.argument("b", shell_complete=completing.genotype)
@click.option("--space", help="Space that both are of (default: the smallest that has all their operations).")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="JSON file with a weight for each operation, as ddarts op-weights writes it (default: the published weights).",
)
@json_option
def command(a: str, b: str, space: str | None, weights: Path | None, as_json: bool) -> None:
    """Print how far apart genotypes A and B are, from 0 to 1, and each of their cells.

    Each is a JSON file, a published text form, or zoo:NAME; both have individual cells, or both two shared ones. Two
    cells are as far apart as the edge whose operations are hardest to find in the other one (Hausdorff, over the
    weights of the operations that differ); the distance is the mean over the cells, and a cell that only one has counts
    1. It is 0 for equal genotypes, and for some that differ: those with the same operations on other edges, or with
    other reductions.

    \b
    Examples:
      ddarts distance zoo:ResNet18 zoo:ResNet50
      ddarts distance zoo:ResNet18 runs/search/genotype.json --json
    """
    from ddarts_core.genotypes.distance import cell_distances, read_weights, weights_of
    from ddarts_core.genotypes.genotype import Genotype
    from ddarts_core.genotypes.random_genotype import common_space

    pair = [Genotype.narrowed(read_genotype(argument), "ddarts distance") for argument in (a, b)]
    space = space or common_space(pair)
    known = None if weights is None else read_weights(weights)
    cells = cell_distances(pair[0], pair[1], weights_of(space, known))
    found = sum(cells) / len(cells)
    if as_json:
        print_json({"distance": found, "cells": list(cells), "space": space})
        return
    click.echo(f"distance: {found:.4f}")
    for place, value in enumerate(cells):
        alone = place >= min(genotype.num_cells for genotype in pair)
        click.echo(f"cell {place}: {value:.4f}" + (" (only one has it)" if alone else ""))
