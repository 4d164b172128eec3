"""Genotypes as folders that a reader can use without us: the best of a study, or that of a retrain."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddarts_core.datasets.facts import FILE, read_facts, write_facts
from ddarts_core.exports.preprocessing import FILE as PREPROCESSING
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.genotypes.published_text import to_published_text
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.ground.nested import read_yaml
from ddarts_core.loops.confusion import FILE as MATRICES
from ddarts_core.loops.confusion import write_confusion
from ddarts_core.studies.limits import in_words

from . import card, confusion
from .canvas import save
from .card import dead_in_training, retrain_command
from .drawing import draw_genotype
from .ranking import Row, default_order, is_beyond, rank
from .study import MACS_CONVENTION, Study, Trial, find_trial, limits_of, read_study, trial_row

#: Files with weights or a whole network, which `Enrich` may write.
MODEL_FILES = ("weights.safetensors", "model.onnx", "model.pt2", PREPROCESSING)

CONFUSION_PICTURE = "confusion.png"

#: Files of an exported folder, and nothing else is ever removed from one.
FILES = (
    *("genotype.json", "genotype.txt", "genotype.svg", "genotype.png", "cost.json", "config.yaml", FILE, "README.md"),
    *(MATRICES, CONFUSION_PICTURE, plugins.FILE),
    *MODEL_FILES,
)

_FOLDER = re.compile(r"\d{2,}_[0-9a-f]{12}")


@dataclass(frozen=True)
class Exported:
    """One exported genotype: its folder, its place, the trial that found it, its settings, the others that found it."""

    folder: Path
    place: int
    row: Row
    config: Mapping[str, Any]
    genotype: AnyGenotype
    also: tuple[str, ...]


@dataclass(frozen=True)
class Models:
    """What was written beside a genotype, for its card.

    Attributes:
        files: name of each file and what it is.
        facts: name and value of what is known of the network.
        usage: Markdown that says how to load them.
    """

    files: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    usage: str = ""


#: Writes models of a genotype with this configuration to a folder; the last is the folder of the trial or retrain that
#: it is of. Needs torch, so it comes from a floor above.
Enrich = Callable[[Path, AnyGenotype, Mapping[str, Any], Path], Models]

#: Row and trial of a genotype, and the ids of the other trials that found it.
Find = tuple[Row, Trial, tuple[str, ...]]


def best(study: Study, top: int | None = None, by: str | None = None, within: bool = False) -> list[Find]:
    """Rows and trials of the distinct genotypes of a study, best first, each with the ids of later equal finds.

    Args:
        study: the study.
        top: at most so many; None is all.
        by: as in `ranking.rank`; None is what the study's objectives ask for.
        within: leave out those that are beyond a limit of the sweep.

    Raises:
        UserError: an unknown metric, or `top` less than 1; with `within`, the sweep had no limits, or no completed
            trial keeps them.
    """
    if top is not None and top < 1:
        raise UserError(f"--top {top}: export at least 1 genotype")
    trials = {trial.trial_id: trial for trial in study.completed}
    rows: list[Row] = [trial_row(trial) for trial in trials.values()]
    if within:
        rows = _within(study, rows)
    order = by if by is not None else default_order(study.info.get("objectives") or [])
    found: dict[str, list[Row]] = {}
    for row in rank(rows, order):
        found.setdefault(row["genotype_hash"], []).append(row)
    groups = list(found.values())[:top]
    return [(first, trials[first["trial_id"]], tuple(row["trial_id"] for row in rest)) for first, *rest in groups]


def _within(study: Study, rows: Sequence[Row]) -> list[Row]:
    limits = in_words(limits_of(study))
    if not limits:
        raise UserError(f"study {study.name!r} has no tune.limits: leave --within-limits out")
    kept = [row for row in rows if not is_beyond(row)]
    if rows and not kept:
        raise UserError(f"all {len(rows)} completed trials of study {study.name!r} are beyond tune.limits ({limits})")
    return kept


def export(
    study_dir: str | Path,
    top: int = 3,
    by: str | None = None,
    out: str | Path | None = None,
    enrich: Enrich | None = None,
    trial: str | None = None,
    within: bool = False,
) -> list[Exported]:
    """Write the best distinct genotypes of a study's completed trials to `STUDY/export/NN_HASH/`, NN being their place.

    Folders of an earlier export that are no longer among the best lose the files that we wrote; whatever else lies in
    them stays.

    Args:
        study_dir: the study's folder.
        top: how many.
        by: metrics as in `ranking.rank`, such as `-accuracy,params` or `pareto`; None follows the study's objectives.
        out: another folder to write to.
        enrich: writes models beside each genotype.
        trial: write only the genotype of this trial, a name or a number; what was exported before stays.
        within: leave out those that are beyond a limit of the sweep.

    Raises:
        UserError: no study, no completed trial, no such trial, an unknown metric, or a damaged file.
    """
    study = read_study(study_dir, alphas=False)
    places = list(enumerate(best(study, top if trial is None else None, by, within), start=1))
    if not places:
        raise UserError(f"study {study.name!r} has nothing to export: {state_sentence(study)}")
    if trial is not None:
        places = [_place_of(study, trial, places)]
    root = Path(out) if out is not None else study.folder / "export"
    exported = []
    for place, (row, found, also) in places:
        assert found.genotype is not None  # `Study.completed` has only trials with a genotype
        folder = root / f"{place:02d}_{found.genotype.hash}"
        item = Exported(folder, place, row, found.info["config"], found.genotype, also)
        _write(item, study, found, enrich)
        exported.append(item)
    if trial is None:
        _remove_stale(root, {item.folder for item in exported})
    return exported


def _place_of(study: Study, name: str, places: Sequence[tuple[int, Find]]) -> tuple[int, Find]:
    """A trial with the place of its genotype; the others that found the same are in its card."""
    wanted = find_trial(name, [trial.trial_id for trial in study.trials])
    for place, (row, _, also) in places:
        ids = (str(row["trial_id"]), *also)
        if wanted in ids:
            (trial,) = (trial for trial in study.completed if trial.trial_id == wanted)
            return place, (trial_row(trial), trial, tuple(other for other in ids if other != wanted))
    state = next(trial.info["state"] for trial in study.trials if trial.trial_id == wanted)
    why = "has no genotype in this order" if state == "COMPLETED" else f"is {state.lower()} and left no genotype"
    ranked = sorted(name for _, (row, _, also) in places for name in (str(row["trial_id"]), *also))
    raise UserError(f"trial {wanted!r} {why}: choose one of {', '.join(ranked)}")


def state_sentence(study: Study) -> str:
    """How many trials are in which state, and how many completed ones lack a genotype, in words."""
    if not study.trials:
        return "it has no trials yet"
    states = [trial.info["state"] for trial in study.trials]
    counts = [f"{states.count(state)} {state.lower()}" for state in dict.fromkeys(states)]
    lacking = states.count("COMPLETED") - len(study.completed)
    note = f", and the genotype.json of {lacking} completed is missing" if lacking else ""
    return f"of its {len(states)} trial{'s' if len(states) > 1 else ''}, {', '.join(counts)}{note}"


def published_text(genotype: AnyGenotype) -> str | None:
    """The published text form; None when it cannot say this genotype."""
    try:
        return to_published_text(genotype)
    except UserError:
        return None


def export_retrain(
    folder: str | Path, cost: Mapping[str, Any], out: str | Path | None = None, enrich: Enrich | None = None
) -> Path:
    """Write the genotype of a folder of `ddarts retrain` to `FOLDER/export/`.

    Args:
        folder: the folder with genotype.json and config.yaml.
        cost: parameters and multiply-adds (by convention) of its network.
        out: another folder to write to.
        enrich: writes models beside the genotype.

    Raises:
        UserError: a file is missing or damaged.
    """
    source = Path(folder)
    genotype, config = AnyGenotype.load(source / "genotype.json"), read_yaml(source / "config.yaml")
    target = Path(out) if out is not None else source / "export"
    has_text = _write_genotype(target, genotype, config, f"genotype {genotype.hash}", cost)
    made_with = plugins.recorded(source)
    facts, needed = [*_copy_facts([source], target), *_note_plugins(made_with, target)], card.plugins_here(made_with)
    taken, paragraph = _confusion(source, target)
    models = _enrich(target, genotype, config, enrich, source)
    rows = [
        ("trained by", f"ddarts retrain, in {source.resolve().name}"),
        *card.setting_rows(config),
        ("parameters (without auxiliary head)", count(cost["parameters"])),
        ("multiply-adds per image (convolutions and linear layers)", count(cost["macs"][MACS_CONVENTION])),
        *card.genotype_rows(genotype, config),
        *models.facts,
    ]
    again = card.command("Train it again, in this folder", retrain_command(Path(), config, seeds=1, plugins=needed))
    files = card.file_list(has_text, "the settings of its training", [*facts, *taken, *models.files])
    body = card.use(config) + models.usage + paragraph + card.plugin_paragraph(needed) + again
    write_atomic(target / "README.md", card.readme(f"Genotype {genotype.hash}", rows, body, files))
    return target


def _write(item: Exported, study: Study, trial: Trial, enrich: Enrich | None) -> None:
    config = trial.info["config"]
    title = f"{study.name}, trial {trial.trial_id}"
    has_text = _write_genotype(item.folder, item.genotype, config, title, trial.info.get("cost"))
    source = study.folder / "trials" / trial.trial_id
    facts = _copy_facts([source, study.folder], item.folder)
    facts += _note_plugins(study.info.get("plugins", ()), item.folder)
    models = _enrich(item.folder, item.genotype, config, enrich, source)
    write_atomic(item.folder / "README.md", _readme(item, study, trial, has_text, facts, models))


def _write_genotype(
    folder: Path, genotype: AnyGenotype, config: Mapping[str, Any], title: str, cost: Mapping[str, Any] | None
) -> bool:
    """Write everything but models and card; whether the genotype has a published text form."""
    write_atomic(folder / "genotype.json", genotype.to_json())
    text = published_text(genotype)
    if text is None:
        (folder / "genotype.txt").unlink(missing_ok=True)
    else:
        write_atomic(folder / "genotype.txt", text + "\n")
    draw_genotype(genotype, folder / "genotype.svg", title=title)
    draw_genotype(genotype, folder / "genotype.png", title=title)
    if cost is not None and (dead := dead_in_training(genotype, config)):
        cost = {**cost, "dead_cells": list(dead[0])}
    write_atomic(folder / "cost.json", json.dumps(cost, indent=1) + "\n")
    write_atomic(folder / "config.yaml", yaml.safe_dump(card.portable(config), sort_keys=False))
    return text is not None


def _copy_facts(sources: Sequence[Path], target: Path) -> list[tuple[str, str]]:
    """Copy the first `data.json` that there is; the lines of the card that name it."""
    for source in sources:
        content = read_facts(source)
        if content is not None:
            write_facts(target, content)
            return [(FILE, "the data: names of the classes, and what images are normalised by")]
    (target / FILE).unlink(missing_ok=True)
    return []


def _note_plugins(made_with: Sequence[Mapping[str, Any]], target: Path) -> list[tuple[str, str]]:
    """Write which plug-ins the genotype was made with, if any; the line of the card that names the file."""
    plugins.write_records(target, made_with)
    return [(plugins.FILE, "name and content hash of the plug-ins that it needs")] if made_with else []


def _confusion(source: Path, target: Path) -> tuple[list[tuple[str, str]], str]:
    """Copy the matrices of a retrain and draw their sum over the seeds; lines and a paragraph of the card."""
    if not (source / MATRICES).is_file():
        for name in (MATRICES, CONFUSION_PICTURE):
            (target / name).unlink(missing_ok=True)
        return [], ""
    classes, own = confusion.read_of_retrain(source)
    write_confusion(target / MATRICES, classes, own)
    save(confusion.figure_of_retrain(source), target / CONFUSION_PICTURE)
    words = confusion.words(classes, confusion.total([one.matrix for one in own]))
    alternative = words.replace("[", "(").replace("]", ")")
    paragraph = f"Which class is taken for which, on the test images, {confusion.seeds_of(own)}: {words}\n\n"
    files = [
        (MATRICES, "the confusion matrix of each seed on the test images, and recall per class"),
        (CONFUSION_PICTURE, "their sum as a picture"),
    ]
    return files, f"{paragraph}![{alternative}]({CONFUSION_PICTURE})\n\n"


def _enrich(
    folder: Path, genotype: AnyGenotype, config: Mapping[str, Any], enrich: Enrich | None, source: Path
) -> Models:
    """Write the models; those of an earlier export that are not written again are removed, they may be others'."""
    models = Models() if enrich is None else enrich(folder, genotype, config, source)
    written = {name for name, _ in models.files}
    for name in MODEL_FILES:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    return models


