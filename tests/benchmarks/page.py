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
    shape, machine = numbers["shape"], numbers["machine"]
    text = [
        "# Performance",
        "",
        "Written by `make bench` (tests/benchmarks): the search step against the literal textbook transcription",
        "(tests/core/textbook.py, in torch's own layout), on the same weights. The alpha rows are compared with the",
        "published alpha step, which passes the network n + 2 times forwards and n times backwards for n cells.",
        "",
        f"Supernet: {shape['cells']} cells, C = {shape['channels']}, 3x{shape['image']}x{shape['image']}, batch "
        f"{shape['batch']}. Machine: {machine['device']}, {machine['cores']} cores, {machine['threads']} thread used, "
        f"{machine['capability']}; load {machine['load']} while measuring. torch {machine['torch']}, Python "
        f"{machine['python']}.",
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
        text += _times(steps or {}, numbers.get("epoch") or {})
    if counts:
        text += ["## Counts", "", *_counts(counts)]
    if numbers.get("options"):
        text += ["## Options", "", *_options(numbers["options"])]
    if numbers.get("growth"):
        text += ["## Growth", "", *_growth(numbers["growth"])]
    absent = [row for row in ("counts", "steps", "epoch", "options", "growth") if not numbers.get(row)]
    if absent:
        text += [f"Not run yet: {', '.join(absent)}.", ""]
    return "\n".join([*text, NOTES.strip(), ""])


def _times(steps: Numbers, epoch: Numbers) -> list[str]:
    lines = ["| work | textbook, s | ours, s | ratio | goal | rounds |", "|---|---|---|---|---|---|"]
    pairs = [(name, steps.get(theirs), steps.get(ours), goal) for name, theirs, ours, goal in GOALS]
    pairs.append(("search epoch, data included, `monitor`", epoch.get("textbook"), epoch.get("ours"), 5.0))
    for name, theirs, ours, goal in pairs:
        if theirs and ours:
            a, b = statistics.median(theirs), statistics.median(ours)
            lines.append(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.1f}x | {_goal(goal)} | {len(ours)} |")
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
    lines = ["Seconds of ours; `default` is what `search.implementation: auto` chooses on this device.", ""]
    lines += ["| option | weight step, s | alpha step, s |", "|---|---|---|"]
    for name in dict.fromkeys(key.partition(" ")[2] for key in found):
        weights, alpha = (statistics.median(found[f"{kind} {name}"]) for kind in ("weights", "alpha"))
        lines.append(f"| {name} | {weights:.2f} | {alpha:.2f} |")
    return [*lines, ""]


def _growth(found: Numbers) -> list[str]:
    lines = [
        "Counts of ours when one number changes. `monitor` adds half a network's forward pass per cell.",
        "",
        "| supernet | step | multiply-adds, 10^9 | launches | kept, MiB |",
        "|---|---|---|---|---|",
    ]
    for key, one in found.items():
        where, _, step = key.partition(" ")
        lines.append(f"| {where} | {step} | {one['macs'] / 1e9:.1f} | {one['launches']} | {one['kept'] / 2**20:.0f} |")
    return [*lines, ""]


NOTES = """
## Where the time goes

- oneDNN's gradients of depthwise convolutions are 20 to 50 times slower than its forward pass when the kernel is
  dilated or has five columns (one thread, 64x16x32x32, channels_last: forward 0.3 to 0.8 ms; gradient of the input
  with dilation 2, 9 to 15 ms; of the weights of a 5x5 kernel, 16 to 20 ms). `ddarts_core/depthwise.py` writes them as
  convolutions that are fast, exactly.
- One edge's tensor (4 MiB at batch 64) stays in the cache; stacked ones of 16 MiB do not, and cost 10 to 25 times more
  for four times the work. So edges are merged up to 4 MiB on a CPU, and always on a GPU, where launches count.
- `centered` keeps the graph of the full pass while it differentiates an ablated network: up to one network more,
  however many are ablated. `search.checkpoint_cells` keeps the cells' outputs only, for one more forward pass.
- fp16 needs a GPU; bf16 pays on a CPU only where it has bfloat16 arithmetic. `search.compile` compiles the readable
  form, minutes per kind of cell. CUDA graphs are not used.
- Nothing here was measured on a GPU yet. On one, run
  `make bench BENCH="--device cuda --batch 128 --numbers build/gpu.json --page docs/performance-gpu.md"`.
"""
