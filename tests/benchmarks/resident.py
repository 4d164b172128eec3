"""Main memory of a search's process against its tensors: what `memory.PROCESS_BYTES` and `RESIDENT_FACTOR` must cover.

    python -m tests.benchmarks.resident

Each size runs in a process of its own, for a few steps. The bound of `memory.resident_memory` must be above the peak
that the kernel counted. Beside it: what the process took before its first tensor, and by how much the peak grows from
the smallest size on, per byte of tensors. Prints a Markdown table; Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ddarts_core.data.sets import data_info, load_train
from ddarts_core.data.splits import split
from ddarts_core.estimates.memory import resident_memory, step_memory
from ddarts_core.search.search import Search
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.tensors.devices import peak_memory

CPU = torch.device("cpu")
MIB = 2**20
#: Channels, batch size, cells, ablation loss: 40 MiB to 1 GiB of tensors.
SIZES = ((8, 64, 4, "none"), (32, 128, 4, "none"), (64, 128, 6, "none"), (48, 96, 6, "centered"))


def main() -> None:
    """A process per size; one row each."""
    if len(sys.argv) > 1:
        print(json.dumps(_measured(json.loads(sys.argv[1]))))
        return
    first: dict[str, int] = {}
    print("| channels | batch | cells | ablation | process, MiB | tensors, MiB | peak, MiB | bound, MiB | growth |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        command = [sys.executable, "-m", "tests.benchmarks.resident", json.dumps(size)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        config = _config(size)
        found["tensors"] = step_memory(config, data_info(config.data), CPU).peak
        found["bound"] = resident_memory(found["tensors"], CPU)
        first = first or found
        more = found["tensors"] - first["tensors"]
        growth = f"{(found['peak'] - first['peak']) / more:.2f}" if more else ""
        cells = [*map(str, size), *(f"{found[name] / MIB:,.0f}" for name in ("process", "tensors", "peak", "bound"))]
        print(f"| {' | '.join(cells)} | {growth} |", flush=True)


def _config(size: Sequence[Any]) -> ExperimentConfig:
    channels, batch, cells, loss = size
    search = {"num_cells": cells, "channels": channels, "batch_size": batch, "epochs": 1, "device": "cpu"}
    return resolve({"data": {"num_train": 5 * batch}, "search": search, "ablation": {"loss": loss}})


def _measured(size: Sequence[Any]) -> dict[str, int]:
    config = _config(size)
    info, images = load_train(config.data)
    process = peak_memory(CPU)
    (record,) = Search(config, info, split(images, config.data, 0), CPU).records()
    return {"process": process, "peak": record.peak_memory}


if __name__ == "__main__":
    main()
