"""What the platform costs: record, MLflow, checkpoint and Tune beside an epoch; a trial's place; workers of a training.

    python -m tests.benchmarks.platform

Writes docs/platform_cost.md. Seconds depend on what else the machine does; CPU seconds less so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform as machine
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ddarts_tuning.cluster.connection import start_ray
from ddarts_tuning.driver.events import SweepEvent
from ddarts_tuning.driver.extending import extend_sweep
from ddarts_tuning.driver.sweep import run_sweep
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.training.distributed import DistributedRetrain, Workers
from ddarts_tuning.trial.trainable import SearchTrial

from ddarts_core.data.sets import load_train
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.files import write_atomic
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import resolve
from ddarts_core.training.retrain import Retrain

PAGE = Path(__file__).parents[2] / "docs" / "platform_cost.md"
EPOCHS = 8
NETWORK: dict[str, Any] = {
    "seed": 1,
    "data": {"num_train": 600},
    "search": {"num_cells": 8, "channels": 8, "steps": 4, "epochs": EPOCHS, "batch_size": 50, "device": "cpu"},
    "alpha": {"weight_decay": 0.0},
}
SPACE = {
    "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0, "log": True},
    "search.lr": {"type": "float", "low": 0.01, "high": 0.1, "log": True},
    "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]},
    "ablation.weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"ablation.loss": ["centered"]}},
}
TRAINING: dict[str, Any] = {
    "seed": 1,
    "data": {"num_train": 600},
    "retrain": {"num_cells": 8, "channels": 16, "epochs": 4, "batch_size": 60, "device": "cpu"},
}
SIMULATED_EPOCHS = 3
GOAL_S = 0.2
"""2 % of an epoch of 10 s."""
GOAL_RESUME_S = 10.0
"""Of a study of 1,000 finished trials, from the call to its next trial; the start of Ray is part of it."""


def sweep_config(folder: Path, name: str, tune: dict[str, Any], **groups: Any) -> SweepConfig:
    """A sweep of the supernet's accuracy."""
    own = {"objective": "supernet", "max_concurrent": 2, **tune}
    tracking = {"log_artifacts": False}
    return resolve_sweep(
        {**NETWORK, "name": name, "storage": str(folder), "space": SPACE, "tune": own, "tracking": tracking, **groups}
    )


# --- CPU seconds ----------------------------------------------------------------------------------------------------


