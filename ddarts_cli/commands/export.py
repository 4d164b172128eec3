"""`ddarts export`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli.options import out_option, storage_folder, storage_option


@click.command()
@click.argument("study")
@click.option("--top", type=int, default=3, show_default=True, help="How many genotypes.")
@click.option("--by", help="Order: metrics, a minus for largest first, or pareto (default: the study's objectives).")
@storage_option
@out_option("STUDY/export")
def command(study: str, top: int, by: str | None, storage: str, overrides: tuple[str, ...], out: Path | None) -> None:
    """Write the best genotypes of STUDY: JSON, picture, settings, and a README with the numbers.

    \b
    Examples:
      ddarts export quickstart_sweep --top 3
      ddarts export quickstart_sweep --by -accuracy,params --out best
    """
    from analysis.export import export, retrain_command
    from ddarts_cli.console import finish, say
    from tuning.study import find_study

    found = find_study(study, storage_folder(storage, overrides))
    say(f"export the best {top} of {found.path}")
    exported = export(found.path, top, by, out)
    for item in exported:
        say(f"{item.place}. {item.genotype.hash}: {item.genotype.num_edges} edges, trial {item.row['trial_id']}")
    finish([item.folder for item in exported], [retrain_command(item.folder) for item in exported[:1]])
