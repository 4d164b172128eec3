"""Figures by name: what `ddarts figure` writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ddarts_core.ground.errors import UserError, unknown_name

from . import cell_figures, confusion, figures, history, mistakes, parameter_figures
from .collect import Frames, frames_of
from .ranking import sought
from .study import Importances, Study, find_trial, log_sampled, read_study, with_alphas

#: Trials whose genotypes are compared with each other.
COMPARED = 20


@dataclass(frozen=True)
class Subject:
    """The data that a figure may be about.

    Attributes:
        frames: the tables of one or more studies.
        trial: for figures about one trial, its name or number; None is the completed trial of highest accuracy.
        cell: for figures about one cell, the position of the cell.
        folder: the folder of the study, if there is only one and files in it may be needed.
        importances: the share of the objective's variance that each setting explains by itself, and its interval.
        references: the cost up to which a front's hypervolume is taken, for `parameters` and `macs` if it is given.
        logs: the settings that the study sampled on a logarithmic scale.
        objectives: the objectives of the studies, [{metric, mode}] as in `study.json`; empty: highest `objective`.
    """

    frames: Frames
    trial: str | None = None
    cell: int = 0
    importances: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    references: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    objectives: Sequence[Mapping[str, Any]] = ()
    logs: Collection[str] = ()

    @property
    def metric(self) -> str:
        """The name of the accuracy that the studies sought."""
        return sought({"objectives_json": text} for text in self.frames.trials["objectives_json"])

    @property
    def best_ids(self) -> list[str]:
        """Completed trials, highest accuracy first."""
        trials = self.frames.trials
        done = trials[trials["state"] == "COMPLETED"]
        accuracy = done[f"derived_{self.metric}"].fillna(done[f"held_out_{self.metric}"]).fillna(0.0)
        ordered = done.loc[accuracy.sort_values(ascending=False, kind="stable").index, "trial_id"]
        return [str(name) for name in ordered]

    @property
    def trial_id(self) -> str:
        """The trial to show.

        Raises:
            UserError: there is no such trial, or none at all.
        """
        trials = self.frames.trials
        known = [str(name) for name in trials["trial_id"]]
        if self.trial is not None:
            return find_trial(self.trial, known)
        best = self.best_ids
        if not best:
            raise UserError("no completed trial to show: name one that runs with --trial")
        return best[0]


@dataclass(frozen=True)
class FigureEntry:
    """A figure: what it shows, the function that draws it, and a table that it needs beside trials and epochs.

    `whole` says that it needs this table of all trials, not only of the one that it shows; `column` is the one of the
    table that it shows, where that may be empty; `of_cell` says that it is about one cell of the trial, `of_file` that
    it shows a file of the trial.
    """

    what: str
    draw: Callable[[Subject], Figure]
    table: str | None = None
    whole: bool = False
    column: str | None = None
    of_cell: bool = False
    of_file: bool = False

    @property
    def of_trial(self) -> bool:
        """Whether the figure is about one trial."""
        return self.of_file or (self.table is not None and not self.whole)


def _pareto(subject: Subject, cost: str = "parameters") -> Figure:
    trials = subject.frames.trials
    derived = trials[f"derived_{subject.metric}"].notna().any()
    y = f"{'derived' if derived else 'held_out'}_{subject.metric}"
    return figures.pareto(trials, x=cost, y=y, reference=subject.references.get(cost))


def _history(subject: Subject) -> Figure:
    label = str(subject.objectives[0]["metric"]) if subject.objectives else "objective"
    lowest = history.is_lowest(subject.objectives)
    groups = subject.frames.trials.groupby("study", sort=True)
    found: dict[str, list[Any]] = {str(study): rows.to_dict("records") for study, rows in groups}
    return history.figure({study: history.history(rows, lowest) for study, rows in found.items()}, label)


def _skips(subject: Subject) -> Figure:
    frames = subject.frames
    figure = figures.accuracy_curves(
        frames.epochs, frames.trials, by="method", split="discretised", metric="skip_connections"
    )
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[0].set_ylabel("skip connections", fontsize=9)
    return figure


#: Figure by name, in the order in which they are listed.
FIGURES: Mapping[str, FigureEntry] = MappingProxyType(
    {
        "history": FigureEntry("objective by trial and the best so far", _history),
        "accuracy": FigureEntry(
            "held-out accuracy by epoch and trial",
            lambda s: figures.accuracy_curves(s.frames.epochs, s.frames.trials, metric=s.metric),
        ),
        "methods": FigureEntry(
            "held-out accuracy by epoch, mean and 95 % interval by method (D-DARTS Fig. 4)",
            lambda s: figures.accuracy_curves(s.frames.epochs, s.frames.trials, by="method", metric=s.metric),
        ),
        "saturation": FigureEntry(
            "share of decided operations by epoch", lambda s: figures.saturation(s.frames.epochs, s.frames.trials)
        ),
        "w_ablation": FigureEntry(
            "lowest loss over the epochs against w_ablation (D-DARTS Fig. 2)",
            lambda s: figures.loss_against_w_ablation(s.frames.epochs, s.frames.trials),
        ),
        "w_zero_one": FigureEntry(
            "share of decided operations against w_zero_one (D-DARTS Fig. 3)",
            lambda s: figures.decided_against_w_zero_one(s.frames.epochs, s.frames.trials),
        ),
        "pareto": FigureEntry("accuracy against parameters; --reference adds the front's hypervolume", _pareto),
        "pareto_macs": FigureEntry(
            "accuracy against multiply-adds; --reference adds the front's hypervolume", lambda s: _pareto(s, "macs")
        ),
        "contributions": FigureEntry(
            "marginal contribution of each cell by epoch, of one trial",
            lambda s: figures.contributions_map(s.frames.contributions, s.trial_id),
            "contributions",
            column="contribution",
        ),
        "gates": FigureEntry(
            "gates of every edge of a cell by epoch, of one trial",
            lambda s: cell_figures.gates(s.frames.alphas, s.trial_id, s.cell),
            "alphas",
            of_cell=True,
        ),
        "operations": FigureEntry(
            "operations in each cell of a trial's genotype",
            lambda s: cell_figures.operations(s.frames.genotypes, s.trial_id),
            "genotypes",
        ),
        "confusion": FigureEntry(
            "confusion matrix and recall per class of a trial's derived network on held-out images",
            lambda s: confusion.figure_of_trial(s.folder, s.trial_id),
            of_file=True,
        ),
        "mistakes": FigureEntry(
            "held-out images that a trial's derived network is surest about and wrong",
            lambda s: mistakes.figure_of(
                None if s.folder is None else s.folder / "trials" / s.trial_id, f"trial {s.trial_id}, held-out images"
            ),
            of_file=True,
        ),
        "distances": FigureEntry(
            f"distances between the genotypes of the best {COMPARED} trials",
            lambda s: cell_figures.distances(s.frames.genotypes, s.best_ids[:COMPARED]),
            "genotypes",
            whole=True,
        ),
        "skips": FigureEntry(
            "skip connections of the genotype by epoch, mean and 95 % interval by method",
            _skips,
        ),
        "importance": FigureEntry(
            "share of the objective's variance that each setting explains by itself",
            lambda s: parameter_figures.importance(s.importances),
        ),
        "slices": FigureEntry(
            "objective against each setting", lambda s: parameter_figures.slices(s.frames.trials, s.logs)
        ),
        "parallel": FigureEntry(
            "settings and objective of each trial as parallel coordinates",
            lambda s: parameter_figures.parallel(s.frames.trials, s.logs),
        ),
    }
)


def read_figure(
    name: str,
    study_dir: str | Path,
    *,
    trial: str | None = None,
    cell: int | None = None,
    importances: Importances | None = None,
    references: Mapping[str, float] = MappingProxyType({}),
) -> Figure:
    """One of `FIGURES` from a study's folder; only the tables that it needs are built.

    Raises:
        UserError: the name is unknown, the folder is no study, its records lack what the figure shows, or the figure is
            not about one trial, or one cell, and one is given.
    """
    if name not in FIGURES:
        raise unknown_name("figure", name, FIGURES)
    entry = FIGURES[name]
    for what, given, fits in (("trial", trial, entry.of_trial), ("cell", cell, entry.of_cell)):
        if given is not None and not fits:
            raise UserError(f"the figure {name} is not about one {what}: leave --{what} out")
    study = read_study(study_dir, alphas=False)
    if entry.of_file and study.is_packed:
        raise UserError(
            f"{study.folder} is a study in one file, which does not keep what the figure {name} shows: name its folder"
        )
    frames = frames_of([study], ("trials", "epochs"))
    table = entry.table
    if table is not None:
        if entry.whole:
            rows = getattr(frames_of([study], (table,)), table)
        else:  # those of all trials could be large
            trial, rows = _first_with(study, entry, Subject(frames, trial))
        frames = replace(frames, **{table: rows})
    shares: Mapping[str, tuple[float, float, float]] = {}
    if name == "importance" and importances is not None:
        shares = importances(study.info, [trial.info for trial in study.trials])
    of_study = (study.folder, study.info["objectives"], log_sampled(study))
    return figure_of(name, Subject(frames, trial, cell or 0, shares, references, *of_study))


def _first_with(study: Study, entry: FigureEntry, subject: Subject) -> tuple[str, pd.DataFrame]:
    """The trial of the subject and its rows of the figure's table; if none was named, the best one that has any.

    Those that did not complete come after all that did. If none has any it is the best of all, of which the figure
    says that it has none.
    """
    assert entry.table is not None
    first = subject.trial_id
    rows = pd.DataFrame()
    others = [str(name) for name in subject.frames.trials["trial_id"]]
    for name in dict.fromkeys([*subject.best_ids, *others]) if subject.trial is None else [first]:
        found = (trial for trial in study.trials if trial.trial_id == name)
        only = replace(
            study, trials=tuple(with_alphas(study, trial) if entry.table == "alphas" else trial for trial in found)
        )
        rows = getattr(frames_of([only], (entry.table,)), entry.table)
        if len(rows if entry.column is None else rows.dropna(subset=entry.column)):
            return name, rows
    return first, rows


def figure_of(name: str, subject: Subject) -> Figure:
    """One of `FIGURES`.

    Raises:
        UserError: the name is unknown, or the records lack what the figure shows.
    """
    if name not in FIGURES:
        raise unknown_name("figure", name, FIGURES)
    return FIGURES[name].draw(subject)


#: Name -> what a figure of the folder of a retrain shows, and the function that draws it.
OF_RETRAIN: Mapping[str, tuple[str, Callable[[Path], Figure]]] = MappingProxyType(
    {
        "confusion": (
            "confusion matrix and recall per class on the test images, summed over the seeds",
            confusion.figure_of_retrain,
        ),
        "mistakes": (
            "test images that the network of the first seed is surest about and wrong",
            lambda folder: mistakes.figure_of(folder, "test images, first seed"),
        ),
    }
)
