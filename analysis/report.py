"""One self-contained HTML page about one or more studies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from html import escape
from itertools import count as counter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import yaml

from ddarts_core.datasets.facts import majority, read_facts
from ddarts_core.dead_cells import dead_sentence
from ddarts_core.errors import UserError
from ddarts_core.files import write_atomic
from ddarts_core.shell import ddarts

from . import cell_charts, charts, confusion, page
from .card import dead_in_training
from .collect import frames_of
from .drawing import genotype_svgs
from .export import best, count, percent, state_sentence
from .ranking import Row, default_order, pareto_front, rank, sought, value
from .statistics import comparison, mean_interval
from .study import Study, Trial, read_study, trial_row, with_alphas

#: Best genotypes that are drawn, and rows of the tables of trials, per study.
DRAWN, LISTED = 3, 100

#: Bytes that all drawings together may take, so that the page of a study stays under 6 MB: plotly takes 4.8 and the
#: charts, of however many trials, up to 0.6.
DRAWING_BUDGET = 500_000

_CHART_CAPTIONS = {
    "curves": (
        "Held-out accuracy of the supernet by epoch; the best trials are coloured, grey curves are others, at most "
        f"{charts.LINES}, evenly chosen by rank."
    ),
    "methods": "Mean held-out accuracy by method; bands are 95 % intervals of the mean over completed trials.",
    "saturation": "Share of all operations whose gate is decided, mean and 95 % interval over trials.",
    "skips": "Skip connections of the genotype as it would be read off after each epoch, mean and 95 % interval.",
    "pareto": (
        "Accuracy against parameters of the completed trials; no trial beats those on the line in both. With "
        "--reference it has a hypervolume: the share of the box from no accuracy at that cost to accuracy 1 at no "
        "cost, of all studies of a page up to the same cost. Of those off the line "
        f"at most {charts.POINTS} are shown, evenly chosen by rank."
    ),
    "pareto_macs": "Accuracy against multiply-adds per image, in the same way.",
}


def report(
    study_dirs: Sequence[str | Path],
    out: str | Path,
    importances: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    references: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Write the report of one or more studies to the HTML file `out`.

    `importances` has the importance of each setting by study name, where it is known. `references` are the costs up to
    which the hypervolume of a front is taken, by `parameters` and `macs`: the same for all studies.

    The page needs no network and no other file. A study that is empty, still running or without a completed trial gets
    a section that says so.

    Raises:
        UserError: no study is named, a folder is no study, or one of its files is damaged.
    """
    if not study_dirs:
        raise UserError("name at least one study to report on")
    target = Path(out)
    if target.is_dir():
        raise UserError(f"{str(target)!r} is a folder: name the HTML file to write")
    return write_report([read_study(folder, alphas=False) for folder in study_dirs], target, importances, references)


