"""`make bench`: the search step against the literal textbook transcription; writes docs/performance.md.

Rows can be run one at a time (`--rows counts`, `--rows steps,epoch`): each run adds to the file of numbers from which
the page is written. Timed pairs are interleaved, a round of all of them at a time; a page shows medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from ddarts_core.methods import METHODS
from tests.benchmarks import kernels, page, small, training, works
from tests.benchmarks.counts import count
from tests.benchmarks.works import Shape

ROWS = ("counts", "steps", "iterations", "methods", "epoch", "options", "growth", "kernels", "training", "small")
#: Rows that only run when they are named: compiling takes minutes.
SLOW = ("compile",)
#: Threads of a row on a CPU, where it is more than one.
THREADS = {"iterations": 2}
Numbers = dict[str, Any]

#: Steps by name, timed or counted.
STEPS: dict[str, Callable[[Shape], Any]] = {
    "textbook alpha": works.textbook_alpha_step,
    "textbook weights": works.textbook_weight_step,
    "alpha none": lambda shape: works.our_alpha_step(shape, "none", "random"),
    "alpha monitor random": lambda shape: works.our_alpha_step(shape, "monitor", "random"),
    "alpha monitor identity": lambda shape: works.our_alpha_step(shape, "monitor", "identity"),
    "alpha centered identity": lambda shape: works.our_alpha_step(shape, "centered", "identity"),
    "weights": works.our_weight_step,
}

#: Steps whose counts are followed when the supernet grows.
GROWING = {"forward pass": works.our_forward_pass} | {
    name: STEPS[name] for name in ("weights", "alpha none", "alpha monitor identity", "alpha centered identity")
}

#: Ways to run ours, by the settings that ask for them.
OPTIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "readable": ("search.implementation=readable",),
    "contiguous": ("search.memory_format=contiguous",),
    "checkpoint_cells": ("search.checkpoint_cells=true",),
    "bf16": ("search.amp=bf16",),
}
ON_A_GPU = {"tf32": ("search.amp=tf32",), "fp16": ("search.amp=fp16",)}
COMPILED = {"compile default": ("search.compile=default",)}
COMPILED_ON_A_GPU = {"compile reduce-overhead": ("search.compile=reduce-overhead",)}


def main(arguments: list[str] | None = None) -> None:
    """Run rows, merge their numbers into the stored ones, write the page."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of {', '.join(ROWS + SLOW)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of timed pairs")
    parser.add_argument("--quick", action="store_true", help="a tiny supernet, to see that everything runs")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--numbers", type=Path, default=Path("docs/performance.json"), help="numbers of all rows so far"
    )
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args(arguments)
    unknown = set(options.rows.split(",")) - set(ROWS + SLOW)
    if unknown:
        parser.error(f"unknown rows {', '.join(sorted(unknown))}: choose from {', '.join(ROWS + SLOW)}")
    shape = Shape(batch=options.batch, device=options.device)
    if options.quick:
        shape = Shape(cells=3, channels=4, image=8, batch=8, device=options.device, nodes=1)
    numbers: Numbers = json.loads(options.numbers.read_text()) if options.numbers.exists() else {}
    if numbers.get("shape", vars(shape)) != vars(shape):
        parser.error(f"{options.numbers} holds numbers of another shape: name another file with --numbers")
    numbers["shape"] = vars(shape)
    numbers.setdefault("machine", machine(shape))

    def store() -> None:
        options.numbers.parent.mkdir(parents=True, exist_ok=True)
        options.numbers.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(page.render(numbers), encoding="utf-8")

    for row in options.rows.split(","):
        say(f"row {row}")
        if options.device == "cpu":
            torch.set_num_threads(1 if options.quick else THREADS.get(row, 1))
        numbers.setdefault("machines", {})[row] = machine(shape)
        RUN[row](shape, options.rounds, numbers.setdefault("options" if row == "compile" else row, {}), store)
        store()
    say(f"wrote {options.page}")


