"""`ddarts check-plugin`."""

from __future__ import annotations

import click


@click.command()
@click.argument("plugin", metavar="FILE|MODULE")
def command(plugin: str) -> None:
    """Check what a plug-in registers against the laws that ddarts' own tables keep.

    Prints a line for each law of each entry; exit status 1 if one is broken.

    \b
    Examples:
      ddarts check-plugin my_plugin.py
      ddarts check-plugin my_package
    """
    from ddarts_cli.console import say
    from ddarts_core.errors import UserError
    from ddarts_core.plugins import load

    loaded = load(plugin)
    if not loaded.registry.names:
        raise UserError(
            f"plug-in {loaded.source.name!r} registers nothing: its `register` is given the tables to add to"
        )
    from ddarts_core.conformance import laws, unlawful

    say(f"plug-in {loaded.source.name}, sha256 {loaded.source.sha256}")
    broken = 0
    for law in laws(loaded.registry):
        found = unlawful(law)
        broken += found is not None
        say(f"{'broken' if found else 'kept'}: {law.entry}: {law.text}{f': {found}' if found else ''}")
    if broken:
        raise click.exceptions.Exit(1)
