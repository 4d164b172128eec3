"""`ddarts op-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli.options import OutFile, set_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddarts_core.genotypes.genotype import Genotype


@click.command(name="op-weights")
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@click.option(
    "--out",
    type=OutFile(".json", "weights are written as JSON"),
    default=Path("operation_weights.json"),
    show_default=True,
    help="File to write; one that holds a part of the same measurement is gone on with.",
)
@click.option("--places", type=click.IntRange(min=1), help="Measure at so many places, evenly spaced (default: all).")
def command(file: Path, overrides: tuple[str, ...], out: Path, places: int | None) -> None:
    """Measure what distances weigh operations by: how good a network is with each of them in turn at the same place.

    A place is an operation of `search.start` (default: zoo:ResNet18). For each place and each operation of
    `search.space` the network with that operation there is trained by the settings of `retrain` and scored on held-out
    images; the weight of an operation is its mean accuracy in percent over the places. The test images are never read.

    \b
    Examples:
      ddarts op-weights my.yaml --places 3 --out weights.json
      ddarts distance zoo:ResNet18 zoo:ResNet50 --weights weights.json
    """
    from ddarts_cli.console import finish, say
    from ddarts_cli.files import load_search
    from ddarts_cli.images import read_train
    from ddarts_cli.output import write_json
    from ddarts_core.data.splits import split
    from ddarts_core.genotypes.spaces import operations_of
    from ddarts_core.ground.errors import UserError
    from ddarts_core.settings.hashing import config_hash
    from ddarts_core.settings.warm_start import individual
    from ddarts_core.studies.shell import ddarts
    from ddarts_core.studies.study_files import read_json
    from ddarts_core.training.retrain import Retrain

    config = load_search(file, overrides)
    genotype = individual(config.search.start or "zoo:ResNet18")
    names = [name for name in operations_of(config.search.space) if name != "none"]
    identity = {"config_hash": config_hash(config), "genotype_hash": genotype.hash, "places": places}
    done: list[dict[str, Any]] = []
    if out.exists():
        before = read_json(out)
        if before.get("identity") != identity:
            raise UserError(f"{out} holds another measurement: write elsewhere with --out, or remove it")
        done = before["trainings"]
    chosen = [*changed(genotype, names, places)]
    info, images = read_train(config.data)
    parts = split(images, config.data, config.seed)
    train = parts.weights.joined(parts.alphas)
    say(f"measure {len(names)} operations at {len(chosen) // len(names)} places: {len(chosen) - len(done)} trainings")
    for place, name, network in chosen[len(done) :]:
        run = Retrain(config.retrain, network, info, train, None, config.seed)
        for _ in run.records():
            pass
        accuracy = run.evaluate(parts.held_out).metrics["accuracy"]
        say(f"place {place} {name}: {100 * accuracy:.2f} %")
        done = [*done, {"place": place, "operation": name, "accuracy": accuracy}]
        found = {op: [100 * each["accuracy"] for each in done if each["operation"] == op] for op in names}
        weights = {op: sum(values) / len(values) for op, values in found.items() if values}
        write_json(out, {"weights": weights, "identity": identity, "trainings": done})
    finish([out], [ddarts("distance", "zoo:ResNet18", "zoo:ResNet50", "--weights", out)])


def changed(genotype: Genotype, names: list[str], places: int | None) -> Iterator[tuple[int, str, Genotype]]:
    """Each place, by its number among all operations of the genotype, with each operation there in turn."""
    from dataclasses import replace

    from ddarts_analysis.ranking import evenly

    every = [(cell, edge) for cell, inner in enumerate(genotype.cells) for edge in range(len(inner.edges))]
    chosen = range(len(every)) if places is None else evenly(range(len(every)), max(2, places))[:places]
    for place in chosen:
        at, number = every[place]
        for name in names:
            edges = [replace(e, op=name) if k == number else e for k, e in enumerate(genotype.cells[at].edges)]
            cell = replace(genotype.cells[at], edges=tuple(edges))
            yield place, name, replace(genotype, cells=(*genotype.cells[:at], cell, *genotype.cells[at + 1 :]))
