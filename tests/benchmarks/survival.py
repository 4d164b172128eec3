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
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import torch

from ddarts_core.config import ExperimentConfig
from ddarts_core.data import load_train, split
from ddarts_core.errors import UserError
from ddarts_core.retrain import Retrain
from ddarts_core.search import Search, build_search
from tuning.config import ACCURACY, SEARCH_EPOCH, SweepConfig, load_sweep
from tuning.schedulers import SCHEDULER_FACTORIES
from tuning.space import base_settings, trial_config

SWEEP = "experiments/quickstart_sweep.yaml"
KINDS = ("running", "recalibrated")
AT_A_TIME = 2


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
    rule = SCHEDULER_FACTORIES[scheduler](config.tune, epochs, config.seed, config.build_space())
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


def table(found: Mapping[tuple[int, int], Mapping[str, Any]], scheduler: str, overrides: Sequence[str]) -> str:
    """Markdown: one row per seed whose trials are all there."""
    lines = ["| seed | best trial | stopped, running | best left | stopped, recalibrated | best left |"]
    lines.append("|---|---|---|---|---|---|")
    for seed in sorted({seed for seed, _ in found}):
        config = sweep_of(seed, overrides)
        trials = [found.get((seed, number)) for number in range(config.tune.num_samples)]
        if not all(trials):
            continue
        derived = [trial["derived"] or 0.0 for trial in trials if trial]
        cells = [str(seed), _best(derived, ())]
        for kind in KINDS:
            gone = stopped(config, scheduler, [trial["curves"][kind] for trial in trials if trial])
            cells += [f"{len(gone)} of {len(trials)}", _best(derived, gone)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _best(derived: Sequence[float], gone: Collection[int]) -> str:
    number = max((number for number in range(len(derived)) if number not in gone), key=lambda number: derived[number])
    return f"{number} ({100 * derived[number]:.1f} %)"


def main() -> None:
    """Train what is missing, print a table per scheduler."""
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
    for scheduler in ("asha", "median"):
        for grace in (9, 1):
            overrides = [*arguments.overrides, f"tune.grace_period={grace}"]
            print(f"{scheduler}, grace_period {grace}:\n\n{table(found, scheduler, overrides)}\n")


if __name__ == "__main__":
    main()
