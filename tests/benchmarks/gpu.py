"""`make gpu`: what must be seen on a GPU, in about eight minutes: tests that need one, then measurements.

The page and its numbers are written after each row, so that a run that is cut off keeps what it has. It needs torch and
what `ddarts_core` imports, and neither Ray nor MLflow; a row that lacks something is left out, and the page says why.
Everything also runs on a CPU (`make gpu DEVICE=cpu ROWS=smallest`), to see that it does: the numbers mean nothing then,
and go into build/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.networks.network import Network
from ddarts_core.tensors.devices import AUTOCAST
from ddarts_core.training.parallel import ALONE, Group
from tests.benchmarks import works
from tests.benchmarks.bench import COMPILED_ON_A_GPU, ON_A_GPU, OPTIONS, clock, machine, say
from tests.benchmarks.counts import Meter
from tests.benchmarks.works import Shape, Step

Numbers = dict[str, Any]

#: What the published code searches on one GPU; and what a CPU runs in seconds.
SEARCH = {"cuda": Shape(batch=128, device="cuda"), "cpu": Shape(cells=3, channels=4, image=8, batch=8, nodes=1)}

#: Batches of which the images per second are measured.
BATCHES = {"cuda": (32, 64, 128, 256), "cpu": (4, 8)}

#: The derived network that is trained: channels, cells, pixels, images of a batch (DARTS' own for CIFAR-10).
TRAINING = {"cuda": (36, 20, 32, 96), "cpu": (4, 3, 8, 8)}

#: Searches that share a GPU, each with its share of the memory.
TRIALS = 4


class LeftOut(Exception):
    """A row cannot run here; says why."""


# --- rows: each yields (name, numbers) as soon as it knows them -----------------------------------------------------


def tests(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """The tests that are skipped without a GPU."""
    if importlib.util.find_spec("pytest") is None:
        raise LeftOut("pytest is not installed")
    began = time.perf_counter()
    words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/core"]
    found = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    lines = found.stdout.strip().splitlines() or [found.stderr.strip()]
    yield "outcome", {"exit status": found.returncode, "summary": lines[-1], "seconds": time.perf_counter() - began}


def epoch(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """A search epoch of two steps, data and evaluation included, beside the textbook's."""
    shape = SEARCH[device]
    yield from _seconds(shape, {"ours": works.our_epoch(shape, 2), "textbook": works.textbook_epoch(shape, 2)}, rounds)


