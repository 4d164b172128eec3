"""`ddarts methods`."""

from __future__ import annotations

from typing import Any

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False, shell_complete=completing.method)
@click.option("--parts", is_flag=True, help="List the parts that methods are made of, and their options.")
@json_option
def command(name: str | None, parts: bool, as_json: bool) -> None:
    """List the method presets and what each sets; with NAME, that one with its formula and what is uncertain.

    \b
    Examples:
      ddarts methods
      ddarts methods pcdarts
      ddarts methods --parts
      ddarts search experiments/quickstart.yaml --set method=fairdarts
    """
    from ddarts_core.methods import METHODS, all_parts

    if parts:
        found = [(path, part.name, part.summary, _options(part)) for path, part in all_parts()]
        if as_json:
            print_json([dict(zip(("setting", "name", "summary", "options"), row, strict=True)) for row in found])
            return
        for path, part, summary, options in found:
            click.echo(f"{path}: {part}: {summary}")
            for option, meaning in options.items():
                click.echo(f"    {path.partition('.')[0]}.options.{option}: {meaning}")
        return
    chosen = dict(METHODS) if name is None else {name: METHODS.known(name)}
    if as_json:
        fields = ("summary", "source", "formula", "uncertain", "settings")
        print_json({key: {field: _plain(getattr(method, field)) for field in fields} for key, method in chosen.items()})
        return
    for key, method in chosen.items():
        click.echo(f"{key}: {method.summary}")
        click.echo(f"    source: {method.source}")
        if name is not None:
            click.echo(f"    formula: {method.formula}")
            for line in method.uncertain:
                click.echo(f"    uncertain: {line}")
        for path, value in flatten(method.settings).items():
            click.echo(f"    {path} = {value}")


def _options(part: Any) -> dict[str, str]:
    return {name: f"{field.description} (default {field.default})" for name, field in part.Options.model_fields.items()}


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else list(value) if isinstance(value, tuple) else value


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
