"""A truth: every genotype of a small space, trained. What searches in that space are worth is read from it.

All functions are pure but `read_truth`, which reads the study that `ddarts truth` made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddarts_core.genotypes.enumeration import Enumeration
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.genotypes.spaces import edge_list, operations_of
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path
from ddarts_core.settings.config import ExperimentConfig, enumeration_of

from .study import Study, Trial, read_study, trial_row

ACCURACY = "held_out/accuracy"

#: Settings of `data` that decide which images there are and which of them score.
IMAGES = ("name", "num_train", "image_size", "channels", "split.weights", "split.alphas", "split.held_out")

#: What costs nothing to know of a network, and what was measured of it before it was trained.
SIZES = ("parameters", "macs")


@dataclass(frozen=True)
class Truth:
    """The trainings of a truth.

    Attributes:
        study: the study of the truth, as it was read.
        every: the distinct genotypes of the space.
        trainings: one row per training. Its columns are the `number` of the genotype, the `seed`, the `accuracy` on the
            held-out images, `seconds`, `parameters`, `macs`, and each training-free score.
        images: which images there are and which of them score; see `images_of`.
    """

    study: Study
    every: Enumeration
    trainings: pd.DataFrame
    images: tuple[Any, ...]

    @cached_property
    def noise(self) -> float:
        """Standard deviation of an accuracy between the seeds of one genotype, pooled; NaN with one seed each."""
        groups = self.trainings.groupby("number")["accuracy"]
        squares = float(groups.apply(lambda values: ((values - values.mean()) ** 2).sum()).sum())
        freedom = len(self.trainings) - groups.ngroups
        return math.sqrt(squares / freedom) if freedom else math.nan

    @cached_property
    def architectures(self) -> pd.DataFrame:
        """One row per genotype that was trained, by its number.

        The columns are the `accuracy`, `seconds`, sizes and training-free scores, all as means over seeds, the
        standard `error` of the mean accuracy by the `noise`, and the `rank` from 1, the most accurate. Genotypes of
        equal accuracy share the better rank.
        """
        others = [name for name in self.trainings.columns if name not in ("number", "seed")]
        rows = self.trainings.groupby("number")[others].mean()
        rows["error"] = self.noise / np.sqrt(self.trainings.groupby("number").size())
        rows["rank"] = rows["accuracy"].rank(ascending=False, method="min").astype(int)
        return rows

    @cached_property
    def reliability(self) -> float:
        """Share of the variance between the means of genotypes that is not the noise of seeds; NaN with one seed each.

        At 0 the order of the genotypes is chance. The share is an estimate, and at least 0.
        """
        found = self.architectures
        return max(0.0, 1 - float((found["error"] ** 2).mean() / found["accuracy"].var()))

    @cached_property
    def worth(self) -> np.ndarray:
        """Mean accuracy of the genotypes that have an operation on an edge of a cell: [cells, edges, operations].

        The value is NaN where no trained genotype has that operation. Every trained genotype counts with its twins.
        """
        names = operations_of(self.every.space)
        edges = {edge: index for index, edge in enumerate(edge_list(self.every.steps))}
        total = np.zeros((self.every.num_cells, len(edges), len(names)))
        count = np.zeros_like(total)
        for number, accuracy in self.architectures["accuracy"].items():
            for genotype in self.every.twins_of(int(str(number))):
                for position, cell in enumerate(genotype.cells):
                    for edge in cell.edges:
                        where = position, edges[edge.source, edge.target], names.index(edge.op)
                        total[where] += accuracy
                        count[where] += 1
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / count, np.nan)


def read_truth(folder: str | Path) -> Truth:
    """Read the study that `ddarts truth` made. If it still runs, its truth is what is trained so far.

    Raises:
        UserError: the folder is no study, the study is no truth, or nothing is trained yet.
    """
    return truth_of(read_study(folder, alphas=False))


def is_truth(study: Study) -> bool:
    """Whether a study has trained a genotype by its number."""
    return any(_number(trial) is not None for trial in study.completed)


def truth_of(study: Study) -> Truth:
    """The truth of a study that is already read.

    Raises:
        UserError: the study is not a truth, or nothing is trained yet.
    """
    config = _experiment(study.info["config"])
    rows = [row for trial in study.completed if (row := _training(trial)) is not None]
    if not rows:
        whole = any(_number(trial) is not None for trial in study.trials)
        what = "has no completed training yet" if whole else "is no truth: ddarts truth makes one"
        raise UserError(f"study {study.name!r} {what}")
    trainings = pd.DataFrame(rows).sort_values(["number", "seed"], ignore_index=True)
    return Truth(study, enumeration_of(config), trainings, images_of(study.trials[0].info["config"]))


def _experiment(config: Mapping[str, Any]) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {name: config[name] for name in ExperimentConfig.model_fields if name in config}
    )


def _number(trial: Trial) -> int | None:
    number = trial.info["config"].get("search", {}).get("number")
    return None if number is None else int(number)


def _training(trial: Trial) -> dict[str, Any] | None:
    number, row = _number(trial), trial_row(trial)
    if number is None or row["derived_accuracy"] is None:
        return None
    return {
        "number": number,
        "seed": row["seed"],
        "accuracy": row["derived_accuracy"],
        "seconds": row["seconds"],
        **{size: row[size] for size in SIZES},
        **(trial.info.get("scores") or {}),
    }


def images_of(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which images a trial has and which of them score, as values that can be compared."""
    data = config["data"]
    own = data["split"].get("seed")
    return (*(get_path(data, path) for path in IMAGES), config["seed"] if own is None else own)


