"""One self-contained HTML page about one or more studies."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from itertools import count as counter
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic

from . import cell_charts, charts, confusion, mistakes, page, parameter_charts, report_text, report_truth
from .collect import frames_of
from .export import percent, state_sentence
from .history import history, history_chart, is_lowest
from .ranking import Row, rank, sought, value
from .statistics import comparison, mean_interval
from .study import Importances, Study, limits_of, log_sampled, read_study, with_alphas

#: Bytes that all drawings together may take, so that the page of a study stays under 6 MB: plotly takes 4.8 and the
#: charts, of however many trials, up to 0.6.
DRAWING_BUDGET = 500_000

#: Importance of each setting: its share of the variance, and the ends of its interval.
Shares = Mapping[str, tuple[float, float, float]]

#: Title and caption of each chart, by its name here.
_CHARTS = {
    "history": (
        "Best objective so far",
        "Objective of each completed trial by its number, and the best so far. Of many trials at most "
        f"{charts.POINTS} are dots, evenly chosen by number; the line knows all.",
    ),
    "curves": (
        "Accuracy by epoch",
        "Held-out accuracy of the supernet by epoch; the best trials are coloured, grey curves are others, at most "
        f"{charts.LINES}, evenly chosen by rank.",
    ),
    "methods": (
        "Accuracy by method",
        "Mean held-out accuracy by method; bands are 95 % intervals of the mean over completed trials.",
    ),
    "studies": (
        "Accuracy by study",
        "Mean held-out accuracy of the supernets by epoch; bands are 95 % intervals of the mean over completed trials.",
    ),
    "saturation": (
        "Decided operations",
        "Share of all operations whose gate is decided, mean and 95 % interval over trials.",
    ),
    "skips": (
        "Skip connections",
        "Skip connections of the genotype as it would be read off after each epoch, mean and 95 % interval.",
    ),
    "pareto": (
        "Accuracy against parameters",
        "Accuracy against parameters of the completed trials; no trial beats those on the line in both. With "
        "--reference it has a hypervolume: the share of the box from no accuracy at that cost to accuracy 1 at no "
        "cost, of all studies of a page up to the same cost. Of those off the line "
        f"at most {charts.POINTS} are shown, evenly chosen by rank.",
    ),
    "pareto_macs": ("Accuracy against multiply-adds", "Accuracy against multiply-adds per image, in the same way."),
}


def report(
    study_dirs: Sequence[str | Path],
    out: str | Path,
    importances: Importances | None = None,
    references: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Write the report of one or more studies to the HTML file `out`.

    The page needs no network and no other file. A study that is still running or without a completed trial gets a
    section that says so.

    Args:
        study_dirs: the folders of the studies.
        out: the path of the HTML file.
        importances: tells the importance of each setting of a study; without it the page has none.
        references: the costs up to which the hypervolume of a front is taken, by `parameters` and `macs`; the same
            for all studies.

    Raises:
        UserError: no study is named, a folder is no study, one of its files is damaged, or a study is finished and has
            no trial.
    """
    if not study_dirs:
        raise UserError("name at least one study to report on")
    target = Path(out)
    if target.is_dir():
        raise UserError(f"{str(target)!r} is a folder: name the HTML file to write")
    studies = [read_study(folder, alphas=False) for folder in study_dirs]
    for study in studies:
        if study.info["state"] == "FINISHED" and not study.trials:
            raise UserError(f"study {study.name!r} is finished and has no trial: there is nothing to report")
    return write_report(studies, target, importances, references)


