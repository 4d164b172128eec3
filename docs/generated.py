"""Pages of the documentation's site that are made as it is built, from the files of the root and from the code."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import ddarts
import griffe
from ddarts_tuning.settings.config import SweepConfig
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from ddarts_cli.commands.settings import tables
from ddarts_cli.main import COMMANDS, cli
from ddarts_cli.settings import groups

ROOT = Path(__file__).parents[1]

#: File of the root -> its place on the site.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "CITATION.cff.txt",
    "LICENSE": "LICENSE.txt",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the root, with links as they are on the site, and the reference."""
    for name, place in PLACES.items():
        files.append(File.generated(config, place, content=moved((ROOT / name).read_text(encoding="utf-8"))))
    for name, content in {"commands": commands(), "settings": settings(), "python": python()}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that fetches anything from elsewhere."""
    for path in Path(config.site_dir).rglob("*.*"):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            if found := re.search(r"""(\bsrc=|<link[^>]+href=|url\(|@import )["']?(https?:)?//[^"' >)]+""", text):
                raise PluginError(f"{path}: fetches {found[0]}")


def moved(text: str) -> str:
    """A text of the root with the targets of its links as they are on the site, where docs/ is the root."""
    return re.sub(r"\]\(([^)#:]+)", lambda link: f"]({PLACES.get(link[1], link[1].removeprefix('docs/'))}", text)


def commands() -> str:
    """The help of every command: its usage, its words, and its options."""
    top = click.Context(cli, info_name="ddarts", obj=[])
    parts = [
        "# Commands",
        "What `ddarts COMMAND --help` says. Every command takes `--help` and `--plugin`, too.",
        *_help(cli, top),
    ]
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        parts += [f"## ddarts {name}", *_help(command, click.Context(command, top, info_name=name))]
    return "\n\n".join(parts)


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):  # click's mark for lines that are kept
            head, _, rows = paragraph.removeprefix("\b\n").partition("\n")
            yield f"{head}\n\n```text\n{textwrap.dedent(rows)}\n```"
        else:
            yield paragraph
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and record[1] and (command is cli or parameter.name not in ("help", "plugin")):
            yield f"`{record[0]}`\n:   {record[1]}"


def settings() -> str:
    """Every setting, as `ddarts settings` explains it."""
    parts = [
        "# Settings",
        "What a YAML file may say, and `--set PATH=VALUE`. `ddarts settings WORD` prints parts of it.",
    ]
    for group in groups(SweepConfig, tables()):
        parts += [f"## {group.path or 'Top level'}", group.meaning]
        for setting in group.settings:
            default = json.dumps(setting.default)
            parts.append(f"`{setting.path}` = `{default}`\n:   {setting.meaning}\n\n    Allowed: {setting.allowed}")
    return "\n\n".join(parts)


def python() -> str:
    """The names of `ddarts`, by directives that mkdocstrings replaces."""
    names = "\n\n".join(f"::: ddarts.{name}" for name in ddarts.__all__)
    return f"# Python\n\n[From Python](../python.md) shows how these names of `ddarts` work together.\n\n{names}\n"


class Examples(griffe.Extension):
    """griffe takes `Examples:` for a section of code and `Example:`, as docstrings have it here, for a remark."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
