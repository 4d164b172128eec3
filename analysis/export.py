"""The best genotypes of a study as folders that a reader can use without us."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddarts_core.errors import UserError
from ddarts_core.files import write_atomic
from ddarts_core.genotype import Genotype, to_published_text

from .drawing import draw_genotype
from .ranking import Row, default_order, rank
from .study import Study, Trial, read_study, trial_row

#: Files of an exported folder, and nothing else is ever removed from one.
FILES = ("genotype.json", "genotype.txt", "genotype.svg", "genotype.png", "config.yaml", "README.md")

_FOLDER = re.compile(r"\d{2,}_[0-9a-f]{12}")


@dataclass(frozen=True)
class Exported:
    """One exported genotype: its folder, its place, the trial that found it, and the others that found the same."""

    folder: Path
    place: int
    row: Row
    genotype: Genotype
    also: tuple[str, ...]


def best(study: Study, top: int | None = None, by: str | None = None) -> list[tuple[Row, Trial, tuple[str, ...]]]:
    """Rows and trials of the distinct genotypes of a study, best first, each with the ids of later equal finds.

    Args:
        study: the study.
        top: at most so many; None is all.
        by: as in `ranking.rank`; None is what the study's objectives ask for.

    Raises:
        UserError: an unknown metric, or `top` less than 1.
    """
    if top is not None and top < 1:
        raise UserError(f"--top {top}: export at least 1 genotype")
    trials = {trial.trial_id: trial for trial in study.completed}
    rows = [trial_row(trial) for trial in trials.values()]
    order = by if by is not None else default_order(study.info.get("objectives") or [])
    found: dict[str, list[Row]] = {}
    for row in rank(rows, order):
        found.setdefault(row["genotype_hash"], []).append(row)
    groups = list(found.values())[:top]
    return [(first, trials[first["trial_id"]], tuple(row["trial_id"] for row in rest)) for first, *rest in groups]


def export(study_dir: str | Path, top: int = 3, by: str | None = None, out: str | Path | None = None) -> list[Exported]:
    """Write the best distinct genotypes of a study's completed trials to `STUDY/export/NN_HASH/`.

    Folders of an earlier export that are no longer among the best lose the files that we wrote; whatever else lies in
    them stays.

    Args:
        study_dir: the study's folder.
        top: how many.
        by: metrics as in `ranking.rank`, such as `-accuracy,params` or `pareto`; None follows the study's objectives.
        out: another folder to write to.

    Raises:
        UserError: no study, no completed trial, an unknown metric, or a damaged file.
    """
    study = read_study(study_dir)
    chosen = best(study, top, by)
    if not chosen:
        raise UserError(f"study {study.name!r} has nothing to export: {state_sentence(study)}")
    root = Path(out) if out is not None else study.folder / "export"
    exported = []
    for place, (row, trial, also) in enumerate(chosen, start=1):
        assert trial.genotype is not None  # `Study.completed` has only trials with a genotype
        folder = root / f"{place:02d}_{trial.genotype.hash}"
        item = Exported(folder, place, row, trial.genotype, also)
        _write(item, study, trial)
        exported.append(item)
    _remove_stale(root, {item.folder for item in exported})
    return exported


def state_sentence(study: Study) -> str:
    """How many trials are in which state, in words."""
    if not study.trials:
        return "it has no trials yet"
    states = [trial.info["state"] for trial in study.trials]
    counts = [f"{states.count(state)} {state.lower()}" for state in dict.fromkeys(states)]
    return f"of its {len(states)} trial{'s' if len(states) > 1 else ''}, {', '.join(counts)}"


def retrain_command(folder: Path) -> str:
    """The command that trains an exported genotype from scratch with the settings of its trial."""
    return (
        f"ddarts retrain {shlex.quote(str(folder / 'genotype.json'))} "
        f"--config {shlex.quote(str(folder / 'config.yaml'))} --seeds 4 --out {shlex.quote(str(folder / 'retrain'))}"
    )


def search_command(folder: Path) -> str:
    """The command that runs the trial's search again."""
    return f"ddarts search {shlex.quote(str(folder / 'config.yaml'))} --out {shlex.quote(str(folder / 'search'))}"