# --- what a search is worth -----------------------------------------------------------------------------------------


def regrets(truth: Truth, studies: Iterable[Study]) -> pd.DataFrame:
    """What each completed search found, by the truth: one row per trial.

    The columns are:

    - `study`, `trial_id`, `method` and `seed` of the search;
    - `number` of the genotype, which is missing if the genotype is none of the truth's space;
    - `accuracy` (the mean over seeds), `error` and `rank` of the genotype, see `Truth.architectures`;
    - `regret`: the best mean accuracy of the truth less that of the genotype, as a fraction of 1;
    - `seconds` of the search;
    - `draws`: how many trainings of the truth take as long as the search, at least 1;
    - `chance`: the probability that the best of `draws` genotypes, drawn at random, is at least as good.

    The best of many noisy means is better than it is in truth, so regret is a little too large for all alike.

    Raises:
        UserError: a search had other images, or other images scored it: what trained it may be what the truth is scored
            by.
    """
    known = truth.architectures
    by_number: dict[Any, dict[Any, Any]] = known.to_dict("index")
    best = float(known["accuracy"].max())
    each = float(truth.trainings["seconds"].mean())
    rows = []
    for study in studies:
        for trial in study.completed:
            if images_of(trial.info["config"]) != truth.images:
                raise UserError(
                    f"trial {trial.trial_id} of study {study.name!r} has other images or another split than the truth "
                    f"{truth.study.name!r}: give both the same data, and data.split.seed {truth.images[-1]}"
                )
            assert trial.genotype is not None
            row = trial_row(trial)
            number = truth.every.number_of(trial.genotype)
            found: dict[str, Any] = {"number": number, "draws": max(1, round(row["search_seconds"] / each))}
            if number in by_number:
                of_truth = by_number[number]
                accuracy = float(of_truth["accuracy"])
                share = float((known["accuracy"] >= accuracy).mean())
                found |= {name: of_truth[name] for name in ("accuracy", "error", "rank")}
                found |= {"regret": best - accuracy, "chance": chance(share, found["draws"])}
            names = ("trial_id", "method", "seed")
            rows.append(
                {"study": study.name, **{name: row[name] for name in names}, "seconds": row["search_seconds"]} | found
            )
    columns = ["study", "trial_id", "method", "seed", "number", "accuracy", "error", "rank", "regret", "seconds"]
    table: pd.DataFrame = pd.DataFrame(rows, columns=[*columns, "draws", "chance"]).astype({"number": "Int64"})
    return table


def chance(share: float, draws: int) -> float:
    """Probability that at least one of `draws` independent draws is among the best `share` (a fraction of 1) of all.

    Example:
        >>> chance(0.5, 2)
        0.75
    """
    return 1 - (1 - share) ** draws


def expected_regret(truth: Truth, draws: int) -> float:
    """Mean regret, a fraction of 1, of the best of `draws` genotypes that are drawn at random.

    They are drawn with replacement, and the best is told from the others without error. Of n accuracies in ascending
    order the best of k draws is the i-th with probability (i/n)^k - ((i-1)/n)^k.
    """
    ordered = np.sort(truth.architectures["accuracy"].to_numpy())
    below = np.arange(len(ordered) + 1) / len(ordered)
    weights = np.diff(below**draws)
    return float(ordered[-1] - weights @ ordered)


# --- searching in the truth -----------------------------------------------------------------------------------------


def genotypes(truth: Truth) -> Iterator[tuple[int, Genotype]]:
    """Every trained genotype with its number."""
    for number in truth.architectures.index:
        yield int(number), truth.every[int(number)]


def export(truth: Truth) -> pd.DataFrame:
    """The truth as one table that others can query: a row per training, with its genotype as JSON and as a hash."""
    found = dict(genotypes(truth))
    rows: pd.DataFrame = truth.trainings.copy()
    rows.insert(1, "genotype_hash", [found[number].hash for number in rows["number"]])
    rows["genotype"] = [found[number].to_json() for number in rows["number"]]
    return rows


def score_names(trainings: pd.DataFrame) -> Sequence[str]:
    """What of a genotype is known without training it: its sizes and its training-free scores."""
    known = {"number", "seed", "accuracy", "seconds"}
    return [name for name in trainings.columns if name not in known]
