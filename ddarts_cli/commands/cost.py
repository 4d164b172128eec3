"""`ddarts cost`."""

from __future__ import annotations

from typing import Literal

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, read_genotype
from ddarts_core.genotypes.blocks import StagedGenotype
from ddarts_core.genotypes.derive import DEPTH, as_built


@click.command()
@click.argument("genotype", shell_complete=completing.genotype)
@click.option(
    "--channels", type=click.IntRange(1, 4096), default=36, show_default=True, help="Width of the first cells."
)
@click.option(
    "--cells",
    type=click.IntRange(1, 1000),
    help="Depth (default: the genotype's; for two shared cells 20, ImageNet 14).",
)
@click.option("--classes", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Number of classes.")
@click.option(
    "--form", type=click.Choice(list(DEPTH)), default="cifar", show_default=True, help="Stem and auxiliary head."
)
@click.option(
    "--reductions",
    metavar="thirds|genotype|2,5",
    help="Reduction cells: at thirds of the depth, the genotype's own positions, or a list (default: the genotype's "
    "at its own depth, else thirds).",
)
@click.option(
    "--order",
    type=click.Choice(["paper", "published"]),
    default="paper",
    show_default=True,
    help="Order of Algorithm 1 where --cells derives a deeper network.",
)
@click.option(
    "--image-size",
    type=click.IntRange(8, 1024),
    help="Pixels (default: 32, 224 for ImageNet, or what a genotype of stages is meant for).",
)
@click.option("--in-channels", type=click.IntRange(1, 64), default=3, show_default=True, help="Channels of the images.")
@click.option(
    "--on-dead-cell",
    type=click.Choice(["warn", "connect", "error"]),
    default="warn",
    show_default=True,
    help="What becomes of cells that nothing reads (retrain.on_dead_cell).",
)
@json_option
def command(
    genotype: str,
    channels: int,
    cells: int | None,
    classes: int,
    form: Literal["cifar", "imagenet", "imagenet-published"],
    reductions: str | None,
    order: Literal["paper", "published"],
    image_size: int | None,
    in_channels: int,
    on_dead_cell: Literal["warn", "connect", "error"],
    as_json: bool,
) -> None:
    """Count parameters and multiply-adds of GENOTYPE.

    GENOTYPE is a JSON file, a published text form, or zoo:NAME. The auxiliary head counts apart. Multiply-adds come by
    three conventions: A counts convolutions and linear layers, B and C what published tables add to them. A genotype
    of stages has its own widths, depth and size of images: --channels and --form do not concern it.

    \b
    Examples:
      ddarts cost zoo:DARTS_V2 --channels 36 --cells 20 --classes 10
      ddarts cost genotype.json --form imagenet --channels 48 --cells 14 --classes 1000 --json
      ddarts cost zoo:FBNetV2_L1 --classes 1000
    """
    read = read_genotype(genotype)
    positions = parse_reductions(reductions)
    built = as_built(read, form, cells, positions, order, on_dead_cell)
    depth, staged = built.num_cells, isinstance(built, StagedGenotype)
    size = image_size or (built.image_size if isinstance(built, StagedGenotype) else 32 if form == "cifar" else 224)

    from ddarts_core.networks.cost import cost

    counted = cost(
        read,
        channels=channels,
        num_cells=cells,
        num_classes=classes,
        form=form,
        reductions=positions,
        derive_order=order,
        image_size=size,
        in_channels=in_channels,
        on_dead_cell=on_dead_cell,
    )
    if as_json:
        print_json(
            {
                "genotype_hash": read.hash,
                "channels": None if staged else channels,
                "cells": depth,
                "classes": classes,
                "form": None if staged else form,
                "image_size": size,
                **({"weights": counted.weights} if staged else {}),
                **counted.to_dict(),
            }
        )
        return
    shape = built.words if staged else f"{depth} cells of {channels} channels"
    kind = "" if staged else f"form {form}, "
    click.echo(f"{genotype}: {shape}, {classes} classes, {kind}{size} x {size} pixels")
    click.echo(f"parameters: {counted.parameters:,} ({counted.parameters / 1e6:.2f} M)")
    if staged:
        click.echo(f"weights of convolutions and linear layers, as FBNetV2 counts: {counted.weights:,}")
    click.echo(f"auxiliary head: {counted.auxiliary_parameters:,} more")
    for convention, macs in counted.macs.items():
        click.echo(f"multiply-adds, convention {convention}: {macs:,} ({macs / 1e6:.1f} M)")
    if counted.dead_cells:
        from ddarts_core.genotypes.dead_cells import dead_sentence

        click.echo(f"{dead_sentence(counted.dead_cells, depth)}; --on-dead-cell connect gives them a reader")


def parse_reductions(text: str | None) -> str | tuple[int, ...] | None:
    """`thirds`, `genotype`, None, or the positions in a list such as 2,5.

    Raises:
        UserError: the text is none of them.
    """
    from ddarts_core.ground.errors import UserError

    if text in (None, "thirds", "genotype"):
        return text
    assert text is not None
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"--reductions {text!r}: choose thirds, genotype, or positions such as 2,5") from None
