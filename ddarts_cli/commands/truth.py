"""`ddarts truth`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from ddarts_cli.options import set_option


@click.command()
@click.argument("file", metavar="FILE|STUDY", type=click.Path(path_type=Path))
@set_option
@click.option("--out", metavar="DIR|URI", help="Folder to write to (default: storage/name of the file).")
@click.option(
    "--address",
    metavar="auto|HOST:PORT|ray://HOST:PORT",
    help="Ray cluster to run on (default: this machine alone). Its machines must share the storage, a folder or a URI.",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    help="Write what the trainings of STUDY found to this file: a row each, with genotype, accuracy, sizes and scores.",
)
def command(file: Path, overrides: tuple[str, ...], out: str | None, address: str | None, export: Path | None) -> None:
    """Train every genotype of the small space of FILE, so that searches in it can be judged.

    The result is a study like any other: it resumes, reports and exports. Genotypes that are the same network but for
    the names of nodes are trained once. `ddarts regret` then says what searches in that space are worth.

    \b
    Examples:
      ddarts estimate experiments/truth_digits.yaml --truth
      ddarts truth experiments/truth_digits.yaml
      ddarts truth runs/truth_digits --export truth_digits.parquet
      ddarts truth FILE --set retrain.epochs=10 --set 'space={seed: {type: categorical, choices: [0, 1, 2]}}'
    """
    if export is not None:
        _export(file, export)
        return
    from ddarts_tuning.settings.truth import load_truth

    from ddarts_cli.commands.sweep import run
    from ddarts_cli.console import say
    from ddarts_core.settings.config import enumeration_of

    config = load_truth(file, overrides)
    every = enumeration_of(config)
    say(
        f"{every.size:,} genotypes of {every.num_cells} cells with {every.steps} node{'s' * (every.steps > 1)} over "
        f"{every.space}, {len(every):,} of them distinct: {config.tune.num_samples:,} trainings"
    )
    run(partial(load_truth, file), overrides, out=out, address=address)


def _export(study: Path, file: Path) -> None:
    from ddarts_analysis.truth import export, read_truth
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.console import finish
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.files import write_with

    if file.suffix.lower() != ".parquet":
        raise UserError(f"--export {file}: a truth is exported as Parquet: give a name that ends in .parquet")
    write_with(file, export(read_truth(find_study(str(study)).path)).to_parquet)
    finish([file], [])
