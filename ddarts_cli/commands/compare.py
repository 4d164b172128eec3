"""`ddarts compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, read_genotype


@click.command()
@click.argument("a", shell_complete=completing.genotype)
@click.argument("b", shell_complete=completing.genotype)
@click.option(
    "--channels", type=click.IntRange(1, 4096), default=36, show_default=True, help="Width of the first cells."
)
@click.option("--classes", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Number of classes.")
@json_option
def command(a: str, b: str, channels: int, classes: int, as_json: bool) -> None:
    """Show how genotypes A and B differ: operations, distance, parameters, multiply-adds.

    Each is a JSON file, a published text form, or zoo:NAME. The distance is the share of operations that the two do not
    have in common; it is 0 for equal genotypes, and for those that differ in reductions, concatenated nodes or repeated
    operations only. Parameters and multiply-adds are those of `ddarts cost` without options.

    \b
    Examples:
      ddarts compare zoo:DARTS_V1 zoo:DARTS_V2
      ddarts compare runs/quickstart/genotype.json other.json --json
    """
    pair = {"a": read_genotype(a), "b": read_genotype(b)}
    from ddarts_analysis.compare import compare

    difference = compare(pair["a"], pair["b"])
    from ddarts_core.networks.cost import cost

    for key, genotype in pair.items():
        difference[key] |= cost(genotype, channels=channels, num_classes=classes).to_dict()
    if as_json:
        print_json(difference)
        return
    for line in describe(difference, (a, b)):
        click.echo(line)


def describe(difference: Mapping[str, Any], names: tuple[str, str]) -> Iterator[str]:
    """The comparison as text: both sizes, then the operations of each cell that only one has (-) or the other (+)."""
    for sign, key, name in zip("-+", "ab", names, strict=True):
        side = difference[key]
        part = "block" if side["layout"] == "stages" else "cell"
        yield (
            f"{sign} {name}: {side['num_cells']} {part}s, {side['num_operations']} operations, "
            f"{side['parameters']:,} parameters, {side['macs']['A'] / 1e6:.1f} M multiply-adds, hash {side['hash']}"
        )
    if difference["identical"]:
        yield "the same genotype"
        return
    yield f"distance: {difference['distance']:.3f}"
    counts = [difference[key]["operations"] for key in "ab"]
    for op in sorted({*counts[0], *counts[1]}):
        first, second = (count.get(op, 0) for count in counts)
        if first != second:
            yield f"{op}: {first} -> {second}"
    for cell in difference["cells"]:
        if cell["only_a"] or cell["only_b"]:
            yield f"{part} {cell['cell']}: {cell['common']} operations in common"
            for sign, side in (("-", cell["only_a"]), ("+", cell["only_b"])):
                yield from (f"  {sign} {op} {source}->{target}" for op, source, target in side)
