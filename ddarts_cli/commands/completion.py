"""`ddarts completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    \b
    Examples:
      eval "$(ddarts completion bash)"
      ddarts completion fish > ~/.config/fish/completions/ddarts.fish
    """
    from click.shell_completion import get_completion_class

    from ddarts_cli import completing  # noqa: F401  # registers our script for bash
    from ddarts_cli.main import COMPLETE, cli

    completer = get_completion_class(shell)
    assert completer is not None  # the argument allows no other
    click.echo(completer(cli, {}, "ddarts", COMPLETE).source())
