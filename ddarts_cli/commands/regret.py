"""`ddarts regret`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, storage_folder, storage_option


@click.command()
@click.argument("truth", metavar="TRUTH", shell_complete=completing.study)
@click.argument("studies", nargs=-1, metavar="STUDY...", shell_complete=completing.study)
@storage_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder that also gets the tables and the figures.")
@click.option(
    "--runs", type=click.IntRange(2, 100_000), default=200, show_default=True, help="Of each simulated search."
)
@json_option
def command(
    truth: str,
    studies: tuple[str, ...],
    storage: str,
    overrides: tuple[str, ...],
    out: Path | None,
    runs: int,
    as_json: bool,
) -> None:
    """Judge the searches of STUDY... by TRUTH, in which every genotype of their space is trained.

    Of each method: how far the genotypes that it found are behind the best one (regret), where they rank, and how far
    behind random search would be that trains as many genotypes as fit into the time of a search, with the chance that
    it does as well. Then what predicts the truth: the gates of searches, and what is known of a network that was not
    trained. Last, searches that are only simulated: each look at a genotype costs one training.

    Searches and truth must have the same images and the same split; data.split.seed fixes the split for all seeds.

    \b
    Examples:
      ddarts regret truth_digits regret_digits
      ddarts regret runs/truth_digits runs/regret_digits --out regret
      ddarts regret truth_digits --json                      the truth alone
    """
    from ddarts_analysis.regret import judge, markdown, plain
    from ddarts_analysis.study import read_study
    from ddarts_analysis.truth import read_truth
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.files import find_recorded

    folder = storage_folder(storage, overrides)
    known = read_truth(find_recorded(truth) or find_study(truth, folder).path)
    searched = [read_study(find_recorded(name) or find_study(name, folder).path) for name in studies]
    found = judge(known, searched, runs)
    if as_json:
        print_json(plain(found))
    else:
        click.echo(markdown(found))
    if out is not None:
        from ddarts_analysis.canvas import save
        from ddarts_analysis.regret import methods_figure, predictors_figure, regret_figure, simulation_figure

        from ddarts_cli.console import finish
        from ddarts_core.ground.files import write_atomic
        from ddarts_core.studies.shell import ddarts

        write_atomic(out / "regret.md", markdown(found) + "\n")
        drawn = {"regret": regret_figure(known, found), "simulation": simulation_figure(found)}
        drawn["predictors"] = predictors_figure(found)
        if found["methods"]:
            drawn["methods"] = methods_figure(known, found)
        files = [out / "regret.md", *(save(figure, out / f"{name}.png") for name, figure in drawn.items())]
        if not as_json:
            finish(files, [ddarts("report", truth, *studies)])
