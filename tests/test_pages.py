"""What the pages tell a reader to press, type or copy works: links, commands, code, configurations."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from ddarts_tuning.settings.config import resolve_sweep

from ddarts_cli.main import COMMANDS, PLUGIN
from ddarts_core.settings.config import resolve
from tests.test_examples import parsed

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings as code hosts make them; `make docs` checks those of the site."""
    text = re.sub(r"^```.+?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading that it has."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def commands(text: str) -> Iterator[str]:
    """Lines of code that begin with `ddarts`, without what stands beside them, and then commands within sentences."""
    fenced = "".join(re.findall(r"^```sh\n(.+?)^```", text, re.MULTILINE | re.DOTALL))
    code = fenced + "".join(re.findall(r"^ {4,}.*\n", text, re.MULTILINE))
    for line in re.sub(r" *\\\n\s*", " ", code).splitlines():
        if found := re.match(r" *(?:\$ |\.venv/bin/)?ddarts (?!-)(\S.*?)(?:  .*|\s+#.*)?$", line):
            yield found[1]
    yield from re.findall(r"`ddarts ([a-z][^`]*)`", text)


@each_page
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By click, as they stand; one within a sentence may leave arguments out."""
    monkeypatch.setattr(PLUGIN, "callback", None)  # the file is the reader's
    for words in commands(page.read_text(encoding="utf-8")):
        called, *arguments = shlex.split(re.split(r" [|>&]", words)[0])
        if called not in COMMANDS:
            assert called.isupper(), words  # COMMAND
            continue
        try:
            parsed(called, *arguments)
        except (click.MissingParameter, click.BadOptionUsage):
            assert f"`ddarts {words}`" in page.read_text(encoding="utf-8"), words
        except click.UsageError as error:
            pytest.fail(f"ddarts {words}: {error.format_message()}")


@each_page
def test_python_compiles_and_configurations_resolve(page: Path) -> None:
    """`test_api` also runs `docs/python.md`; `test_documents` resolves the parts of sweeps in `docs/sweeps.md`."""
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")
    for block in () if page.name == "sweeps.md" else blocks(page, "yaml"):
        settings = yaml.safe_load(block)
        assert resolve_sweep(settings) if "space" in settings else resolve(settings)
