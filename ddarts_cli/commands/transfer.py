"""`ddarts transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli import completing
from ddarts_cli.options import out_option, read_genotype

if TYPE_CHECKING:
    from ddarts_core.transfer.settings import TransferConfig


@click.command()
@click.argument("genotype", shell_complete=completing.genotype)
@click.option(
    "--task",
    type=click.Choice(["coco-detection", "cityscapes-instances"]),
    help="RetinaNet on COCO's format, or Mask R-CNN on Cityscapes' (default: the file's, or coco-detection).",
)
@click.option(
    "--recipe",
    shell_complete=completing.transfer_recipe,
    help="Recipe (default: retinanet-1x or mask-rcnn-cityscapes); Tab lists them.",
)
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="YAML file of settings, as an earlier run left."
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Folder of ddarts export, or its weights.safetensors, that the backbone begins with.",
)
@click.option("--data-root", help="Folder of the data set's files.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a setting by its dotted path, for example --set training.epochs=5; repeatable.",
)
@click.option(
    "--num-workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that train one network together, each on a GPU of its own if there are any.",
)
@click.option(
    "--address",
    metavar="auto|HOST:PORT|ray://HOST:PORT",
    help="Ray cluster that the workers run on (default: this machine). Its machines must share all folders.",
)
@out_option("runs/transfer-HASH")
@click.option("--tracking-uri", help="MLflow store that also gets settings, scores of all epochs, and the picture.")
@click.option("--resume", is_flag=True, help="Go on from the last epoch in the folder.")
@click.option("--force", is_flag=True, help="Replace a training that the folder holds.")
def command(
    genotype: str,
    task: str | None,
    recipe: str | None,
    file: Path | None,
    weights: Path | None,
    data_root: str | None,
    overrides: tuple[str, ...],
    num_workers: int,
    address: str | None,
    out: Path | None,
    tracking_uri: str | None,
    resume: bool,
    force: bool,
) -> None:
    """Train the network of GENOTYPE as the backbone of a detector, and score it on held-out images.

    GENOTYPE is a JSON file, a published text form, or zoo:NAME. Its feature maps at strides 4 to 32 go into a feature
    pyramid, and that into torchvision's RetinaNet or Mask R-CNN. All files are looked at once before anything is
    trained. The learning rate follows the batch size: half the batch, half the rate. With several workers, each
    computes a part of every batch: the batch size stays, and the result is that of one process, except for rounding.

    \b
    Examples:
      ddarts transfer zoo:ResNet18 --weights runs/retrain-0123456789ab/export --data-root /data/coco
      ddarts transfer genotype.json --weights export --task cityscapes-instances --data-root /data/cityscapes
      ddarts transfer zoo:ResNet18 --recipe retinanet-small --data-root data/shapes --set training.epochs=5
      python -m ddarts_core.transfer.shapes coco-detection data/shapes      writes a small set to try it with
    """
    if address is not None and num_workers == 1:
        raise click.UsageError("--address names the cluster of several workers: give --num-workers 2 or more with it")
    from ddarts_cli.console import again, finish, resumable, say
    from ddarts_cli.folders import TransferFolder
    from ddarts_cli.transferring import train
    from ddarts_core.genotypes.genotype import Genotype
    from ddarts_core.ground.nested import override, read_yaml
    from ddarts_core.studies.shell import ddarts
    from ddarts_core.transfer.settings import resolve

    read = Genotype.narrowed(read_genotype(genotype), "ddarts transfer")
    data: dict[str, Any] = read_yaml(file) if file else {}
    if recipe is not None and file is not None:
        data = {key: value for key, value in data.items() if key in ("seed", "task", "data")}
    settings = {"task": task, "recipe": recipe, "data.root": data_root}
    config: TransferConfig = resolve(
        data,
        [*(override(path, value) for path, value in settings.items() if value is not None), *overrides],
        where=str(file) if file else "transfer",
    )
    place = TransferFolder(out or Path("runs") / f"transfer-{read.hash}")
    training = config.training
    say(
        f"transfer {genotype} ({read.num_cells} cells) to {config.task}: recipe {config.recipe}, {training.epochs} "
        f"epochs, batches of {training.batch_size}, learning rate {training.scaled_lr:g}, seed {config.seed}"
        f"{f', {num_workers} workers' if num_workers > 1 else ''}"
    )
    with resumable(again("--resume"), lambda: place.begun):
        train(
            read,
            config,
            place,
            weights,
            resume=resume,
            force=force,
            tracking_uri=tracking_uri,
            num_workers=num_workers,
            address=address,
        )
    table = 4 if config.task == "coco-detection" else 5
    finish(
        [place.result, place.records, place.weights, place.picture],
        [ddarts("report", place.path), ddarts("table", "--published", table, place.path)],
    )