class Meter:
    """CPU seconds of this process and of all that descended from it since, Ray's daemons and dead processes included.

    A process that died between two looks counts as it was seen last.
    """

    EVERY_S = 0.25

    def __enter__(self) -> Meter:
        self._used: dict[int, float] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def seconds(self) -> float:
        """Until now."""
        with self._lock:
            self._look()
            return sum(self._used.values())

    def _look_again(self) -> None:
        while not self._stop.wait(self.EVERY_S):
            self.seconds()

    def _look(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        parents: dict[int, int] = {}
        used: dict[int, float] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            parents[int(folder.name)] = int(fields[1])
            used[int(folder.name)] = sum(map(int, fields[11:13])) / ticks
        family = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        self._used |= {pid: used[pid] for pid in family & used.keys()}


# --- an epoch -------------------------------------------------------------------------------------------------------


class Watched:
    """The epochs of a search; notes when each began and ended, and the CPU seconds of the thread between."""

    def __init__(self, epochs: Iterator[EpochRecord], file: Path) -> None:
        self._epochs = epochs
        self._file = file

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> EpochRecord:
        began, cpu = time.time(), time.thread_time()
        record = next(self._epochs)
        line = {"began": began, "ended": time.time(), "cpu": time.thread_time() - cpu}
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return record


class Timed(SearchTrial):
    """A trial whose epochs are watched."""

    def _build(self) -> None:
        super()._build()
        if not isinstance(self._epochs, Watched):
            self._epochs = Watched(self._epochs, self._folder / "marks.jsonl")


def epoch_cost(folder: Path) -> dict[str, float]:
    """Seconds of an epoch and between two, and the CPU seconds of the loop and of everything else, per epoch.

    Without the first epochs, in which MLflow is imported.
    """
    config = sweep_config(folder, "epoch", {"num_samples": 1, "max_concurrent": 1, "scheduler": "fifo"})
    totals: list[float] = []
    with Meter() as meter, mock.patch("ddarts_tuning.driver.fit._resourceful", partial(resourceful, trial=Timed)):

        def note(event: SweepEvent) -> None:
            if event.kind == "epoch":
                totals.append(meter.seconds())

        study = run_sweep(config, listener=note, num_cpus=2).study
    lines = (study.path / "trials" / "00000" / "marks.jsonl").read_text().splitlines()
    marks = [json.loads(line) for line in lines]
    between = [after["began"] - before["ended"] for before, after in pairwise(marks[1:])]
    cpu = statistics.mean(mark["cpu"] for mark in marks[2:])
    return {
        "epoch": statistics.mean(mark["ended"] - mark["began"] for mark in marks[2:]),
        "beside": statistics.mean(between),
        "longest": max(between),
        "cpu": cpu,
        "cpu_beside": (totals[-1] - totals[1]) / (len(totals) - 2) - cpu,
    }


# --- a trial --------------------------------------------------------------------------------------------------------


class Simulated(SearchTrial):
    """A trial whose epochs take no time; everything around them is real."""

    def _run_epoch(self) -> bool:
        epoch = len(self._records)
        score = 1 / (1 + abs(math.log(self._params["search.w_zero_one"]))) * (1 - 0.5 ** (epoch + 1))
        metrics = {"train/loss": 2 - score, "alpha/loss": 2 - score, "held_out/accuracy": score}
        self._keep(EpochRecord(epoch, "search", metrics, contributions=(-0.1,) * 8, seconds={"weights": 0.001}))
        if len(self._records) < SIMULATED_EPOCHS:
            return False
        self._write(objectives=self._objectives("held_out/accuracy", score))
        return True


def resourceful(config: Any, trial: type[SearchTrial]) -> Any:
    """As `fit._resourceful`, for trials of another kind."""
    from ray import tune

    return tune.with_resources(trial, {"cpu": 1})


def simulate(folder: Path, name: str, num_trials: int, searcher: str, reuse: bool = True) -> dict[str, float]:
    """Seconds and CPU seconds of each part of a sweep of simulated trials, and of the start of two trials more."""
    from ddarts_analysis.collect import collect
    from ray import tune

    config = sweep_config(
        folder, name, {"num_samples": num_trials, "scheduler": "asha", "searcher": searcher}, search=NETWORK["search"]
    )
    ends: list[tuple[float, float]] = []
    real = tune.TuneConfig

    def configured(**settings: Any) -> Any:
        return real(**{**settings, "reuse_actors": reuse})

    simulated = mock.patch("ddarts_tuning.driver.fit._resourceful", partial(resourceful, trial=Simulated))
    with Meter() as meter, simulated, mock.patch("ray.tune.TuneConfig", configured):

        def note(event: SweepEvent) -> None:
            if event.kind == "finished":
                ends.append((time.perf_counter(), meter.seconds()))

        study = run_sweep(config, listener=note, num_cpus=2).study
        began, cpu = time.perf_counter(), time.process_time()
        collect(study.path)
        collected = time.perf_counter() - began
        used = time.process_time() - cpu
        starts: list[tuple[float, float]] = []

        def note_start(event: SweepEvent) -> None:
            if event.kind == "started":
                starts.append((time.perf_counter(), meter.seconds()))

        resumed, spent = time.perf_counter(), meter.seconds()
        extend_sweep(config, 2, listener=note_start, num_cpus=2)
    # From the fourth end on: what starts once, Ray and the first two processes, is not a trial's.
    rest = len(ends) - 4
    return {
        "trial": (ends[-1][0] - ends[3][0]) / rest,
        "cpu": (ends[-1][1] - ends[3][1]) / rest,
        "first": _rate(ends[3:103]),
        "last": _rate(ends[-100:]),
        "collect": collected / num_trials,
        "collect_cpu": used / num_trials,
        "resume": starts[0][0] - resumed,
        "resume_cpu": starts[0][1] - spent,
    }


def _rate(ends: list[tuple[float, float]]) -> float:
    return (ends[-1][0] - ends[0][0]) / (len(ends) - 1)


# --- one training ---------------------------------------------------------------------------------------------------


def training_cost(folder: Path) -> list[tuple[str, float]]:
    """Seconds of an epoch of one training, the first epoch left out: by one process, and by two workers."""
    import ray

    config = resolve(TRAINING)
    genotype = ZOO["DARTS_V2"].genotype
    info, images = load_train(config.data)
    found, threads = [], torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        alone = Retrain(config.retrain, genotype, info, images, None, config.seed)
        found.append((f"one process, {count} thread{'s'[: count - 1]}", _epoch_seconds(alone.records())))
    torch.set_num_threads(threads)
    start_ray(num_cpus=2)
    workers = Workers(2, cpus=1, gpu=False, loopback=True)
    together = DistributedRetrain(config, genotype, config.seed, folder / "training", workers)
    found.append(("two workers, 1 thread each", _epoch_seconds(together.records())))
    ray.shutdown()
    return found


def _epoch_seconds(records: Iterator[EpochRecord]) -> float:
    return statistics.median([record.seconds["weights"] for record in records][1:])


# --- the page -------------------------------------------------------------------------------------------------------


def page(numbers: dict[str, Any]) -> str:
    """docs/platform_cost.md."""
    epoch, reused, fresh = numbers["epoch"], numbers["reused"], numbers["fresh"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "optuna", "mlflow"))
    text = [
        "# What the platform costs",
        "",
        "Written by `make bench-platform` (tests/benchmarks/platform.py), which takes some minutes.",
        "",
        f"Machine: {machine.processor() or machine.machine()}, {os.cpu_count()} cores, load {numbers['load']} before "
        f"the first row. Python {machine.python_version()}, {packages}. MLflow: the study's own sqlite database.",
        "",
        "## An epoch",
        "",
        f"One trial, {NETWORK['search']['num_cells']} cells, C = {NETWORK['search']['channels']}, batch "
        f"{NETWORK['search']['batch_size']}. Beside the loop: record, MLflow, checkpoint and Tune.",
        "",
        "| | seconds | CPU seconds, all processes |",
        "|---|---|---|",
        f"| the epoch itself | {epoch['epoch']:.3f} | {epoch['cpu']:.3f} |",
        f"| from one epoch to the next | {epoch['beside']:.3f} (longest {epoch['longest']:.3f}) | "
        f"{epoch['cpu_beside']:.3f} |",
        "",
        f"The goal is {GOAL_S} s, 2 % of an epoch of 10 s: this is {10 * epoch['beside']:.1f} % of one, and "
        f"{100 * epoch['beside'] / epoch['epoch']:.1f} % of the epoch above.",
        "MLflow is told by a thread of the trial, and Ray's daemons run all the time: they take CPU seconds, but no "
        "epoch waits for them.",
        "",
        "## A trial",
        "",
        f"Simulated trials of {SIMULATED_EPOCHS} epochs that take no time, ASHA, two at a time: everything but the "
        "search is real.",
        "",
        "| | seconds per trial | CPU seconds per trial |",
        "|---|---|---|",
        f"| processes are used again | {reused['trial']:.3f} | {reused['cpu']:.3f} |",
        f"| a process for each trial | {fresh['trial']:.3f} | {fresh['cpu']:.3f} |",
        "",
        "## Many trials",
        "",
        "The first and the last hundred: seconds per trial there. Collect: seconds per trial to write the Parquet "
        "dataset. Resume: seconds, and CPU seconds of all processes, until the first of two more trials starts, the "
        f"start of Ray included; the goal is {GOAL_RESUME_S:g} s with 1,000 finished trials.",
        "",
        "| searcher | trials | seconds per trial | CPU seconds | first hundred | last hundred | collect | resume | "
        "CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {searcher} | {count:,} | {row['trial']:.3f} | {row['cpu']:.3f} | {row['first']:.3f} | "
            f"{row['last']:.3f} | {row['collect']:.4f} | {row['resume']:.1f} | {row['resume_cpu']:.1f} |"
            for searcher, count, row in numbers["many"]
        ),
        "",
        *numbers["notes"],
        "",
        "## One training by several workers",
        "",
        f"`ddarts retrain` of DARTS_V2, {TRAINING['retrain']['num_cells']} cells, C = "
        f"{TRAINING['retrain']['channels']}, batch {TRAINING['retrain']['batch_size']}, on "
        f"{TRAINING['data']['num_train']} digits, on CPUs. Workers talk over loopback by gloo: the statistics of every "
        "batch normalisation, forwards and backwards, and the gradient.",
        "",
        "| | seconds per epoch | against one thread |",
        "|---|---|---|",
        *(
            f"| {who} | {seconds:.2f} | {numbers['training'][0][1] / seconds:.2f}x |"
            for who, seconds in numbers["training"]
        ),
    ]
    return "\n".join(text).rstrip() + "\n"


