"""docs/performance.md from the numbers of `bench`."""

from __future__ import annotations

import statistics
from typing import Any

Numbers = dict[str, Any]

GOALS = (
    ("alpha step, no ablation", "textbook alpha", "alpha none", 9.0),
    ("alpha step, `monitor`, random removal", "textbook alpha", "alpha monitor random", 5.0),
    ("alpha step, `monitor`, identity removal", "textbook alpha", "alpha monitor identity", None),
    ("alpha step, `centered`", "textbook alpha", "alpha centered identity", 3.0),
    ("weight step", "textbook weights", "weights", 1.5),
)


CAVEAT = (
    "Medians of interleaved rounds. With fewer than three rounds, or a load above the number of cores, the ratios are",
    "rough too: the textbook's alpha step runs longest and needs most memory, so it suffers most from other programs.",
)


def render(numbers: Numbers) -> str:
    """The whole page; rows that were not run yet are left out."""
    shape = numbers["shape"]
    others = [f"Row `{row}`: {_of(machine)}" for row, machine in numbers.get("machines", {}).items()]
    text = [
        "# Performance",
        "",
        "Written by `make bench` (tests/benchmarks): the search step against the literal textbook transcription",
        "(tests/core/textbook.py, in torch's own layout), on the same weights. The alpha rows are compared with the",
        "published alpha step, which passes the network n + 2 times forwards and n times backwards for n cells.",
        "",
        f"Supernet: {shape['cells']} cells, C = {shape['channels']}, 3x{shape['image']}x{shape['image']}, batch "
        f"{shape['batch']}. Machine: {_of(numbers['machine'])}",
        *others,
        "",
        "    make bench                         every row; make bench BENCH='--rows counts' one of them",
        "",
    ]
    steps, counts = numbers.get("steps"), numbers.get("counts")
    if steps or numbers.get("epoch"):
        text += [
            "## Time",
            "",
            *CAVEAT,
            "",
        ]
        text += _times(steps or {}, numbers.get("epoch") or {}, 5.0 if shape["device"] == "cpu" else 10.0)
    if numbers.get("iterations"):
        text += ["## Iterations", "", *_iterations(numbers["iterations"])]
    if numbers.get("methods"):
        text += ["## Methods", "", *_methods(numbers["methods"])]
    if counts:
        text += ["## Counts", "", *_counts(counts)]
    if numbers.get("options"):
        text += ["## Options", "", *_options(numbers["options"])]
    if numbers.get("growth"):
        text += ["## Growth", "", *_growth(numbers["growth"], shape["cells"])]
    if numbers.get("kernels"):
        text += ["## Single convolutions", "", *_kernels(numbers["kernels"])]
    if numbers.get("small"):
        text += ["## Small trials", "", *_small(**numbers["small"])]
    if numbers.get("training"):
        text += ["## Training of a derived network", "", *_training(numbers["training"], shape)]
    every = ("counts", "steps", "iterations", "methods", "epoch", "options", "growth", "kernels", "training", "small")
    absent = [row for row in every if not numbers.get(row)]
    if absent:
        text += [f"Not run yet: {', '.join(absent)}.", ""]
    return "\n".join([*text, NOTES.strip(), ""])


def _times(steps: Numbers, epoch: Numbers, goal_of_epoch: float) -> list[str]:
    lines = ["| work | textbook, s | ours, s | ratio | goal | rounds |", "|---|---|---|---|---|---|"]
    pairs = [(name, steps.get(theirs), steps.get(ours), goal) for name, theirs, ours, goal in GOALS]
    pairs.append(("search epoch, data included, `monitor`", epoch.get("textbook"), epoch.get("ours"), goal_of_epoch))
    for name, theirs, ours, goal in pairs:
        if theirs and ours:
            a, b = statistics.median(theirs), statistics.median(ours)
            lines.append(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.1f}x | {_goal(goal)} | {len(ours)} |")
    return [*lines, ""]


#: Work, what it is made of in the plain form and in ours, goal.
ITERATIONS = (
    ("first-order DARTS, alpha step", ("plain alpha",), ("our alpha",), None),
    ("first-order DARTS, weight step", ("plain weights",), ("our weights",), 3.5),
    ("first-order DARTS, iteration", ("plain alpha", "plain weights"), ("our alpha", "our weights"), 4.0),
    ("published iteration, `monitor`", ("textbook iteration",), ("monitor iteration",), 12.0),
    ("published iteration, `centered`", ("textbook iteration",), ("centered iteration",), None),
)


