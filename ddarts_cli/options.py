"""Options that several subcommands share, and what they mean."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ddarts_cli import completing
from ddarts_core.ground.errors import UserError

if TYPE_CHECKING:
    from ddarts_core.genotypes.genotype import AnyGenotype

Command = TypeVar("Command", bound=Callable[..., Any])


def set_option(command: Command) -> Command:
    """`--set dotted.path=value`, repeatable; the function receives `overrides`."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        shell_complete=completing.setting,
        help="Override a setting by its dotted path, for example --set search.epochs=5; repeatable.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`; the function receives `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(command)


def out_option(default: str) -> Callable[[Command], Command]:
    """`--out DIR`; the function receives `out`, a path or None for the default that the help text names."""
    return click.option("--out", type=Folder(path_type=Path), help=f"Folder to write to (default: {default}).")


class OutFile(click.Path):
    """The path of a file of one kind.

    A name that ends as files of another kind do is refused; a name with an ending of no known kind is taken.

    Args:
        suffix: the suffix of files of this kind, such as `.html`.
        what: what is written to the file.
    """

    def __init__(self, suffix: str, what: str) -> None:
        super().__init__()
        self._suffix, self._what = suffix, what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, unless its name is that of a file of another kind."""
        import mimetypes

        path = Path(str(value))
        if path.suffix.lower() != self._suffix and mimetypes.guess_type(path.name)[0] is not None:
            raise UserError(f"--out {path}: {self._what}: give a name that ends in {self._suffix}")
        return path


class Folder(click.Path):
    """The path of a folder. A URI is refused, since `Path` would make a folder of that name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, if it is no URI."""
        from ddarts_core.ground.files import check_folder

        return super().convert(check_folder(str(value)), param, ctx)


def reference_option(command: Command) -> Command:
    """`--reference parameters=NUMBER`, repeatable; the function receives `references`, a mapping."""
    return click.option(
        "--reference",
        "references",
        multiple=True,
        metavar="COST=NUMBER",
        callback=lambda _, __, given: _references(given),
        help="Take the hypervolume of fronts up to this cost, such as parameters=2e6 or macs=1e8; repeatable.",
    )(command)


def _references(given: Iterable[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if name not in ("parameters", "macs") or not 0 < found[name] < math.inf:
            raise UserError(f"--reference {text!r}: give parameters=NUMBER or macs=NUMBER, above 0")
    return found


def storage_option(command: Command) -> Command:
    """`--storage DIR|URI` and `--set storage=DIR`, for commands that take a study.

    The function receives `storage` and `overrides`.
    """
    command = click.option("--storage", default="runs", show_default=True, help="Folder or URI that holds studies.")(
        command
    )
    return set_option(command)


def storage_folder(storage: str, overrides: Iterable[str]) -> str:
    """The folder or URI of studies that `--set storage=...` names, or else `--storage`.

    Raises:
        UserError: `--set` names another setting than `storage`; the settings of a study that exists are fixed.
    """
    from ddarts_core.ground.nested import parse_override

    for text in overrides:
        path, value = parse_override(text)
        if path != "storage":
            raise UserError(f"--set {text!r}: a study that exists keeps its settings; only storage can be set here")
        storage = str(value)
    return storage


def read_genotype(argument: str) -> AnyGenotype:
    """The genotype that an argument names.

    If its file is not read exactly as it is written, a note on standard error says so.

    Raises:
        UserError: the argument names no genotype (see `ddarts_core.genotypes.zoo.read_genotype`).
    """
    from ddarts_core.genotypes import zoo

    genotype, notes = zoo.read_genotype(argument)
    for note in notes:
        click.echo(f"Note on {argument}: {note}", err=True)
    return genotype


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(document, indent=2))
