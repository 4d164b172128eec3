"""`ddarts check-plugin`."""

from __future__ import annotations

from collections.abc import Mapping

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json


@click.command()
@click.argument("plugin", metavar="FILE|FOLDER|MODULE", shell_complete=completing.file)
@json_option
def command(plugin: str, as_json: bool) -> None:
    """Check what a plug-in registers against the laws that ddarts' own tables keep.

    Prints a line for each law of each entry; exit status 1 if one is broken.

    \b
    Examples:
      ddarts check-plugin my_plugin.py
      ddarts check-plugin my_package --json
    """
    from ddarts_cli.console import say
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.plugins import load

    loaded = load(plugin)
    if not loaded.registry.names:
        raise UserError(
            f"plug-in {loaded.source.name!r} registers nothing: its `register` is given the tables to add to"
        )
    from ddarts_core.extension.conformance import laws, unlawful
    from ddarts_core.extension.law import Laws

    above: Mapping[str, Laws] = {}
    if "searcher" in loaded.registry.names:
        from ddarts_tuning.searchers.conformance import LAWS

        above = LAWS

    if not as_json:
        say(f"plug-in {loaded.source.name}, sha256 {loaded.source.sha256}")
    checked = []
    for law in laws(loaded.registry, above):
        found = unlawful(law)
        checked.append({"entry": law.entry, "law": law.text, "kept": found is None, "found": found})
        if not as_json:
            say(f"{'broken' if found else 'kept'}: {law.entry}: {law.text}{f': {found}' if found else ''}")
    if as_json:
        print_json({"plugin": loaded.source.name, "sha256": loaded.source.sha256, "laws": checked})
    if not all(law["kept"] for law in checked):
        raise click.exceptions.Exit(1)
