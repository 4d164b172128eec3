"""The card (README) of an exported genotype: Markdown out of plain facts. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ddarts_core.genotypes.derive import trained
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.plugins import loaded
from ddarts_core.studies.shell import ddarts

Rows = Iterable[tuple[str, str]]


def readme(title: str, rows: Rows, body: str, files: Rows) -> str:
    """The whole card: header of the Hugging Face hub, title, picture, table of facts, paragraphs, what each file is."""
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    listing = "\n".join(f"- `{name}`: {what}" for name, what in files)
    return f"""---
license: other
license_name: not-stated
pipeline_tag: image-classification
tags:
- image-classification
- neural-architecture-search
---

# {title}

![The genotype](genotype.png)

| | |
|---|---|
{table}

{body}Files:

{listing}
"""


def use(config: Mapping[str, Any]) -> str:
    """Paragraphs on what a network is for, and on what is not stated."""
    name = (config.get("data") or {}).get("name")
    return (
        f"Intended use: to name what pictures show that are like those of the data ({name}), one of its classes each. "
        "It has been\nmeasured on images of that data set alone: not on others, nor for bias or robustness.\n\n"
        "Licence: not stated. Whoever publishes this folder states it at the top of this file, within that of the "
        "data.\n\n"
    )


def is_given(config: Mapping[str, Any]) -> bool:
    """Whether a trial with this configuration was given its genotype by number, as those of a truth, and searched none.

    Example:
        >>> is_given({"search": {"number": 107}}), is_given({"search": {"number": None}})
        (True, False)
    """
    return (config.get("search") or {}).get("number") is not None


def command(what: str, line: str) -> str:
    """A paragraph with a command to run."""
    return f"{what}:\n\n    {line}\n\n"


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the places of this machine: of where the data lie the last name is left.

    Example:
        >>> portable({"storage": "/home/me/runs", "data": {"name": "folder", "root": "/home/me/photos"}})
        {'data': {'name': 'folder', 'root': 'photos'}}
    """
    found = {key: value for key, value in config.items() if key not in ("storage", "tracking")}
    if "root" in (data := found.get("data") or {}):
        found["data"] = {**data, "root": PurePath(data["root"]).name or "."}
    return found


def setting_rows(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Method and data of a configuration."""
    return [("method", str(config.get("method"))), ("data", str((config.get("data") or {}).get("name")))]


def dead_in_training(genotype: AnyGenotype, config: Mapping[str, Any]) -> tuple[tuple[int, ...], int] | None:
    """Cells that nothing reads in the network that a configuration trains, and its depth; None if there is no such.

    They depend on the depth: a searched genotype without any can have some after Algorithm 1.
    """
    try:
        built = trained(genotype, config.get("retrain") or {})
    except UserError:
        return None
    return built.dead_cells, built.num_cells


def genotype_rows(genotype: AnyGenotype, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Size and hash of a genotype, and the dead cells of the network that the configuration trains."""
    found = dead_in_training(genotype, config)
    count = f"{len(found[0])} ({', '.join(map(str, found[0]))})" if found and found[0] else "none"
    reductions = ", ".join(map(str, genotype.reductions)) or "n//3 and 2n//3 of the stacked network"
    return [
        (f"{genotype.part}s", f"{genotype.num_cells} (reductions: {reductions})"),
        ("operations", str(genotype.num_edges)),
        ("genotype hash", genotype.hash),
        *([(f"dead {genotype.part}s of the trained network of {found[1]}", count)] if found else []),
    ]


def file_list(has_text: bool, config: str, models: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names of the files of a folder and what they are."""
    return [
        ("genotype.json", "the architecture, read by every `ddarts` command"),
        *([("genotype.txt", "the same in the published text form")] if has_text else []),
        ("genotype.svg, genotype.png", "its drawing"),
        ("cost.json", "parameters and multiply-adds"),
        ("config.yaml", f"{config}, without the places of the machine that they were used on"),
        *models,
    ]


def plugins_here(made_with: Iterable[Mapping[str, Any]]) -> list[str]:
    """How commands in the folder of a card name plug-ins: as installed modules, or else as files or folders there."""
    installed = {plugin.source.name for plugin in loaded() if plugin.folder is None}
    found = []
    for made in made_with:
        name, file = made["name"], f"{made['name']}.py"
        alone = list(made.get("files") or [file]) == [file]
        found.append(file if alone and name not in installed else name)
    return found


def plugin_paragraph(names: Sequence[str]) -> str:
    """What to do about the plug-ins that a genotype was made with; empty if there were none."""
    if not names:
        return ""
    return (
        f"It was made with plug-ins: {', '.join(names)}. Put their files into this folder, or name their\npaths: "
        "every command takes them with `--plugin`, and Python with `ddarts.plugins.load`; plugins.json has\ntheir "
        "hashes.\n\n"
    )


def retrain_command(
    folder: Path,
    config: Mapping[str, Any],
    *,
    seeds: int = 4,
    root: str | None = None,
    plugins: Iterable[str] | None = None,
) -> str:
    """The command that trains an exported genotype from scratch with the settings beside it.

    Args:
        folder: the folder of the export.
        config: the configuration from which the export was made.
        seeds: how many seeds to train with.
        root: the folder of the data, if it is not the one that the exported settings name.
        plugins: the plug-ins that the command names; None stands for those that this program was given.
    """
    where = _moved(config, root)
    words = ["--config", folder / "config.yaml", "--seeds", seeds, "--out", folder / "retrain"]
    return ddarts(
        "retrain", folder / "genotype.json", *words, *(() if where is None else ("--data-root", where)), plugins=plugins
    )


def search_command(folder: Path, config: Mapping[str, Any], plugins: Iterable[str]) -> str:
    """The command that runs the trial's search again."""
    where = _moved(config)
    words = [folder / "config.yaml", "--out", folder / "search"]
    return ddarts("search", *words, *(() if where is None else ("--set", f"data.root={where}")), plugins=plugins)


def _moved(config: Mapping[str, Any], root: str | None = None) -> str | None:
    """Where the data lie, for a command to name; None if the exported settings say the same as these."""
    own, exported = ((of.get("data") or {}).get("root") for of in (config, portable(config)))
    return None if own == exported else root or exported
