"""`ddarts settings`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json
from ddarts_core.ground.errors import UserError


@click.command()
@click.argument("word", required=False, shell_complete=completing.setting)
@json_option
def command(word: str | None, as_json: bool) -> None:
    """Explain the settings of an experiment or a sweep: defaults, allowed values, meaning.

    WORD picks those whose path or meaning has it: a group (search, tune), a setting (alpha.lr) or a topic (memory).

    \b
    Examples:
      ddarts settings
      ddarts settings tune
      ddarts settings memory
      ddarts settings search.lr --json
    """
    from ddarts_tuning.settings.config import SweepConfig

    from ddarts_cli.settings import groups

    found = [
        (group, chosen)
        for group in groups(SweepConfig, tables())
        if (chosen := [setting for setting in group.settings if _fits(word, setting.path, setting.meaning)])
    ]
    if not found:
        raise UserError(f"no setting has {word!r} in its path or its meaning: see `ddarts settings`")
    if as_json:
        print_json({setting.path: asdict(setting) for _, chosen in found for setting in chosen})
        return
    for group, chosen in found:
        click.secho(f"\n{group.path or 'top level'}: {group.meaning}", bold=True)
        for setting in chosen:
            click.echo(f"  {setting.path} = {json.dumps(setting.default)}    ({setting.allowed})")
            click.echo(f"      {setting.meaning}")


def _fits(word: str | None, path: str, meaning: str) -> bool:
    return word is None or word.lower() in path.lower() or word.lower() in meaning.lower()


def tables() -> dict[str, Any]:
    """Names that a setting may have, by the setting."""
    from ddarts_tuning.settings.searchers import SEARCHERS
    from ddarts_tuning.settings.tune import SCHEDULERS

    from ddarts_core.genotypes.spaces import SPACES
    from ddarts_core.methods import EDGES, FREEZINGS, GATES, METHODS, NETWORKS, PLANS, RULES, ablation_losses
    from ddarts_core.settings.data_settings import DATA_SETS
    from ddarts_core.settings.recipes import RECIPES

    named, device = ("letters, digits and . _ -",), ("auto", "cpu", "cuda", "cuda:N")
    return {
        "name": named,
        "search.device": device,
        "retrain.device": device,
        "data.name": tuple(DATA_SETS),
        "method": METHODS,
        "retrain.recipe": RECIPES,
        "search.space": SPACES,
        "search.network": NETWORKS,
        "search.gates": GATES,
        "search.edge": EDGES,
        "search.stages": PLANS,
        "search.freezing": FREEZINGS,
        "ablation.loss": ("none", *ablation_losses()),
        "discretise.rule": RULES,
        "tune.scheduler": SCHEDULERS,
        "tune.searcher": SEARCHERS,
    }