def counts(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Multiply-adds, launches and kept bytes of every step."""
    for name, make in STEPS.items():
        numbers[name] = vars(count(partial(make, shape)))
        say(f"  {name}: {numbers[name]}")
    checkpointed = partial(works.our_weight_step, shape, *OPTIONS["checkpoint_cells"])
    numbers["weights checkpoint_cells"] = vars(count(checkpointed))
    store()


def steps(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Seconds of every step, one round of all after another."""
    timed(shape, {name: make(shape)[1] for name, make in STEPS.items()}, rounds, numbers, store)


def iterations(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Seconds of iterations of DARTS and D-DARTS beside plain loops, and what bounds them; half the batch."""
    if shape.device != "cpu":
        say("  this row is measured on a CPU")
        return
    of = replace(shape, batch=shape.batch // 2)
    numbers |= {"batch": of.batch, "threads": torch.get_num_threads(), "rates": kernels.rates(of)}
    darts = {"plain": works.plain_darts, "our": works.our_darts}
    found = numbers.setdefault("counts", {})
    for whose, make in darts.items():
        found[f"{whose} alpha"] = vars(count(lambda make=make: itemgetter(0, 1)(make(of))))
        found[f"{whose} weights"] = vars(count(lambda make=make: itemgetter(0, 2)(make(of))))
    work: dict[str, Callable[[], object]] = {}
    for whose, make in darts.items():
        _, work[f"{whose} alpha"], work[f"{whose} weights"] = make(of)
    work["textbook iteration"] = works.textbook_full_step(of)[1]
    work["monitor iteration"] = works.our_iteration(of, "monitor", "random")[1]
    work["centered iteration"] = works.our_iteration(of, "centered", "identity")[1]
    timed(of, work, rounds, numbers.setdefault("seconds", {}), store)


def methods(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Seconds of one search step of every method, and of the textbook's."""
    if shape.device != "cpu":
        say("  this row is measured on a CPU")
        return
    work = {"textbook": works.textbook_full_step(shape)[1]}
    timed(shape, work | {name: works.method_step(shape, name)[1] for name in METHODS}, rounds, numbers, store)


def epoch(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Seconds of a short epoch: two steps, data, evaluation."""
    work = {"textbook": works.textbook_epoch(shape, 2), "ours": works.our_epoch(shape, 2)}
    timed(shape, work, rounds, numbers, store, warm=False)


def options(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Seconds of a weight step and of an alpha step under each option."""
    _under(shape, OPTIONS if shape.device == "cpu" else OPTIONS | ON_A_GPU, rounds, numbers, store)


def compiled(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """The same for torch.compile; what it takes to compile is not counted."""
    _under(shape, COMPILED if shape.device == "cpu" else COMPILED | COMPILED_ON_A_GPU, rounds, numbers, store)


def _under(
    shape: Shape, settings: dict[str, tuple[str, ...]], rounds: int, numbers: Numbers, store: Callable[[], None]
) -> None:
    work: dict[str, Callable[[], object]] = {}
    for name, overrides in settings.items():
        work[f"weights {name}"] = works.our_weight_step(shape, *overrides)[1]
        work[f"alpha {name}"] = works.our_alpha_step(shape, "none", "random", *overrides)[1]
    timed(shape, work, rounds, numbers, store)


def single_kernels(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Milliseconds of depthwise convolutions and of merged edges."""
    for kernel, stride, dilation in kernels.CONVOLUTIONS:
        numbers[f"depthwise {kernel}x{kernel} stride {stride} dilation {dilation}"] = kernels.depthwise_row(
            shape, kernel, stride, dilation
        )
    for scale in (1, 2, 4):
        for edges in kernels.STACKED:
            channels, image = shape.channels * scale, shape.image // scale
            numbers[f"merged {channels}x{image}x{image} edges {edges}"] = kernels.merged_row(
                shape, channels, image, edges
            )
    store()


def trained(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Steps of a derived network's training, plain and ours, seconds and counts, with growth; augmentation."""
    for grown, of in training.grown(shape).items():
        steps = {name: make for name, make in training.STEPS.items() if not (grown and "full" in name)}
        found = numbers.setdefault(grown or "shape", {"seconds": {}})
        found["counts"] = {name: vars(count(partial(make, of))) for name, make in steps.items()}
        work = {name: make(of)[1] for name, make in steps.items()}
        timed(of, work, rounds, found["seconds"], store, now=clock if of.device != "cpu" else own_clock)
    for recipe in training.WHOLE_BATCHES:
        numbers.setdefault("augmentation", {})[recipe] = training.augmentation(shape, recipe, 5)
    store()


def growth(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Counts with cells, width and batch, each from the row's own shape."""
    base = vars(shape)
    factors = {"cells": (0.5, 1, 2), "channels": (0.5, 1, 2), "batch": (0.25, 1, 2)}
    for field, scale in factors.items():
        for factor in scale:
            value = max(3, int(base[field] * factor))
            of = Shape(**{**base, field: value})
            for name, make in GROWING.items():
                numbers[f"{field}={value} {name}"] = vars(count(partial(make, of)))
            say(f"  {field}={value}")
        store()


def small_trial(shape: Shape, rounds: int, numbers: Numbers, store: Callable[[], None]) -> None:
    """Counts and seconds of a trial of the first sweep, by part, and counts of trials that are stacked."""
    numbers.update(small.row(rounds))
    store()


def timed(
    shape: Shape,
    work: dict[str, Callable[[], object]],
    rounds: int,
    numbers: Numbers,
    store: Callable[[], None],
    *,
    warm: bool = True,
    now: Callable[[Shape], float] | None = None,
) -> None:
    """Append the seconds of `rounds` interleaved rounds; the first run of each is not counted if `warm`."""
    now = now or clock
    for number in range(rounds):
        for name, step in work.items():
            if warm and number == 0 and not name.startswith("textbook"):
                step()
            began = now(shape)
            step()
            numbers.setdefault(name, []).append(now(shape) - began)
        say("  " + ", ".join(f"{name} {statistics.median(numbers[name]):.2f} s" for name in work))
        store()


def own_clock(shape: Shape) -> float:
    """Seconds that this process has computed for, which with one thread other programs disturb least."""
    return time.process_time()


def clock(shape: Shape) -> float:
    """Seconds, when all that was launched is done."""
    if shape.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def machine(shape: Shape) -> Numbers:
    """What a reader must know to judge seconds."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    device = cpu if shape.device == "cpu" else torch.cuda.get_device_name()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def say(text: str) -> None:
    """Progress, at once."""
    print(text, file=sys.stderr, flush=True)


RUN = {
    "counts": counts,
    "steps": steps,
    "iterations": iterations,
    "methods": methods,
    "epoch": epoch,
    "options": options,
    "growth": growth,
    "kernels": single_kernels,
    "training": trained,
    "small": small_trial,
    "compile": compiled,
}

if __name__ == "__main__":
    main()