def notes(many: list[tuple[str, int, dict[str, float]]]) -> Iterator[str]:
    """By how much a trial grew, for each searcher."""
    for searcher in dict.fromkeys(name for name, _, _ in many):
        rows = [(count, row) for name, count, row in many if name == searcher]
        if len(rows) > 1:
            (few, small), (lots, large) = rows[0], rows[-1]
            yield (
                f"- {searcher}: a trial of {lots:,} takes {large['trial'] / small['trial']:.2f} times the seconds and "
                f"{large['cpu'] / small['cpu']:.2f} times the CPU seconds of a trial of {few:,}."
            )


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--searchers", nargs="+", default=["random", "optuna-tpe"])
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    numbers: dict[str, Any] = {"load": f"{os.getloadavg()[0]:.1f}", "many": []}
    folder = Path(tempfile.mkdtemp(prefix="ddarts-platform-"))
    try:
        numbers["epoch"] = epoch_cost(folder)
        numbers["fresh"] = simulate(folder, "fresh", 16, "random", reuse=False)
        numbers["reused"] = simulate(folder, "reused", 16, "random")
        numbers["training"] = training_cost(folder)
        print(numbers["training"], flush=True)
        for searcher in arguments.searchers:
            for count in arguments.trials:
                row = simulate(folder, f"{searcher}-{count}", count, searcher)
                numbers["many"].append((searcher, count, row))
                print(searcher, count, {key: round(value, 4) for key, value in row.items()}, flush=True)
    finally:
        shutil.rmtree(folder)
    numbers["notes"] = list(notes(numbers["many"]))
    text = page(numbers)
    write_atomic(arguments.page, text)
    print(text)


if __name__ == "__main__":
    main()