def batches(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """Images per second and peak memory of one search step, by batch."""
    for batch in BATCHES[device]:
        shape = Shape(**{**vars(SEARCH[device]), "batch": batch})
        for name, found in _seconds(shape, {str(batch): works.our_iteration(shape, "monitor", "random")[1]}, rounds):
            yield name, found | {"images per second": batch / found["seconds"]}


def options(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """A weight step under each way to run it: seconds, launches, peak memory."""
    ways = OPTIONS | (ON_A_GPU if device == "cuda" else {})
    for name, overrides in ways.items():
        yield from _seconds(SEARCH[device], {name: works.our_weight_step(SEARCH[device], *overrides)[1]}, rounds)


def compiled(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """The same compiled, and replayed as CUDA graphs; compiling is not counted."""
    if device != "cuda":
        raise LeftOut("CUDA graphs need a GPU")
    for name, overrides in COMPILED_ON_A_GPU.items():
        yield from _seconds(SEARCH[device], {name: works.our_weight_step(SEARCH[device], *overrides)[1]}, rounds)


def training(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """A training step of a derived network (DARTS_V2): plain float32 in torch's own layout, and ours."""
    channels, cells, size, batch = TRAINING[device]
    shape = Shape(batch=batch, image=size, device=device)
    kinds = {"plain": (torch.contiguous_format, "none"), "channels_last": (torch.channels_last, "none")}
    kinds["channels_last bf16"] = (torch.channels_last, "bf16")
    steps = {name: training_step(shape, channels, cells, *kind) for name, kind in kinds.items()}
    yield from _seconds(shape, steps, rounds)


def training_step(
    shape: Shape, channels: int, cells: int, layout: torch.memory_format, amp: str, group: Group = ALONE
) -> Step:
    """One SGD step, with the auxiliary head; of several processes on their share of the batch."""
    torch.manual_seed(0)
    genotype = ZOO["DARTS_V2"].genotype
    net = Network(genotype, channels, 10, 3, shape.image, auxiliary=True, num_cells=cells).train()
    net.to(shape.device, memory_format=layout)  # type: ignore[call-overload]  # torch's stubs know no memory_format
    trained = group.distribute(net)
    images, labels = shape.batch_of(layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)

    def step() -> None:
        with torch.autocast(shape.device, AUTOCAST.get(amp, torch.bfloat16), enabled=amp in AUTOCAST):
            logits, auxiliary = trained(images)
        (F.cross_entropy(logits.float(), labels) + 0.4 * F.cross_entropy(auxiliary.float(), labels)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        sgd.step()
        sgd.zero_grad()

    return step


def fractions(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """Four searches at a time, each with a quarter of the memory, beside one alone: weight steps per second of all."""
    for trials in (1, TRIALS):
        context = multiprocessing.get_context("spawn")
        answers: Any = context.SimpleQueue()
        ready = context.Barrier(trials)
        processes = [
            context.Process(target=_trial, args=(device, 1 / TRIALS, 5 * rounds, ready, answers)) for _ in range(trials)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise LeftOut(f"a trial of {trials} ended with exit status {[process.exitcode for process in processes]}")
        seconds = [answers.get() for _ in processes]
        yield f"{trials} at a time", {"steps per second": trials * 5 * rounds / max(seconds), "seconds": max(seconds)}


def _trial(device: str, share: float, steps: int, ready: Any, answers: Any) -> None:
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(share)
    else:
        torch.set_num_threads(1)
    shape = SEARCH[device]
    step = works.our_weight_step(shape)[1]
    step()
    ready.wait()
    began = clock(shape)
    for _ in range(steps):
        step()
    answers.put(clock(shape) - began)


def pair(device: str, rounds: int) -> Iterator[tuple[str, Numbers]]:
    """A training by two processes, each with a GPU and half of every batch, beside one with whole batches."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        raise LeftOut(f"it needs two GPUs, and there is {torch.cuda.device_count()}")
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            answers: Any = multiprocessing.get_context("spawn").SimpleQueue()
            torch.multiprocessing.spawn(_member, (device, count, 5 * rounds, f"{folder}/meet", answers), nprocs=count)
            yield f"{count} together", {"seconds": max(answers.get() for _ in range(count)) / (5 * rounds)}


def _member(rank: int, device: str, count: int, steps: int, meet: str, answers: Any) -> None:
    channels, cells, size, batch = TRAINING[device]
    if device == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{meet}", rank=rank, world_size=count)
    shape = Shape(batch=batch // count, image=size, device=device)
    step = training_step(shape, channels, cells, torch.channels_last, "none", Group.joined())
    step()
    torch.distributed.barrier()
    began = clock(shape)
    for _ in range(steps):
        step()
    answers.put(clock(shape) - began)
    torch.distributed.destroy_process_group()


#: Rows in their order: what is most worth knowing first.
ROWS: Mapping[str, Callable[[str, int], Iterator[tuple[str, Numbers]]]] = {
    "tests": tests,
    "options": options,
    "batches": batches,
    "epoch": epoch,
    "training": training,
    "fractions": fractions,
    "compiled": compiled,
    "pair": pair,
}


# --- running and writing --------------------------------------------------------------------------------------------


def _seconds(shape: Shape, steps: Mapping[str, Step], rounds: int) -> Iterator[tuple[str, Numbers]]:
    """Median seconds of each over interleaved rounds after one that warms up, with peak memory and launches."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, step in steps.items():
            if shape.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = clock(shape)
            step()
            if number:
                found[name].append(clock(shape) - began)
            if shape.device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated()
    for name, step in steps.items():
        with Meter() as meter:
            step()
        peak = {"peak MiB": round(peaks[name] / 2**20)} if peaks else {}
        yield name, {"seconds": statistics.median(found[name]), "launches": meter.launches, **peak}


def main(arguments: list[str] | None = None) -> int:
    """Run rows one after the other, and write page and numbers after each."""
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of {', '.join(ROWS)}; or smallest")
    parser.add_argument("--rounds", type=int, default=3, help="that are timed, after one that warms up")
    parser.add_argument("--seconds", type=float, default=480, help="after which no row begins")
    parser.add_argument("--out", type=Path, help="folder of page and numbers (docs/, of a CPU build/)")
    options = parser.parse_args(arguments)
    names = ["options"] if options.rows == "smallest" else options.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"unknown row {unknown[0]}: choose from {', '.join(ROWS)}, or smallest")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: use --device cpu to see that everything runs")
    folder = options.out or Path("docs" if options.device == "cuda" else "build")
    folder.mkdir(parents=True, exist_ok=True)
    numbers: Numbers = {
        "machine": machine(SEARCH[options.device]),
        "device": options.device,
        "rows": {},
        "left out": {},
    }
    began = time.perf_counter()
    for name in names:
        say(f"row {name}")
        try:
            if time.perf_counter() - began > options.seconds:
                raise LeftOut(f"{options.seconds:g} seconds were over")
            for what, found in ROWS[name](options.device, options.rounds):
                numbers["rows"].setdefault(name, {})[what] = found
                say(f"  {what}: {found}")
        except LeftOut as reason:
            numbers["left out"][name] = str(reason)
        except (RuntimeError, OSError, ImportError) as error:  # the next row may do: a run on a lent machine comes once
            numbers["left out"][name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if name in numbers["left out"]:
            say(f"  left out: {numbers['left out'][name]}")
        (folder / "performance-gpu.json").write_text(json.dumps(numbers, indent=1) + "\n")
        (folder / "performance-gpu.md").write_text(render(numbers), encoding="utf-8")
    say(f"wrote {folder / 'performance-gpu.md'}")
    return int(numbers["rows"].get("tests", {}).get("outcome", {}).get("exit status", 0) != 0)


def render(numbers: Mapping[str, Any]) -> str:
    """The page."""
    shape, machine_of = SEARCH[numbers["device"]], numbers["machine"]
    channels, cells, size, batch = TRAINING[numbers["device"]]
    lines = [
        "# Performance on a GPU",
        "",
        f"Written by `make gpu` (tests/benchmarks/gpu.py). Machine: {machine_of['device']}, torch "
        f"{machine_of['torch']}, Python {machine_of['python']}. Medians over interleaved rounds after one "
        "that warms up.",
        "",
        f"Supernet: {shape.cells} cells, C = {shape.channels}, {shape.image}x{shape.image} images, batch "
        f"{shape.batch}. Derived network: {cells} cells, C = {channels}, {size}x{size}, batch {batch}.",
    ]
    for name, found in numbers["rows"].items():
        keys = list(dict.fromkeys(key for one in found.values() for key in one))
        lines += ["", f"## {name.capitalize()}", "", ROWS[name].__doc__ or "", ""]
        lines += [f"| | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
        lines += [f"| {what} | {' | '.join(_cell(one.get(key, '')) for key in keys)} |" for what, one in found.items()]
    if numbers["left out"]:
        lines += ["", "## Left out", "", *(f"- {name}: {why}" for name, why in numbers["left out"].items())]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
