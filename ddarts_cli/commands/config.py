"""`ddarts config`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli.options import set_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
def command(file: Path, overrides: tuple[str, ...]) -> None:
    """Print the resolved configuration, every default shown; run nothing.

    The output is itself a valid file, without the password of a tracking URI. FILE is an experiment or a sweep.

    \b
    Examples:
      ddarts config experiments/quickstart.yaml
      ddarts config experiments/quickstart.yaml --set method=fairdarts --set search.epochs=5
    """
    from ddarts_tuning.settings.config import SweepConfig

    from ddarts_cli.files import load
    from ddarts_core.settings.departures import departures, sentence
    from ddarts_core.settings.hashing import config_hash

    full = load(file, overrides)
    config = full.shown if isinstance(full, SweepConfig) else full
    click.echo(f"# config hash {config_hash(config)}")
    if changed := departures(config):
        click.echo(f"# {sentence([config.method], changed)}")
    if config != full:
        click.echo("# tracking.uri is without its secrets: to run this, have it in full in MLFLOW_TRACKING_URI")
    click.echo(dump(config), nl=False)


def dump(config: object) -> str:
    """A configuration as YAML."""
    import yaml
    from pydantic import BaseModel

    assert isinstance(config, BaseModel)
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