def published_text(genotype: Genotype) -> str | None:
    """The published text form; None when it cannot say this genotype."""
    try:
        return to_published_text(genotype)
    except UserError:
        return None


def _write(item: Exported, study: Study, trial: Trial) -> None:
    folder, genotype = item.folder, item.genotype
    write_atomic(folder / "genotype.json", genotype.to_json())
    text = published_text(genotype)
    if text is None:
        (folder / "genotype.txt").unlink(missing_ok=True)
    else:
        write_atomic(folder / "genotype.txt", text + "\n")
    title = f"{study.name}, trial {trial.trial_id}"
    draw_genotype(genotype, folder / "genotype.svg", title=title)
    draw_genotype(genotype, folder / "genotype.png", title=title)
    write_atomic(folder / "config.yaml", yaml.safe_dump(dict(trial.info["config"]), sort_keys=False))
    write_atomic(folder / "README.md", _readme(item, study, trial, text is not None))


def _remove_stale(root: Path, current: set[Path]) -> None:
    for folder in root.iterdir():
        if folder in current or not folder.is_dir() or not _FOLDER.fullmatch(folder.name):
            continue
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


# --- README ---------------------------------------------------------------------------------------------------------


def numbers(row: Row) -> list[tuple[str, str]]:
    """What a reader wants to know of a trial: (name, value with unit)."""
    objectives: Mapping[str, Any] = json.loads(row["objectives_json"])
    lines = [(f"objective {name}", f"{value:.6g}") for name, value in objectives.items()]
    lines += [
        ("derived network, held-out accuracy", percent(row["derived_accuracy"])),
        ("supernet, held-out accuracy", percent(row["held_out_accuracy"])),
        ("parameters (without auxiliary head)", count(row["parameters"])),
        ("multiply-adds per image (convolutions and linear layers)", count(row["macs"])),
    ]
    return lines


def percent(value: float | None) -> str:
    """A fraction of 1 as text in %."""
    return "not measured" if value is None or math.isnan(value) else f"{100 * value:.2f} %"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return "not measured" if value is None or math.isnan(value) else f"{int(value):,}"


def _readme(item: Exported, study: Study, trial: Trial, has_text: bool) -> str:
    config, info = trial.info["config"], study.info
    reductions = ", ".join(map(str, item.genotype.reductions)) or "n//3 and 2n//3 of the stacked network"
    found = f"Trials {', '.join(item.also)} found the same genotype.\n\n" if item.also else ""
    rows = [
        ("trial", f"{trial.trial_id} of study {study.name}"),
        ("method", str(config.get("method"))),
        ("data", str(config.get("data", {}).get("name"))),
        ("seed", str(trial.info.get("seed"))),
        *numbers(item.row),
        ("cells", f"{item.genotype.num_cells} (reductions: {reductions})"),
        ("operations", str(item.genotype.num_edges)),
        ("genotype hash", item.genotype.hash),
        ("config hash", str(trial.info.get("config_hash"))),
        ("source commit", str(info.get("git_commit") or "unknown")),
        ("versions", ", ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items()) or "unknown"),
    ]
    files: Sequence[tuple[str, str]] = [
        ("genotype.json", "the architecture, read by every `ddarts` command"),
        *([("genotype.txt", "the same in the published text form")] if has_text else []),
        ("genotype.svg, genotype.png", "its drawing"),
        ("config.yaml", "the resolved configuration of its search"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    listing = "\n".join(f"- `{name}`: {what}" for name, what in files)
    return f"""# Genotype {item.genotype.hash}: place {item.place} of study {study.name}

![The genotype](genotype.png)

| | |
|---|---|
{table}

{found}Held-out images trained neither weights nor alphas, but the sweep chose among trials by them, so the number
above is optimistic: the accuracy to report is that of a retrain on the test split.

Train it from scratch (four seeds, test split read once each):

    {retrain_command(item.folder)}

Run its search again:

    {search_command(item.folder)}

Files:

{listing}
"""
