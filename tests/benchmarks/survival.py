"""How many trials of the quickstart sweep are stopped early, and which the best is that is left, by either statistics.

Every trial is trained to its end, with nothing stopped: after each epoch the supernet is scored twice, by running
statistics and by recalibrated ones (neither changes the training), and at the end its derived network. Then the
scheduler of the sweep, Ray's own, is told the scores of one kind or of the other, epoch by epoch, two trials at a time,
and decides. Trials are drawn at random from the sweep's space, so that both kinds see the same ones.

    python -m tests.benchmarks.survival --seeds 5 --out docs/survival.jsonl

Trials that the file holds already are not trained again: a trial takes some minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import torch
from ddarts_analysis.statistics import mean_interval
from ddarts_tuning.schedulers.early_stopping import SCHEDULER_FACTORIES
from ddarts_tuning.settings.config import SweepConfig, load_sweep
from ddarts_tuning.settings.space import base_settings, trial_config
from ddarts_tuning.settings.tune import ACCURACY, SEARCH_EPOCH

from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.ground.errors import UserError
from ddarts_core.search.search import Search, build_search
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.training.retrain import Retrain

SWEEP = "experiments/quickstart_sweep.yaml"
KINDS = ("running", "recalibrated")
AT_A_TIME = 2
#: Of the quickstart's 14: those at which agreement is told.
EPOCHS = (1, 5, 9, 14)


def sweep_of(seed: int, overrides: Sequence[str] = ()) -> SweepConfig:
    """The quickstart sweep with another seed."""
    return load_sweep(SWEEP, [f"seed={seed}", *overrides])


def drawn(config: SweepConfig) -> list[ExperimentConfig]:
    """Its trials, drawn at random from its space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(config.seed))
    space, base = config.build_space(), base_settings(config)
    return [trial_config(base, space(study.ask())) for _ in range(config.tune.num_samples)]


def trained(config: ExperimentConfig) -> dict[str, Any]:
    """Accuracy on the held-out images: of the supernet after each epoch by kind, and of the derived network."""
    torch.set_num_threads(1)
    search = build_search(config)
    curves: dict[str, list[float]] = {kind: [] for kind in KINDS}
    seconds = {"recalibration": 0.0, "all": 0.0}
    for record in search.records():
        curves["recalibrated"].append(record.metrics[ACCURACY])
        curves["running"].append(_running(search))
        seconds["recalibration"] += record.seconds["recalibration"]
        seconds["all"] += sum(record.seconds.values())
    try:
        genotype = search.discretise().genotype
    except UserError:
        return {"curves": curves, "derived": None, "seconds": seconds}
    info, images = load_train(config.data)
    splits = split(images, config.data, config.seed)
    retrain = Retrain(config.retrain, genotype, info, splits.weights.joined(splits.alphas), None, config.seed)
    for _ in retrain.records():
        pass
    return {"curves": curves, "derived": retrain.evaluate(splits.held_out).metrics["accuracy"], "seconds": seconds}


def _running(search: Search) -> float:
    config = search.config
    without = config.search.model_copy(update={"recalibration_batches": 0})
    search.config = config.model_copy(update={"search": without})
    try:
        return search.evaluate(search.splits.held_out).metrics["accuracy"]
    finally:
        search.config = config


def stopped(config: SweepConfig, scheduler: str, curves: Sequence[Sequence[float]]) -> set[int]:
    """Numbers of the trials that a scheduler stops, told these accuracies epoch by epoch, two trials at a time."""
    epochs = config.search.warmup_epochs + config.search.epochs
    rule = SCHEDULER_FACTORIES[scheduler](config.tune, epochs, config.seed)
    controller = SimpleNamespace(get_live_trials=list)
    waiting = iter(range(len(curves)))
    running: list[tuple[Any, Iterator[tuple[int, float]]]] = []
    found: set[int] = set()
    while True:
        while len(running) < AT_A_TIME and (number := next(waiting, None)) is not None:
            trial = _Trial(f"ray{number}", number)
            rule.on_trial_add(controller, trial)
            running.append((trial, iter(enumerate(curves[number], 1))))
        if not running:
            return found
        for place in list(running):
            trial, reports = place
            epoch, accuracy = next(reports)
            report = {SEARCH_EPOCH: epoch, ACCURACY: accuracy}
            if epoch == epochs:
                rule.on_trial_complete(controller, trial, report)
                running.remove(place)
            elif rule.on_trial_result(controller, trial, report) == "STOP":
                found.add(trial.number)
                running.remove(place)