def _remove_stale(root: Path, current: set[Path]) -> None:
    for folder in root.iterdir():
        if folder in current or not folder.is_dir() or not _FOLDER.fullmatch(folder.name):
            continue
        remove(folder)


def remove(folder: Path) -> None:
    """Remove what an export wrote to a folder, and the folder when nothing else lies in it."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


# --- card -----------------------------------------------------------------------------------------------------------


def numbers(row: Row) -> list[tuple[str, str]]:
    """What a reader wants to know of a trial: (name, value with unit)."""
    objectives: Mapping[str, Any] = json.loads(row["objectives_json"])
    lines = [(f"objective {name}", f"{value:.6g}") for name, value in objectives.items()]
    lines += [
        ("derived network, held-out accuracy", percent(row["derived_accuracy"])),
        ("supernet, held-out accuracy", percent(row["held_out_accuracy"])),
        ("derived network, balanced accuracy (mean recall of the classes)", percent(row["derived_balanced_accuracy"])),
        ("parameters (without auxiliary head)", count(row["parameters"])),
        ("multiply-adds per image (convolutions and linear layers)", count(row["macs"])),
    ]
    if row["latency_ms"] is not None:
        lines.append(("forward pass", f"{row['latency_ms']:.4g} ms, quartiles {row['latency_spread_ms']:.2g} ms apart"))
    return [*lines, ("beyond a limit of the sweep", str(row["beyond"]))] if is_beyond(row) else lines


def percent(value: float | None) -> str:
    """A fraction of 1 as text in %."""
    return "not measured" if value is None or math.isnan(value) else f"{100 * value:.2f} %"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return "not measured" if value is None or math.isnan(value) else f"{int(value):,}"


def _readme(
    item: Exported, study: Study, trial: Trial, has_text: bool, facts: list[tuple[str, str]], models: Models
) -> str:
    info = study.info
    found = f"Trials {', '.join(item.also)} found the same genotype.\n\n" if item.also else ""
    rows = [
        ("trial", f"{trial.trial_id} of study {study.name}"),
        *card.setting_rows(trial.info["config"]),
        ("seed", str(trial.info.get("seed"))),
        *numbers(item.row),
        *card.genotype_rows(item.genotype, trial.info["config"]),
        ("config hash", str(trial.info.get("config_hash"))),
        ("source commit", str(info.get("git_commit") or "unknown")),
        ("versions", ", ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items()) or "unknown"),
        *models.facts,
    ]
    body = (
        f"{found}Held-out images trained neither weights nor alphas, but the sweep chose among trials by them, so the "
        "number\nabove is optimistic: the accuracy to report is that of a retrain on the test split.\n\n"
    )
    body += card.use(trial.info["config"]) + models.usage
    again = "Train it from scratch, in this folder (four seeds, test split read once each)"
    needed = card.plugins_here(info.get("plugins", ()))
    body += card.plugin_paragraph(needed) + card.command(again, retrain_command(Path(), item.config, plugins=needed))
    given = card.is_given(item.config)
    if not given:
        body += card.command("Run its search again", card.search_command(Path(), item.config, needed))
    what = f"the resolved configuration of its {'training' if given else 'search'}"
    files = card.file_list(has_text, what, [*facts, *models.files])
    return card.readme(f"Genotype {item.genotype.hash}: place {item.place} of study {study.name}", rows, body, files)
