"""`ddarts retrain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli import completing
from ddarts_cli.options import out_option, read_genotype, set_option

if TYPE_CHECKING:
    from ddarts_analysis.scores import Score

    from ddarts_cli.folders import RetrainFolder
    from ddarts_core.settings.config import ExperimentConfig

#: Seeds that give an interval worth having.
MANY = 4


@click.command()
@click.argument("genotype", shell_complete=completing.genotype)
@click.option(
    "--recipe", shell_complete=completing.recipe, help="Recipe (default: the file's, or quick); Tab lists them."
)
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Experiment file to take data and settings from."
)
@click.option("--data", "data_name", shell_complete=completing.data, help="Data set (default: digits); Tab lists them.")
@click.option("--data-root", help="Folder of the data set's files.")
@click.option("--cells", type=click.IntRange(min=1), help="Derive a network of so many cells by Algorithm 1.")
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Train once for each of so many seeds."
)
@click.option(
    "--random-baseline",
    "num_random",
    type=click.IntRange(0, 1000),
    is_flag=False,
    flag_value=1,
    default=0,
    metavar="[N]",
    help="Also train N random genotypes with as many operations (without a number: one), and compare.",
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
    help="Ray cluster that the workers run on (default: this machine). Its machines must share the output folder.",
)
@set_option
@out_option("runs/retrain-HASH")
@click.option("--resume", is_flag=True, help="Go on from the last epochs that the folder holds, or add seeds.")
@click.option("--force", is_flag=True, help="Replace a retrain that the folder holds.")
def command(
    genotype: str,
    recipe: str | None,
    file: Path | None,
    data_name: str | None,
    data_root: str | None,
    cells: int | None,
    seeds: int,
    num_random: int,
    num_workers: int,
    address: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    force: bool,
) -> None:
    """Train the network of GENOTYPE from scratch and read the test split once.

    GENOTYPE is a JSON file, a published text form, or zoo:NAME. With several seeds, the command prints the
    mean and its interval. With several workers, each computes a part of every batch: the batch size stays, and the
    result is that of one process, except for rounding.

    \b
    Examples:
      ddarts retrain runs/quickstart/genotype.json --config runs/quickstart/config.yaml
      ddarts retrain zoo:DARTS_V2 --recipe cifar --data cifar10 --data-root data
      ddarts retrain genotype.json --seeds 4 --random-baseline --set retrain.epochs=30
      ddarts retrain genotype.json --seeds 3 --random-baseline 8
      ddarts retrain zoo:DARTS_V2 --recipe imagenet-darts --data imagenet --data-root /data/imagenet --num-workers 8
    """
    if address is not None and num_workers == 1:
        raise click.UsageError("--address names the cluster of several workers: give --num-workers 2 or more with it")
    from ddarts_cli.console import again, finish, resumable, say
    from ddarts_cli.folders import RetrainFolder
    from ddarts_core.ground.nested import override, read_yaml
    from ddarts_core.ground.plugins import needed_by
    from ddarts_core.settings.config import resolve

    read = read_genotype(genotype)
    data: dict[str, Any] = read_yaml(file) if file else {}
    settings = {"retrain.num_cells": cells, "data.name": data_name, "data.root": data_root}
    changed = [*(override(path, value) for path, value in settings.items() if value is not None), *overrides]
    with needed_by(file or Path()):
        config: ExperimentConfig = resolve(_base(data, recipe), changed, where=str(file) if file else "retrain")
    folder = out or Path(config.storage) / f"retrain-{read.hash}"
    say(
        f"retrain {genotype} ({read.num_cells} {read.part}s, {read.num_edges} edges): recipe {config.retrain.recipe} "
        f"on {config.data.name}, {config.retrain.epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''} "
        f"from {config.seed}{f', {num_workers} workers' if num_workers > 1 else ''}"
    )
    from ddarts_cli.training import run_seeds

    place = RetrainFolder(folder)
    with resumable(again("--resume"), lambda: place.begun):
        scores = run_seeds(
            read,
            config,
            folder,
            num_seeds=seeds,
            num_random=num_random,
            resume=resume,
            force=force,
            num_workers=num_workers,
            address=address,
            beside=_facts_of(Path(genotype)) if Path(genotype).exists() else None,
        )
    finish(
        [place.result, *sorted(folder.glob("*/weights.pt"))], _following(place, config, scores, num_workers, address)
    )


def _facts_of(genotype: Path) -> Path:
    """The folder with the facts of the images that a genotype was found on: its own, or that of its trial's study."""
    from ddarts_core.datasets.facts import FILE

    folder = genotype.absolute().parent
    of_study = folder.parent.name == "trials" and not (folder / FILE).exists()
    return folder.parents[1] if of_study else folder


def _following(
    place: RetrainFolder, config: ExperimentConfig, scores: Mapping[str, Score], num_workers: int, address: str | None
) -> list[str]:
    """What to run next; the same retrain with more seeds and a random genotype, unless it has them."""
    from ddarts_cli.models import cost_command
    from ddarts_core.data.sets import data_info
    from ddarts_core.datasets.facts import read_info
    from ddarts_core.genotypes.genotype import AnyGenotype, Genotype
    from ddarts_core.studies.shell import ddarts

    info = read_info(place.path) or data_info(config.data)
    commands = [ddarts("export", place.path), cost_command(place.genotype, config, info)]
    num_seeds = len(scores["genotype"].accuracies)
    comparable = isinstance(AnyGenotype.load(place.genotype), Genotype)  # with a random genotype of cells
    if num_seeds < MANY or (comparable and "random" not in scores):
        more = ["retrain", place.genotype, "--config", place.config, "--out", place.path, "--resume"]
        more += ["--seeds", max(MANY, num_seeds), *(["--random-baseline"] if comparable else [])]
        more += ["--num-workers", num_workers] if num_workers > 1 else []
        more += ["--address", address] if address is not None else []
        commands.append(ddarts(*more))
    return commands


def _base(data: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    """The file's settings without those of a sweep; a recipe on the command line replaces the file's training."""
    from ddarts_cli.files import SWEEP_KEYS

    base = {key: value for key, value in data.items() if key not in SWEEP_KEYS}
    if recipe is not None:
        base["retrain"] = {"recipe": recipe}
    return base
