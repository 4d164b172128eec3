"""`ddarts cost`."""

from __future__ import annotations

import click

from ddarts_cli.options import json_option, print_json

FORMS = ("cifar", "imagenet", "imagenet-published")


@click.command()
@click.argument("genotype")
@click.option(
    "--channels", type=click.IntRange(1, 4096), default=36, show_default=True, help="Width of the first cells."
)
@click.option("--cells", type=click.IntRange(1, 1000), help="Depth (default: the genotype's; 20 for two shared cells).")
@click.option("--classes", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Number of classes.")
@click.option("--form", type=click.Choice(FORMS), default="cifar", show_default=True, help="Stem and auxiliary head.")
@click.option(
    "--reductions",
    default="genotype",
    show_default=True,
    metavar="thirds|genotype|2,5",
    help="Positions of the reduction cells: at thirds of the depth, the genotype's own, or a list.",
)
@click.option("--image-size", type=click.IntRange(8, 1024), help="Pixels (default: 32, or 224 for ImageNet).")
@click.option("--in-channels", type=click.IntRange(1, 64), default=3, show_default=True, help="Channels of the images.")
@json_option
def command(
    genotype: str,
    channels: int,
    cells: int | None,
    classes: int,
    form: str,
    reductions: str,
    image_size: int | None,
    in_channels: int,
    as_json: bool,
) -> None:
    """Count parameters and multiply-adds of GENOTYPE.

    GENOTYPE is a JSON file, a published text form, or zoo:NAME. The auxiliary head counts apart. Multiply-adds come by
    three conventions: A counts convolutions and linear layers, B and C what published tables add to them.

    \b
    Examples:
      ddarts cost zoo:DARTS_V2 --channels 36 --cells 20 --classes 10
      ddarts cost genotype.json --form imagenet --channels 48 --cells 14 --classes 1000 --json
    """
    from ddarts_core.zoo import resolve_genotype

    read = resolve_genotype(genotype)
    depth = cells or (20 if read.layout == "normal_reduce" else read.num_cells)
    positions = parse_reductions(reductions, depth)
    size = image_size or (32 if form == "cifar" else 224)

    from ddarts_core.cost import cost

    counted = cost(
        read,
        channels=channels,
        num_cells=depth,
        num_classes=classes,
        form=form,
        reductions=positions,
        image_size=size,
        in_channels=in_channels,
    )
    if as_json:
        print_json(
            {
                "genotype_hash": read.hash,
                "channels": channels,
                "cells": depth,
                "classes": classes,
                "form": form,
                "image_size": size,
                "parameters": counted.parameters,
                "auxiliary_parameters": counted.auxiliary_parameters,
                "macs": dict(counted.macs),
            }
        )
        return
    click.echo(
        f"{genotype}: {depth} cells of {channels} channels, {classes} classes, form {form}, {size} x {size} pixels"
    )
    click.echo(f"parameters: {counted.parameters:,} ({counted.parameters / 1e6:.2f} M)")
    click.echo(f"auxiliary head: {counted.auxiliary_parameters:,} more")
    for convention, macs in counted.macs.items():
        click.echo(f"multiply-adds, convention {convention}: {macs:,} ({macs / 1e6:.1f} M)")


def parse_reductions(text: str, num_cells: int) -> tuple[int, ...] | None:
    """Positions from `thirds`, a list such as 2,5, or None for the genotype's own.

    Raises:
        UserError: the text is none of them.
    """
    from ddarts_core.errors import UserError
    from ddarts_core.spaces import default_reductions

    if text == "genotype":
        return None
    if text == "thirds":
        return default_reductions(num_cells)
    try:
        positions = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--reductions {text!r}: choose thirds, genotype, or positions such as 2,5") from None
    if list(positions) != sorted(set(positions)) or not all(0 <= position < num_cells for position in positions):
        raise UserError(f"--reductions {text}: positions must ascend within 0..{num_cells - 1}, each once")
    return positions