def _iterations(found: Numbers) -> list[str]:
    seconds = {name: statistics.median(times) for name, times in found["seconds"].items()}
    rates = found["rates"]
    lines = [
        f"Batch {found['batch']}, threads: {found['threads']}. DARTS beside a plain loop: softmax gates, operations",
        "of an edge in turn, torch's own layout (`plain_darts` in tests/benchmarks/works.py). D-DARTS and the",
        "published iteration: alphas with ablations, then weights.",
        "",
        "| work | plain, s | ours, s | ratio | goal | rounds |",
        "|---|---|---|---|---|---|",
    ]
    for name, plain, ours, goal in ITERATIONS:
        a, b = (sum(seconds[part] for part in parts) for parts in (plain, ours))
        rounds = len(found["seconds"][ours[0]])
        lines.append(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.1f}x | {_goal(goal)} | {rounds} |")
    lines += [
        "",
        "How near steps of DARTS are to what this machine can do. In the same run a dense convolution did "
        f"{rates['macs'] / 1e9:.0f} 10^9",
        f"multiply-adds a second, and a copy read and wrote {rates['bytes'] / 2**30:.1f} GiB a second. Bytes moved are "
        "those of all that kernels read",
        "and write, as if no cache spared any. The last column: seconds, over the larger of the two bounds.",
        "",
        "| step | multiply-adds, 10^9 | moved, GiB | launches | by multiply-adds, s | by bytes, s | measured, s | "
        "of the bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, counts in found["counts"].items():
        by = [counts["macs"] / rates["macs"], counts["moved"] / rates["bytes"]]
        amounts = f"{counts['macs'] / 1e9:.1f} | {counts['moved'] / 2**30:.1f} | {counts['launches']}"
        times = f"{by[0]:.2f} | {by[1]:.2f} | {seconds[name]:.2f} | {seconds[name] / max(by):.1f}x"
        lines.append(f"| {name} | {amounts} | {times} |")
    return [*lines, ""]


def _of(machine: Numbers) -> str:
    """The machine that a row was measured on; seconds of rows of two machines are not compared."""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''} used"
    return (
        f"{machine['device']}, {machine['cores']} cores, {threads}, {machine['capability']}; "
        f"load {machine['load']} when it began. torch {machine['torch']}, Python {machine['python']}."
    )


def _methods(found: Numbers) -> list[str]:
    textbook = statistics.median(found["textbook"])
    lines = [
        "One search step of every method: alphas, where gradients train them, then weights; beside the textbook's step",
        f"of D-DARTS, {textbook:.2f} s. Of several networks it is the first; DARTOpti has the cells of its start.",
        "",
        "| method | step, s | textbook / method |",
        "|---|---|---|",
    ]
    for name in found:
        if name != "textbook":
            seconds = statistics.median(found[name])
            lines.append(f"| {name} | {seconds:.2f} | {textbook / seconds:.1f}x |")
    return [*lines, ""]


def _goal(goal: float | None) -> str:
    return "" if goal is None else f">= {goal:g}x"


def _counts(counts: Numbers) -> list[str]:
    lines = [
        "Multiply-adds of convolutions (recomputed ones included), kernel launches (operations dispatched, without",
        "views; an optimiser's included), and the most bytes of activations kept for backward passes at one time.",
        "",
        "| step | multiply-adds, 10^9 | launches | kept, MiB |",
        "|---|---|---|---|",
    ]
    for name, found in counts.items():
        lines.append(f"| {name} | {found['macs'] / 1e9:.1f} | {found['launches']} | {found['kept'] / 2**20:.0f} |")
    theirs = [counts["textbook alpha"], counts["textbook weights"]]
    ours = [counts["alpha monitor random"], counts["weights"]]
    launches = [sum(found["launches"] for found in of) for of in (ours, theirs)]
    kept = [max(found["kept"] for found in of) for of in (ours, theirs)]
    forwards = counts["alpha none"]["macs"] / counts["weights"]["macs"]
    return [
        *lines,
        "",
        "| of one search step (alphas, `monitor` with random removal, then weights) | ours / textbook | goal |",
        "|---|---|---|",
        f"| kernel launches | {launches[0] / launches[1]:.3f} | <= 0.25 |",
        f"| activations kept at the peak | {kept[0] / kept[1]:.3f} | <= 0.333 |",
        f"| multiply-adds of an alpha step without ablation, against a weight step | {forwards:.2f} | <= 1.1 |",
        "",
    ]


def _options(found: Numbers) -> list[str]:
    lines = [
        "Seconds of ours; `default` is what `search.implementation: auto` chooses on this device. Runs of their own:",
        "compare them with each other, not with the table above.",
        "",
    ]
    lines += ["| option | weight step, s | alpha step, s |", "|---|---|---|"]
    for name in dict.fromkeys(key.partition(" ")[2] for key in found):
        weights, alpha = (statistics.median(found[f"{kind} {name}"]) for kind in ("weights", "alpha"))
        lines.append(f"| {name} | {weights:.2f} | {alpha:.2f} |")
    return [*lines, ""]