def write_report(
    studies: Sequence[Study],
    target: Path,
    importances: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    references: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """`report` on studies that are already read; they need no alphas, the best trial's are read from its file."""
    body = list(_body(studies, importances, references))
    library = _plotly() if any('class="chart"' in part for part in body) else None
    title = f"D-DARTS report: {', '.join(study.name for study in studies)}"
    write_atomic(target, page.document(title, body, library))
    return target


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _body(
    studies: Sequence[Study], importances: Mapping[str, Mapping[str, float]], references: Mapping[str, float]
) -> Iterator[str]:
    title = studies[0].name if len(studies) == 1 else f"{len(studies)} studies"
    yield f"<h1>Architecture search: {escape(title)}</h1>\n"
    if len(studies) > 1:
        yield _comparison(studies)
    ids = counter()
    budget = DRAWING_BUDGET
    for study in studies:
        if len(studies) > 1:
            yield f"<h2>Study {escape(study.name)}</h2>\n"
        for part in _study_sections(study, ids, budget, importances.get(study.name, {}), references):
            if '<div class="drawing">' in part:
                budget -= len(part.encode())
            yield part + "\n"


def _comparison(studies: Sequence[Study]) -> str:
    rows = []
    first: list[tuple[int, float]] = []
    for place, study in enumerate(studies):
        ranked = rank(_rows(study), _order(study))
        metric = sought(ranked)
        runs = [(int(row["seed"]), value(row, metric)) for row in ranked]
        first = first if place else runs
        apart = comparison(first, runs)
        told = f"{100 * apart.low:+.1f} to {100 * apart.high:+.1f}" if apart.method != "none" else "no interval"
        accuracies = mean_interval([value(row, metric) for row in ranked])
        interval = "" if accuracies.count < 2 else f" ({percent(accuracies.low)} to {percent(accuracies.high)})"
        rows.append(
            (
                study.name,
                str(len(study.trials)),
                str(len(ranked)),
                percent(value(ranked[0], metric)) if ranked else "none",
                f"{percent(accuracies.mean)}{interval}" if ranked else "none",
                f"{100 * apart.difference:+.1f} ({told}; {apart.choice})" if place and runs and first else "–",
            )
        )
    head = (
        "study",
        "trials",
        "completed",
        "best trial's accuracy",
        "mean accuracy (95 % interval)",
        "difference to the first in points (95 % interval)",
    )
    note = (
        "<p class=soft>Accuracies are of the derived networks where they were trained, else of the supernets, on "
        "held-out images. Studies differ in more than their names; the intervals are over completed trials. Two "
        "studies cannot be told apart unless the interval of their difference leaves out 0.</p>"
    )
    return page.table(head, rows, numeric=(1, 2, 3, 4, 5)) + note


def _study_sections(
    study: Study, ids: Iterator[int], budget: int, shares: Mapping[str, float], references: Mapping[str, float]
) -> Iterator[str]:
    info = study.info
    rows = _rows(study)
    objectives = info.get("objectives") or []
    ranked = rank(rows, _order(study))
    placed = _placed(ranked, objectives)
    front = {row["trial_id"] for row in placed}
    ranked = sorted(ranked, key=lambda row: row["trial_id"] not in front)
    frames = frames_of([study], ("trials", "epochs", "contributions"))
    running = sum(row["state"] == "RUNNING" for row in rows)

    yield _what_was_run(study, rows, placed)
    if running:
        yield (
            f'<p class="note">{running} of {len(rows)} trials had not ended when this page was written: '
            "write it again later for the rest.</p>"
        )
    if not ranked:
        yield f'<p class="note">There is no completed trial to rank: {escape(state_sentence(study))}.</p>'
    else:
        yield "<h3>Ranking</h3>"
        yield _ranking(ranked, len(placed), objectives)
        yield f'<h3>Best genotypes</h3><div class="drawn">{"".join(_drawings(study, placed, budget))}</div>'

    ids_of_best = [str(row["trial_id"]) for row in ranked]
    found = {
        "curves": charts.curves(frames.epochs, ids_of_best[: len(placed)], sought(ranked)),
        "methods": charts.methods(frames.epochs, frames.trials, sought(ranked)),
        "saturation": charts.saturation(frames.epochs, frames.trials),
        "skips": charts.skips(frames.epochs, frames.trials),
        "pareto": charts.pareto(ranked, reference=references.get("parameters")),
        "pareto_macs": charts.pareto(ranked, "macs", "multiply-adds", references.get("macs")),
    }
    figures = [
        page.chart(spec, _CHART_CAPTIONS[name], f"c{next(ids)}") for name, spec in found.items() if spec is not None
    ]
    heats = ((trial, charts.contributions(frames.contributions, trial)) for trial in ids_of_best)
    trial_id, heat = next(((trial, chart) for trial, chart in heats if chart is not None), ("", None))
    if heat is not None:
        caption = (
            f"Marginal contribution of each cell of trial {trial_id} (eq. 6): the loss with the cell minus the loss "
            "without it, so blue cells lower the loss."
        )
        figures.append(page.chart(heat, caption, f"c{next(ids)}"))
    yield from _cells_of_best(study, ids_of_best, figures, ids)
    yield from _confusion(study, ids_of_best[: len(placed)], ids)
    yield from _settings(ranked, frames.trials, shares, ids)
    yield _failures(rows)
    yield _reproduce(study, placed)


def _cells_of_best(study: Study, ranked: Sequence[str], figures: list[str], ids: Iterator[int]) -> Iterator[str]:
    """The curves that are there, and how the best trial came to its cells."""
    best_trial = next((trial for trial in study.trials if ranked and trial.trial_id == ranked[0]), None)
    shown = (with_alphas(study, best_trial),) if best_trial else ()
    frames = frames_of([replace(study, trials=shown)], ("alphas", "genotypes"))
    bars = cell_charts.operations(frames.genotypes, ranked[0]) if ranked else None
    if bars is not None:
        caption = f"Operations in each cell of trial {ranked[0]}, in the colours of the drawings."
        figures = [*figures, page.chart(bars, caption, f"c{next(ids)}")]
    if figures:
        yield f'<h3>Curves and contributions</h3><div class="grid">{"".join(figures)}</div>'
    heat = cell_charts.gates(frames.alphas)
    if heat is not None:
        caption = (
            f"Gate of every operation of trial {ranked[0]} by epoch; an edge a→b is from node a to node b. "
            "Choose the cell above the map."
        )
        yield f'<h3>Gates</h3><div class="tall">{page.chart(heat, caption, f"c{next(ids)}")}</div>'


def _confusion(study: Study, ranked: Sequence[str], ids: Iterator[int]) -> Iterator[str]:
    """What the derived network of the best trial takes for what, on held-out images."""
    found = confusion.read_of_trial(study.folder, ranked[0]) if ranked else None
    if found is None:
        return
    classes, one = found
    caption = (
        f"What the derived network of trial {ranked[0]} takes the held-out images for, as shares of each class: "
        f"{confusion.words(classes, one.matrix)}"
    )
    yield "<h3>Confusion matrix</h3>"
    if len(classes) <= confusion.DRAWN:
        box = "tall" if len(classes) > confusion.COUNTED else "wide"
        part = page.chart(confusion.chart(classes, one.matrix), caption, f"c{next(ids)}")
        yield f'<div class="{box}">{part}</div>'
    else:
        yield f"<p>{escape(caption)}</p>"
    rows = confusion.table(classes, one.matrix)
    lines = [(name, f"{sum(row):,}", percent(recall)) for name, row, recall in rows[:LISTED]]
    yield page.table(("class", "images", "recall"), lines, numeric=(1, 2))
    if len(rows) > LISTED:
        yield f"<p class=soft>The {LISTED} classes of lowest recall, of {len(rows):,}.</p>"


def _settings(
    ranked: Sequence[Row], trials: pd.DataFrame, shares: Mapping[str, float], ids: Iterator[int]
) -> Iterator[str]:
    """What the sweep varied, and what of it mattered."""
    mattered = []
    bars = charts.importance(shares)
    if bars is not None:
        caption = (
            "Importance of each setting for the first objective: share of the variance that it explains by itself "
            "(fANOVA over completed trials). What is left of 100 % are interactions and noise; with few trials noise "
            "has shares too, so it is a hint, not a finding."
        )
        mattered.append(page.chart(bars, caption, f"c{next(ids)}"))
    lines = charts.parallel(trials)
    if lines is not None:
        caption = (
            f"Each line is a completed trial (at most {charts.LINES}, evenly chosen by objective), yellow for the "
            "highest objective; below an axis it has no such setting."
        )
        mattered.append(f'<div class="wide">{page.chart(lines, caption, f"c{next(ids)}")}</div>')
    if mattered:
        yield f'<h3>What mattered</h3><div class="grid">{"".join(mattered)}</div>'
    slices = charts.slices(ranked)
    if slices:
        small = "".join(page.chart(spec, f"Objective against {path}.", f"c{next(ids)}") for path, spec in slices)
        some = f"<p class=soft>{charts.POINTS} of {len(ranked):,} trials, evenly chosen by rank.</p>"
        note = some if len(ranked) > charts.POINTS else ""
        yield f'<h3>Objective by parameter</h3>{note}<div class="grid small">{small}</div>'


def _rows(study: Study) -> list[Row]:
    return [trial_row(trial) for trial in study.trials]


def _order(study: Study) -> str:
    return default_order(study.info.get("objectives") or [])


def _placed(ranked: Sequence[Row], objectives: Sequence[Any]) -> list[Row]:
    """The trials that have a place: all, or with several objectives those that no other beats in all of them."""
    if len(objectives) < 2:
        return [*ranked]
    names = [str(o["metric"]) for o in objectives]
    known = [row for row in ranked if set(names) <= set(json.loads(row["objectives_json"]))]
    points = [[json.loads(row["objectives_json"])[name] for name in names] for row in known]
    return [known[i] for i in pareto_front(points, [o.get("mode") != "min" for o in objectives])]


def _what_was_run(study: Study, rows: Sequence[Row], ranked: Sequence[Row]) -> str:
    states = [row["state"] for row in rows]
    methods = sorted({str(row["method"]) for row in rows if row["method"]})
    data = sorted({str(row["data_set"]) for row in rows if row["data_set"]})
    seconds = sum(row["seconds"] or 0 for row in rows)
    objectives, metric = study.info.get("objectives") or [], sought(ranked)
    wanted = " and ".join(f"{'lowest' if o.get('mode') == 'min' else 'highest'} {o['metric']}" for o in objectives)
    sentence = (
        f"Study <b>{escape(study.name)}</b>, started {escape(_moment(study.info.get('created')))}: "
        f"{len(rows)} searches with {escape(', '.join(methods) or 'no method yet')} on "
        f"{escape(', '.join(data) or 'no data yet')}, looking for the {escape(wanted or 'highest objective')}."
    )
    items = [
        (f"{states.count('COMPLETED')} of {len(rows)}", "trials completed"),
        (str(states.count("PRUNED")), "stopped early"),
        (str(states.count("FAILED")), "failed"),
        (_duration(seconds), "time of all trials together"),
    ]
    if ranked and len(objectives) > 1:
        items[:0] = [(str(len(ranked)), f"trial{'s' if len(ranked) > 1 else ''} on the Pareto front")]
    elif ranked:
        items[:0] = [
            (
                percent(value(ranked[0], metric)),
                f"held-out {metric.replace('_', ' ')} of the best, trial {ranked[0]['trial_id']}"
                + (f", chosen among {len(ranked):,} by held-out images" if len(ranked) > 1 else ""),
            )
        ]
        items.append((count(value(ranked[0], "parameters")), "parameters of the best"))
    note = (
        "<p class=soft>Held-out images trained neither weights nor alphas, but the best of many trials is chosen by "
        "them, so its number flatters it: the one to report is that of <code>ddarts retrain</code> on the test split, "
        "by which nothing was chosen.</p>"
    )
    return f"<p>{sentence}</p>{page.tiles(items)}{note if ranked else ''}"


def _moment(text: Any) -> str:
    """A time of ISO 8601 to the minute, in UTC; what is none as it is."""
    try:
        when = datetime.fromisoformat(str(text).replace("Z", "+00:00"))  # Python 3.10 knows no Z
    except ValueError:
        return str(text or "at an unknown time")
    return f"{when.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


#: Sizes of a network by heading, which are whole numbers.
_SIZES = {"parameters": "parameters", "macs": "multiply-adds"}


def _ranking(ranked: Sequence[Row], placed: int, objectives: Sequence[Any]) -> str:
    """The table of trials, of which only the first `placed` have a place."""
    names = [str(o["metric"]) for o in objectives] or ["objective"]
    metric = sought(ranked)
    sizes = [name for name in _SIZES if name not in names]
    paths = sorted({path for row in ranked for path in json.loads(row["params_json"])})
    rows = []
    for place, row in enumerate(ranked[:LISTED], start=1):
        values = json.loads(row["objectives_json"])
        params = json.loads(row["params_json"])
        rows.append(
            (
                str(place) if place <= placed else "",
                str(row["trial_id"]),
                *(_objective(name, values.get(name)) for name in names),
                percent(row[f"held_out_{metric}"]),
                *(count(row[name]) for name in sizes),
                *(_number(params.get(path)) for path in paths),
                str(row["genotype_hash"]),
            )
        )
    headings = [_SIZES.get(name, name) for name in names]
    head = ("", "trial", *headings, "supernet held-out", *(_SIZES[name] for name in sizes), *paths, "genotype")
    front = f"Pareto front: no trial beats one of these {placed} in {' and '.join(headings)}; the others have no place."
    note = f"<p>{escape(front)}</p>" if len(names) > 1 else ""
    more = f"<p class=soft>The first {LISTED} of {len(ranked)} completed trials.</p>" if len(ranked) > LISTED else ""
    return note + page.table(head, rows, numeric=range(2, len(head) - 1)) + more


def _objective(name: str, found: Any) -> str:
    if found is None:
        return ""
    if name in _SIZES:
        return count(found)
    return percent(found) if "accuracy" in name else _number(found)


def _number(found: Any) -> str:
    if found is None:
        return ""
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def _drawings(study: Study, placed: Sequence[Row], budget: int) -> Iterator[str]:
    left_out, metric = 0, sought(placed)
    wanted = {row["trial_id"] for row in placed}
    finds = [find for find in best(study) if find[0]["trial_id"] in wanted]
    for place, (row, trial, also) in enumerate(finds[:DRAWN], start=1):
        assert trial.genotype is not None  # `Study.completed` has only trials with a genotype
        found = f"; found by trials {', '.join(also)} too" if also else ""
        caption = (
            f"#{place}, trial {row['trial_id']}: {percent(value(row, metric))} held-out {metric.replace('_', ' ')}, "
            f"{count(row['parameters'])} parameters, {trial.genotype.num_edges} operations{found}{_dead(trial)}."
        )
        part = page.drawing(*genotype_svgs(trial.genotype), caption)
        if len(part.encode()) > budget:
            left_out += 1
            continue
        budget -= len(part.encode())
        yield part
    if left_out:
        yield (
            f"<p class=soft>{left_out} more drawing{'s' if left_out > 1 else ''} would make this page too large: "
            f"<code>{escape(ddarts('export', study.folder))}</code> writes them.</p>"
        )


def _dead(trial: Trial) -> str:
    """What to know about dead cells of the network that is trained from a trial's genotype; empty without any."""
    assert trial.genotype is not None
    found = dead_in_training(trial.genotype, trial.info["config"])
    return f". When it is trained, {dead_sentence(*found)}" if found and found[0] else ""


def _failures(rows: Iterable[Row]) -> str:
    failed = [row for row in rows if row["state"] == "FAILED"]
    if not failed:
        return ""
    lines = [
        (str(row["trial_id"]), str(row["reason"] or "no reason recorded"), str(row["num_epochs"]))
        for row in failed[:LISTED]
    ]
    more = f"<p class=soft>The first {LISTED} of {len(failed):,} failed trials.</p>" if len(failed) > LISTED else ""
    return f"<h3>Failures</h3>{page.table(('trial', 'reason', 'epochs before'), lines, numeric=(2,))}{more}"


def _data_facts(study: Study) -> list[tuple[str, str]]:
    """What the study's `data.json` says: the largest class, and what was chosen or left out."""
    content = read_facts(study.folder)
    if content is None:
        return []
    return [("data", "; ".join([majority(content["train_counts"], content["classes"]), *content.get("notes", ())]))]


def _reproduce(study: Study, ranked: Sequence[Row]) -> str:
    info = study.info
    facts = [
        ("command", str(info.get("command", "unknown"))),
        ("seed", str(info.get("seed", "unknown"))),
        ("configuration hash", str(info.get("config_hash", "unknown"))),
        ("source commit", str(info.get("git_commit") or "unknown")),
        ("versions", ", ".join(f"{name} {v}" for name, v in (info.get("versions") or {}).items()) or "unknown"),
        *_data_facts(study),
        ("MLflow", f"{info.get('tracking_uri', 'unknown')}, run {info.get('parent_run_id', 'unknown')}"),
    ]
    parts = ["<h3>How to reproduce</h3>", page.facts(facts)]
    if info.get("config"):
        parts.append(page.details("Configuration of the sweep", yaml.safe_dump(dict(info["config"]), sort_keys=False)))
    if ranked:
        chosen: list[tuple[object, ...]] = [("--top", min(len(ranked), DRAWN))]
        if len(info.get("objectives") or []) > 1:  # an export's order knows no front of them
            chosen = [("--trial", row["trial_id"]) for row in ranked[:DRAWN]]
        exports = "\n".join(ddarts("export", study.folder, *words) for words in chosen)
        parts.append(
            "<p>Genotypes, configurations and exact commands of the best trials:</p>"
            f"<pre>{escape(exports)}</pre>"
            "<p>One trial again, with its configuration below in <code>trial.yaml</code>:</p>"
            "<pre>ddarts search trial.yaml --out again</pre>"
        )
        trials = {trial.trial_id: trial for trial in study.trials}
        for place, row in enumerate(ranked[:DRAWN], start=1):
            config = dict(trials[row["trial_id"]].info["config"])
            parts.append(
                page.details(
                    f"trial.yaml of #{place}, trial {row['trial_id']}", yaml.safe_dump(config, sort_keys=False)
                )
            )
    return "".join(parts)
