"""`ddarts methods`."""

from __future__ import annotations

from typing import Any

import click

from ddarts_cli.options import json_option, print_json


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the method presets and what each sets.

    \b
    Examples:
      ddarts methods
      ddarts search experiments/quickstart.yaml --set method=fairdarts
    """
    from ddarts_core.methods import METHODS

    if as_json:
        print_json(
            {
                name: {"summary": method.summary, "source": method.source, "settings": dict(method.settings)}
                for name, method in METHODS.items()
            }
        )
        return
    for name, method in METHODS.items():
        click.echo(f"{name}: {method.summary}")
        click.echo(f"    source: {method.source}")
        for path, value in flatten(method.settings).items():
            click.echo(f"    {path} = {value}")


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