def _growth(found: Numbers, cells: int) -> list[str]:
    lines = [
        "Counts of ours when one number changes. The last column: the multiply-adds that the ablations add to an alpha",
        "step, in forward passes of half the network per cell.",
        "",
        "| supernet | step | multiply-adds, 10^9 | launches | kept, MiB | ablations |",
        "|---|---|---|---|---|---|",
    ]
    for key, one in found.items():
        where, _, step = key.partition(" ")
        added = f"{ablations(found, where, cells):.2f}" if step == "alpha monitor identity" else ""
        row = (
            f"| {where} | {step} | {one['macs'] / 1e9:.1f} | {one['launches']} | {one['kept'] / 2**20:.0f} | {added} |"
        )
        lines.append(row)
    return [*lines, ""]


def ablations(found: Numbers, where: str, cells: int) -> float:
    """What `monitor` adds to an alpha step, in forward passes of half the network per cell."""
    monitor, none, forward = (
        found[f"{where} {step}"]["macs"] for step in ("alpha monitor identity", "alpha none", "forward pass")
    )
    cells = int(where.removeprefix("cells=")) if where.startswith("cells=") else cells
    return (monitor - none) / (cells * forward / 2)


def _kernels(found: Numbers) -> list[str]:
    lines = [
        "Milliseconds of one depthwise convolution, and of its gradients as the library computes them and as",
        "`ddarts_core/networks/depthwise.py` rewrites them.",
        "",
        "| depthwise convolution | forward | input: library | ours | weights: library | ours |",
        "|---|---|---|---|---|---|",
    ]
    for key, one in found.items():
        kind, _, what = key.partition(" ")
        if kind == "depthwise":
            names = ("forward", "library_input", "our_input", "library_weight", "our_weight")
            lines.append(f"| {what} | " + " | ".join(f"{one[name]:.2f}" for name in names) + " |")
    lines += [
        "",
        "Milliseconds per edge of a separable half (depthwise, pointwise) forwards and backwards, when the inputs of",
        "several edges are stacked as one tensor.",
        "",
        "| input of an edge | edges | stacked, MiB | per edge |",
        "|---|---|---|---|",
    ]
    for key, one in found.items():
        kind, _, what = key.partition(" ")
        if kind == "merged":
            where, _, edges = what.partition(" edges ")
            lines.append(f"| {where} | {edges} | {one['mebibytes']:.0f} | {one['per_edge']:.2f} |")
    return [*lines, ""]


