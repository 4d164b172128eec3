"""Sweeps, and studies as they lie in their folders."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddarts_analysis.collect import Frames, load
from ddarts_analysis.drawing import draw_genotype
from ddarts_analysis.export import best
from ddarts_analysis.gallery import FIGURES, read_figure
from ddarts_analysis.study import read_study
from ddarts_tuning.searchers.importance import importances
from ddarts_tuning.store.study import find_study

from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError

from .settings import Settings, load_config

if TYPE_CHECKING:
    import pandas as pd
    from ddarts_tuning.driver.events import Listener
    from matplotlib.figure import Figure

#: Columns of the table that a notebook shows.
SHOWN = ("trial_id", "state", "objective", "parameters", "macs", "params_json")


@dataclass(frozen=True)
class Study:
    """A study in its folder; a notebook shows its table and its front.

    Everything is read anew when it is asked for, since the study's sweep may still run.

    Attributes:
        folder: the folder of the study.
    """

    folder: Path

    @property
    def frames(self) -> Frames:
        """The tables `trials`, `epochs`, `contributions` and `genotypes` of the study (docs/analysis.md)."""
        return load(self.folder, tables=("trials", "epochs", "contributions", "genotypes"))

    @property
    def best(self) -> AnyGenotype:
        """The genotype of the best completed trial.

        Raises:
            UserError: no trial completed.
        """
        found = self.genotypes(1)
        if not found:
            raise UserError(f"no trial of the study {self.folder} completed: it has no best genotype")
        return found[0]

    def genotypes(self, top: int | None = None, by: str | None = None) -> list[AnyGenotype]:
        """The distinct genotypes of completed trials, best first.

        Args:
            top: the largest number of genotypes to return; None returns all.
            by: the metrics to rank by, as `ddarts export --by` takes them; None ranks by the objectives of the study.

        Raises:
            UserError: an unknown metric, or `top` less than 1.
        """
        found = best(read_study(self.folder, alphas=False), top, by)
        return [trial.genotype for _, trial, _ in found if trial.genotype is not None]

    @property
    def figures(self) -> dict[str, str]:
        """The figures that `figure` makes, and what each shows."""
        return {name: entry.what for name, entry in FIGURES.items()}

    def figure(self, name: str, *, trial: str | None = None, cell: int | None = None) -> Figure:
        """Draw one of `figures`.

        Args:
            name: the name of the figure.
            trial: the trial to draw, if the figure is about one trial.
            cell: the position of the cell to draw, if the figure is about one cell.

        Raises:
            UserError: the name is unknown, or the study lacks what the figure shows.
        """
        return read_figure(name, self.folder, trial=trial, cell=cell, importances=importances)

    @property
    def table(self) -> pd.DataFrame:
        """One row per trial, completed ones first, in the order of `genotypes`."""
        trials = self.frames.trials
        done = [
            name
            for row, _, also in best(read_study(self.folder, alphas=False))
            for name in (str(row["trial_id"]), *also)
        ]
        order = {name: place for place, name in enumerate(done)}
        ranked = trials.assign(place=[order.get(str(name), len(order)) for name in trials["trial_id"]])
        ordered: pd.DataFrame = ranked.sort_values(["place", "number"])[list(SHOWN)].reset_index(drop=True)
        return ordered

    def _repr_html_(self) -> str:
        from .display import svg

        shown = f"<h4>{html.escape(str(self.folder))}</h4>{self.table.to_html(index=False)}"
        return shown + (svg(self.figure("pareto")) if self.genotypes(1) else "")


def open_study(study: str | Path, storage: str = "runs") -> Study:
    """Open a study; its sweep may still run.

    Args:
        study: the folder of the study, or the name of a study in the storage folder.
        storage: the storage folder.

    Raises:
        UserError: there is no such study; the message lists the studies that there are.

    Example:
        >>> study = open_study("example")
        >>> int(study.frames.trials["num_epochs"][0]), type(study.figure("pareto")).__name__
        (1, 'Figure')
    """
    return Study(find_study(study, storage).path)


def sweep(
    settings: Settings, *, watch: Listener | None = None, num_cpus: int | None = None, address: str | None = None
) -> Study:
    """Run a sweep to its end, as `ddarts sweep` does, and open its study.

    The study lies in `storage/name` of the settings. An interrupted sweep goes on with `ddarts resume`.

    Args:
        settings: settings as for `load_config`, with a `space`.
        watch: a function that is told of what happens to every trial.
        num_cpus: how many cores Ray may use; None means all.
        address: the address of a Ray cluster; None starts Ray on this machine.

    Raises:
        UserError: a setting is wrong, the study exists, or no trial fits on the machines.

    Example:
        >>> tiny = {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 1, "batch_size": 20}
        >>> settings = {
        ...     "name": "example",
        ...     "data": {"num_train": 100},
        ...     "search": tiny,
        ...     "space": {"alpha.lr": {"type": "float", "low": 0.01, "high": 0.1}},
        ...     "tune": {"num_samples": 1, "objective": "supernet", "scheduler": "fifo"},
        ...     "tracking": {"log_artifacts": False},
        ... }
        >>> study = sweep(settings, num_cpus=1)
        >>> study.best.num_cells, list(study.table["state"])
        (3, ['COMPLETED'])
    """
    from ddarts_tuning.driver.sweep import run_sweep
    from ddarts_tuning.settings.config import SweepConfig

    config = load_config(settings)
    if not isinstance(config, SweepConfig):
        raise UserError("a sweep needs the group `space`: a search without one is run by ddarts.search")
    result = run_sweep(config, draw=draw_genotype, listener=watch, num_cpus=num_cpus, address=address)
    return Study(result.study.path)