class _Trial:
    """What a scheduler reads of a trial."""

    def __init__(self, trial_id: str, number: int) -> None:
        self.trial_id = trial_id
        self.number = number
        self.config = {"number": number}


@dataclass(frozen=True)
class Survival:
    """What a scheduler leaves of the trials of one seed.

    Attributes:
        best: accuracy of the best derived network, with nothing stopped.
        num_stopped: trials that are stopped, by kind of statistics.
        left: accuracy of the best derived network that is left, by kind.
    """

    best: float
    num_stopped: Mapping[str, int]
    left: Mapping[str, float]


def survival(trials: Sequence[Mapping[str, Any]], config: SweepConfig, scheduler: str) -> Survival:
    """Of the trials of one seed, in their order; one whose search gave no network has accuracy 0."""
    derived = [trial["derived"] or 0.0 for trial in trials]
    gone = {kind: stopped(config, scheduler, [trial["curves"][kind] for trial in trials]) for kind in KINDS}
    left = {kind: max(a for number, a in enumerate(derived) if number not in of_kind) for kind, of_kind in gone.items()}
    return Survival(max(derived), {kind: len(of_kind) for kind, of_kind in gone.items()}, left)


def table(found: Mapping[tuple[int, int], Mapping[str, Any]], overrides: Sequence[str]) -> str:
    """Markdown: a row per scheduler, grace period and kind of statistics, over all seeds whose trials are all there.

    `lost` is how far the best accuracy that is left is below the best, in the mean over seeds.
    """
    lines = header("scheduler", "grace_period", "statistics", "stopped", "best trial left", "best left, %", "lost")
    for scheduler in ("asha", "median"):
        for grace in (9, 1):
            rows = []
            for seed in sorted({seed for seed, _ in found}):
                config = sweep_of(seed, [*overrides, f"tune.grace_period={grace}"])
                trials = [found[seed, number] for number in range(config.tune.num_samples) if (seed, number) in found]
                if len(trials) == config.tune.num_samples:
                    rows.append(survival(trials, config, scheduler))
            for kind in KINDS:
                num_stopped = sum(row.num_stopped[kind] for row in rows)
                kept = sum(row.left[kind] == row.best for row in rows)
                lost = sum(row.best - row.left[kind] for row in rows) / len(rows)
                left = ", ".join(f"{100 * row.left[kind]:.1f}" for row in rows)
                cells = [scheduler, str(grace), kind, f"{num_stopped} of {len(rows) * config.tune.num_samples}"]
                cells += [f"{kept} of {len(rows)}", left, f"{100 * lost:.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement(found: Mapping[tuple[int, int], Mapping[str, Any]]) -> str:
    """Markdown: how well the score after an epoch orders the trials of a seed as their derived networks do.

    Spearman's rank correlation, -1 to 1, and 95 % of Student's t over the seeds.
    """
    lines = header("epoch", *(f"rank correlation, {kind}" for kind in KINDS))
    seeds = sorted({seed for seed, _ in found})
    for epoch in EPOCHS:
        cells = []
        for kind in KINDS:
            correlations = []
            for seed in seeds:
                rows = [row for (its_seed, _), row in found.items() if its_seed == seed]
                scores = pd.Series([row["curves"][kind][epoch - 1] for row in rows])
                derived = pd.Series([row["derived"] or 0.0 for row in rows])
                correlations.append(float(scores.rank().corr(derived.rank())))
            mean = mean_interval(correlations)
            cells.append(f"{mean.mean:+.2f} ({mean.low:+.2f} to {mean.high:+.2f})")
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def header(*names: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as for ddarts sweep")
    parser.add_argument("--out", type=Path, default=Path("survival.jsonl"))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    found = {(row["seed"], row["number"]): row for row in map(json.loads, lines)}
    wanted = [
        (seed, number, config)
        for seed in range(arguments.seeds)
        for number, config in enumerate(drawn(sweep_of(seed, arguments.overrides)))
    ]
    missing = [entry for entry in wanted if entry[:2] not in found]
    with ProcessPoolExecutor(arguments.processes) as pool, arguments.out.open("a") as file:
        for (seed, number, _), row in zip(missing, pool.map(trained, [entry[2] for entry in missing]), strict=True):
            found[seed, number] = {"seed": seed, "number": number, **row}
            file.write(json.dumps(found[seed, number]) + "\n")
            file.flush()
    print(f"{table(found, arguments.overrides)}\n\n{agreement(found)}")


if __name__ == "__main__":
    main()