def write_report(
    studies: Sequence[Study],
    target: Path,
    importances: Importances | None = None,
    references: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Write a report, as `report` does, of studies that are already read.

    The studies may be read without alphas: those of the best trial are read from its file.
    """
    body = list(_body(studies, importances, references))
    library = _plotly() if any('class="chart"' in part for part in body) else None
    title = f"D-DARTS report: {', '.join(study.name for study in studies)}"
    write_atomic(target, page.document(title, body, library))
    return target


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _body(studies: Sequence[Study], importances: Importances | None, references: Mapping[str, float]) -> Iterator[str]:
    title = studies[0].name if len(studies) == 1 else f"{len(studies)} studies"
    yield f"<h1>Architecture search: {escape(title)}</h1>\n"
    ids = counter()
    if len(studies) > 1:
        yield _comparison(studies)
        yield _overlaid(studies, references, ids)
    yield from report_truth.judged(studies, ids)
    budget = DRAWING_BUDGET // len(studies)
    for study in studies:
        if len(studies) > 1:
            yield f"<h2>Study {escape(study.name)}</h2>\n"
        shares = {} if importances is None else importances(study.info, [trial.info for trial in study.trials])
        for part in _study_sections(study, ids, budget, shares, references):
            yield part + "\n"


def _comparison(studies: Sequence[Study]) -> str:
    rows = []
    first: list[tuple[int, float]] = []
    for place, study in enumerate(studies):
        ranked = rank(report_text.rows_of(study), report_text.order_of(study))
        metric = sought(ranked)
        runs = [(int(row["seed"]), value(row, metric)) for row in ranked]
        first = first if place else runs
        apart = comparison(first, runs)
        told = f"{100 * apart.low:+.1f} to {100 * apart.high:+.1f}" if apart.method != "none" else "no interval"
        accuracies = mean_interval([value(row, metric) for row in ranked]).of_shares()
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


def _overlaid(studies: Sequence[Study], references: Mapping[str, float], ids: Iterator[int]) -> str:
    """Charts in which several studies lie over each other, each in one colour.

    A study is labelled by its name, or by its folder if another study has the same name.
    """
    names = [study.name for study in studies]
    label = {id(s): s.name if names.count(s.name) == 1 else str(s.folder) for s in studies}
    rows = {label[id(study)]: report_text.rows_of(study) for study in studies}
    ranked = {label[id(study)]: rank(rows[label[id(study)]], report_text.order_of(study)) for study in studies}
    frames = {label[id(study)]: frames_of([study], ("trials", "epochs")) for study in studies}
    metrics = {sought(found) for found in ranked.values() if found}
    goals = {(str(o["metric"]), o.get("mode")) for study in studies for o in study.info["objectives"][:1]}
    charted: dict[str, charts.Chart | None] = {}
    if len(goals) == 1:
        ((goal, mode),) = goals
        charted["history"] = history_chart({name: history(found, mode == "min") for name, found in rows.items()}, goal)
    if len(metrics) == 1:
        (metric,) = metrics
        charted["studies"] = charts.studies({name: (f.epochs, f.trials) for name, f in frames.items()}, metric)
        charted["pareto"] = charts.fronts(ranked, reference=references.get("parameters"))
        charted["pareto_macs"] = charts.fronts(ranked, "macs", "multiply-adds", references.get("macs"))
    parts = [page.chart(spec, *_CHARTS[name], f"c{next(ids)}") for name, spec in charted.items() if spec is not None]
    return f'<h2>All studies</h2><div class="grid">{"".join(parts)}</div>' if parts else ""


def _study_sections(
    study: Study, ids: Iterator[int], budget: int, shares: Shares, references: Mapping[str, float]
) -> Iterator[str]:
    info = study.info
    rows = report_text.rows_of(study)
    objectives = info.get("objectives") or []
    ranked = rank(rows, report_text.order_of(study))
    placed = report_text.with_a_place(ranked, objectives)
    front = {row["trial_id"] for row in placed}
    ranked = sorted(ranked, key=lambda row: row["trial_id"] not in front)
    frames = frames_of([study], ("trials", "epochs", "contributions"))
    running = sum(row["state"] == "RUNNING" for row in rows)

    yield report_text.what_was_run(study, rows, placed)
    if running:
        yield (
            f'<p class="note">{running} of {len(rows)} trials had not ended when this page was written: '
            "write it again later for the rest.</p>"
        )
    if not ranked:
        yield f'<p class="note">There is no completed trial to rank: {escape(state_sentence(study))}.</p>'
    else:
        yield report_text.start(rows)
        drawings, places = report_text.drawings(study, ranked, len(placed), budget, ids)
        yield "<h3>Ranking</h3>"
        yield report_text.ranking(ranked, len(placed), objectives, limits_of(study), places)
        yield f"<h3>Genotypes</h3>{drawings}"

    ids_of_best = [str(row["trial_id"]) for row in ranked]
    found = {
        "history": history_chart(
            {study.name: history(rows, is_lowest(objectives))}, str(objectives[0]["metric"]) if objectives else ""
        ),
        "curves": charts.curves(frames.epochs, ids_of_best[: len(placed)], sought(ranked)),
        "methods": charts.methods(frames.epochs, frames.trials, sought(ranked)),
        "saturation": charts.saturation(frames.epochs, frames.trials),
        "skips": charts.skips(frames.epochs, frames.trials),
        "pareto": charts.pareto(ranked, reference=references.get("parameters")),
        "pareto_macs": charts.pareto(ranked, "macs", "multiply-adds", references.get("macs")),
    }
    figures = [page.chart(spec, *_CHARTS[name], f"c{next(ids)}") for name, spec in found.items() if spec is not None]
    heats = ((trial, charts.contributions(frames.contributions, trial)) for trial in ids_of_best)
    trial_id, heat = next(((trial, chart) for trial, chart in heats if chart is not None), ("", None))
    if heat is not None:
        caption = (
            f"Marginal contribution of each cell of trial {trial_id} (eq. 6): the loss with the cell minus the loss "
            "without it, so blue cells lower the loss."
        )
        figures.append(page.chart(heat, "Contributions of cells", caption, f"c{next(ids)}"))
    yield from _cells_of_best(study, ids_of_best, figures, ids)
    yield from _confusion(study, ids_of_best[: len(placed)], ids)
    if placed:
        best = ids_of_best[0]
        yield mistakes.section(study.folder / "trials" / best, f"the derived network of trial {best}")
    yield from _settings(ranked, frames.trials, shares, log_sampled(study), ids)
    yield report_text.not_completed(rows, sought(ranked))
    yield report_text.reproduce(study, placed)


def _cells_of_best(study: Study, ranked: Sequence[str], figures: list[str], ids: Iterator[int]) -> Iterator[str]:
    """The figures that are given, the operations of the best trial's cells, and the gates of that trial by epoch."""
    best_trial = next((trial for trial in study.trials if ranked and trial.trial_id == ranked[0]), None)
    shown = (with_alphas(study, best_trial),) if best_trial else ()
    frames = frames_of([replace(study, trials=shown)], ("alphas", "genotypes"))
    bars = cell_charts.operations(frames.genotypes, ranked[0]) if ranked else None
    if bars is not None:
        caption = f"Operations in each cell of trial {ranked[0]}, in the colours of the drawings."
        figures = [*figures, page.chart(bars, "Operations of cells", caption, f"c{next(ids)}")]
    if figures:
        yield f'<h3>Curves and contributions</h3><div class="grid">{"".join(figures)}</div>'
    heat = cell_charts.gates(frames.alphas)
    if heat is not None:
        caption = (
            f"Gate of every operation of trial {ranked[0]} by epoch; an edge a→b is from node a to node b. "
            "Choose the cell above the map."
        )
        yield f'<h3>Gates</h3><div class="tall">{page.chart(heat, "Gates by epoch", caption, f"c{next(ids)}")}</div>'


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
        part = page.chart(confusion.chart(classes, one.matrix), "True and predicted classes", caption, f"c{next(ids)}")
        yield f'<div class="{box}">{part}</div>'
    else:
        yield f"<p>{escape(caption)}</p>"
    rows = confusion.table(classes, one.matrix)
    lines = [(name, f"{sum(row):,}", percent(recall)) for name, row, recall in rows[: report_text.LISTED]]
    yield page.table(("class", "images", "recall"), lines, numeric=(1, 2))
    if len(rows) > report_text.LISTED:
        yield f"<p class=soft>The {report_text.LISTED} classes of lowest recall, of {len(rows):,}.</p>"


def _settings(
    ranked: Sequence[Row], trials: pd.DataFrame, shares: Shares, logs: Collection[str], ids: Iterator[int]
) -> Iterator[str]:
    """The settings that the sweep varied, and which of them mattered."""
    mattered = []
    bars = parameter_charts.importance(shares)
    if bars is not None:
        caption = (
            "Importance of each setting for the first objective: share of the variance that it explains by itself "
            "(fANOVA over completed trials). The line at its end reaches over eight of ten trees of the forest, each "
            "of which saw another sample of the trials. What is left of 100 % are interactions and noise; with few "
            "trials noise has shares too, so it is a hint, not a finding."
        )
        mattered.append(page.chart(bars, "Importance", caption, f"c{next(ids)}"))
    lines = parameter_charts.parallel(trials, logs)
    if lines is not None:
        caption = (
            f"Each line is a completed trial (at most {charts.LINES}, evenly chosen by objective), orange for the "
            "highest objective; below an axis it has no such setting."
        )
        mattered.append(
            f'<div class="wide">{page.chart(lines, "Settings and objective", caption, f"c{next(ids)}")}</div>'
        )
    if mattered:
        yield f'<h3>What mattered</h3><div class="grid">{"".join(mattered)}</div>'
    slices = parameter_charts.slices(ranked, logs)
    if slices:
        small = "".join(page.chart(spec, path, f"Objective against {path}.", f"c{next(ids)}") for path, spec in slices)
        some = f"<p class=soft>{charts.POINTS} of {len(ranked):,} trials, evenly chosen by rank.</p>"
        note = some if len(ranked) > charts.POINTS else ""
        yield f'<h3>Objective by parameter</h3>{note}<div class="grid small">{small}</div>'