def _training(found: Numbers, shape: Numbers) -> list[str]:
    lines = [
        "One training step of DARTS_V2 in the shape above, beside a plain loop in torch's own layout with torch's",
        "optimiser (tests/benchmarks/training.py). `full` adds the auxiliary head, drop-path of operations and the",
        "average of weights. Other rows change one number. Goal: >= 1.6x. On a CPU the seconds are those that the",
        "process itself computed for, with one thread. With fewer than three rounds the ratios are rough.",
        "",
        "| network | plain, s | ours, s | ratio | launches, plain | ours | kept, MiB, plain | ours | rounds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = statistics.median(found["shape"]["seconds"]["ours"])
    for where in ("shape", *(key for key in found if "=" in key)):
        one = found[where]
        for plain in (name for name in one["seconds"] if name.startswith("plain")):
            ours = plain.replace("plain", "ours")
            a, b = (statistics.median(one["seconds"][name]) for name in (plain, ours))
            name = ", ".join(part for part in (where.removeprefix("shape") or "as above", plain[7:]) if part)
            counts = [one["counts"][name] for name in (plain, ours)]
            launches = " | ".join(str(count["launches"]) for count in counts)
            kept = " | ".join(f"{count['kept'] / 2**20:.0f}" for count in counts)
            rounds = len(one["seconds"][ours])
            lines.append(f"| {name} | {a:.3f} | {b:.3f} | {a / b:.2f}x | {launches} | {kept} | {rounds} |")
    lines += [
        "",
        f"Images of a whole batch of {shape['batch']} from memory, augmented and normalised, by the clock;",
        "goal: < 3 % of our step.",
        "",
        "| recipe | batch, s | of our step |",
        "|---|---|---|",
    ]
    for recipe, seconds in found.get("augmentation", {}).items():
        lines.append(f"| {recipe} | {seconds:.4f} | {100 * seconds / base:.1f} % |")
    return [*lines, ""]


def _small(parts: Numbers, seconds: Numbers, stacked: Numbers) -> list[str]:
    whole = sum(part["launches"] * part["times"] for part in parts.values())
    derived = parts["steps of the derived network"]
    alone = stacked["alone, fast"]
    lines = [
        "One trial of `make sweep` (experiments/quickstart_sweep.yaml, without what the sweep varies), on 8x8 pixels.",
        "Launches of optimisers are included, several for each weight.",
        "",
        "| part of a trial | times | launches of one | multiply-adds of one, 10^6 | launches of the trial |",
        "|---|---|---|---|---|",
    ]
    for name, part in parts.items():
        share = 100 * part["launches"] * part["times"] / whole
        lines.append(f"| {name} | {part['times']} | {part['launches']} | {part['macs'] / 1e6:.1f} | {share:.0f} % |")
    lines += [
        "",
        "CPU milliseconds of one step, with one thread, beside the readable form of the same cells; medians. The sweep",
        "itself, `make sweep`, took 2 min 41 s on two idle cores with AVX512, its start and its report included.",
        "",
        "| part of a trial | readable | ours | ratio |",
        "|---|---|---|---|",
    ]
    for name, forms in seconds.items():
        plain, ours = (1000 * statistics.median(forms[form]) for form in ("readable", "auto"))
        lines.append(f"| {name} | {plain:.0f} | {ours:.0f} | {plain / ours:.1f}x |")
    lines += [
        "",
        "Launches of the weights' gradient, without the optimiser, when several such trials are one model under",
        "`torch.vmap`, in the readable form: the fast form's own gradients cannot be batched. One trial alone takes",
        f"{alone} launches in the fast form and {stacked['alone, readable']} in the readable one.",
        "",
        "| trials in one model | launches | for each trial | of a trial alone |",
        "|---|---|---|---|",
    ]
    for number, launches in stacked.items():
        if number.isdigit():
            each = launches / int(number)
            lines.append(f"| {number} | {launches} | {each:.0f} | {each / alone:.2f} |")
    share = 100 * derived["launches"] * derived["times"] / whole
    return [*lines, "", *NOT_STACKED, f"their steps are {share:.0f} % of the launches above.", ""]


NOT_STACKED = (
    "No option stacks the trials of a sweep. Of two trials it would save nothing. Of more it saves launches, but no",
    "multiply-adds and no memory, so it can pay only where a GPU waits for launches. There, trials that share the GPU",
    "as processes (`tune.resources.gpu` below 1) launch beside each other from as many cores, whatever their settings",
    "are. Stacked ones must be of one shape and in one phase, with ablated networks at the same steps. Of this sweep's",
    "trials some have four cells, some ablate, and the scheduler stops each at its own epoch. Which way is faster",
    "takes a GPU to measure, and was not measured. Derived networks differ too much to be stacked:",
)


NOTES = """
## Where the time goes

- oneDNN's gradients of depthwise convolutions are many times slower than its forward pass when the kernel is dilated or
  has five columns. `ddarts_core/networks/depthwise.py` writes them as convolutions that are fast, exactly.
- In a training step of a derived network the form `ddarts_core/networks/fused.py` computes cells. Half of what it saved
  was one thing: the gradient of concatenated nodes came back as slices, for which torch normalises backwards without
  vectors. Then come dilated convolutions, ReLUs that operations share, and sums that are written in place.
- Stacked tensors that leave the cache cost more per edge than single ones. So edges are merged up to 4 MiB on a CPU,
  and always on a GPU, where launches count.
- The gradient of an input that merged edges share is the sum of theirs. torch's `sum` over the dimension of the edges,
  which lies between others, takes many times as long on a CPU as adding them one by one, which gives the same bits.
- `centered` sends the gradients of all ablated networks back through the full pass cell by cell, each computed again
  from its stored inputs: one forward pass more, and its peak is that of a step without ablation.
- `search.checkpoint_cells` keeps the cells' outputs only, for one more forward pass.
- fp16 and tf32 need a GPU; on this CPU, which has bfloat16 arithmetic, bf16 does not pay. `search.compile` fuses the
  edges of the readable form, once for every width and stride, which takes minutes and does not pay on a CPU; its mode
  `reduce-overhead` replays CUDA graphs and needs a GPU (`--rows options,compile`).
- On a GPU float32 is float32: torch's own default, tf32, keeps 11 bits of 24. `search.amp=tf32` asks for it.
- On images smaller than a dilated kernel, oneDNN falls back to a slow loop, forwards too. `depthwise.py` leaves out the
  weights that meet nothing but padding, with the same bits.
- Nothing here was measured on a GPU yet. On one, run `make gpu`: in about eight minutes it runs the tests that need a
  GPU and writes `docs/performance-gpu.md`. It needs neither Ray nor MLflow.
"""
