"""Kill -9 a search or a training again and again, resume it, and compare it with one that was left alone.

    python -m tests.chaos --kind search --kills 20 --seed 0

With `--images files` the images are PNG files that two processes read, again in every epoch. Kill points are drawn
from a seeded generator. Genotype and records must have the same bytes, weights and alphas the same bits. Exits with 1
if anything differs.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits

from ddarts_cli.main import main as ddarts
from ddarts_core.loops import checkpoint

SEARCH = """
name: chaos
data: DATA
search: {num_cells: 3, channels: 2, steps: 2, epochs: EPOCHS, batch_size: 24, device: cpu}
alpha: {lr: 0.05, weight_decay: 0.0}
retrain: {epochs: EPOCHS, channels: 4, batch_size: 32, drop_path: 0.1, flip: true, ema_decay: 0.9, device: cpu}
"""
NUM_TRAIN = 160


def run(kind: str, folder: Path, resume: bool) -> None:
    """The command, in this process, silent."""
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    flags = ["--resume"] if resume else []
    out = ["--out", str(folder / "out"), *flags]
    if kind == "search":
        arguments = ["search", str(folder / "chaos.yaml"), *out]
    else:
        arguments = [
            "retrain",
            "zoo:DARTS_V2",
            "--config",
            str(folder / "chaos.yaml"),
            "--set",
            "retrain.num_cells=5",
            *out,
        ]
    ddarts(arguments)


def start(kind: str, folder: Path) -> int:
    """Fork a process that runs, or goes on with, the command; its process number."""
    # What --resume asks for: a checkpoint of the search, or the folder of a training that was begun.
    marker = state_file(kind, folder) if kind == "search" else folder / "out" / "config.yaml"
    child = os.fork()
    if child == 0:
        try:
            run(kind, folder, resume=marker.exists())
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)
    return child


def state_file(kind: str, folder: Path) -> Path:
    """The checkpoint that a run leaves after every epoch."""
    if kind == "search":
        return folder / "out" / "checkpoint.pt"
    return folder / "out" / "genotype-seed-0" / "checkpoint.pt"


def outcome(kind: str, folder: Path) -> dict[str, bytes]:
    """What must not differ: by name, as bytes."""
    state = checkpoint.load(state_file(kind, folder))
    buffer = io.BytesIO()
    torch.save(state[kind], buffer)
    files = {"search": ["genotype.json", "records.parquet"], "retrain": ["genotype-seed-0/records.parquet"]}[kind]
    return {"state": buffer.getvalue(), **{name: (folder / "out" / name).read_bytes() for name in files}}


def settings_of(images: str, root: Path) -> str:
    """The group `data` of a run whose images are in memory, or in files that are written below `root`."""
    if images == "memory":
        return f"{{name: digits, num_train: {NUM_TRAIN}}}"
    digits = Path(root, "digits")
    pixels, labels = load_digits(return_X_y=True)
    for number in range(2 * NUM_TRAIN):
        split = "train" if number < NUM_TRAIN else "test"
        file = digits / split / str(labels[number]) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels[number].reshape(8, 8) * 15).astype("uint8")).save(file)
    return f"{{name: folder, root: {digits}, num_train: null, image_size: 8, in_memory: false, num_workers: 2}}"


def new_folder(root: Path, name: str, data: str, epochs: int) -> Path:
    """An empty folder with the experiment file."""
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "chaos.yaml").write_text(SEARCH.replace("DATA", data).replace("EPOCHS", str(epochs)))
    return folder


def main() -> int:
    """Run the kills and print a line per finished run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["search", "retrain"], default="search")
    parser.add_argument("--images", choices=["memory", "files"], default="memory")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        data = settings_of(options.images, root)
        whole = new_folder(root, "whole", data, options.epochs)
        began = time.monotonic()
        if os.waitpid(start(options.kind, whole), 0)[1] != 0:
            print("the undisturbed run failed")
            return 1
        duration = time.monotonic() - began
        expected = outcome(options.kind, whole)
        kills = runs = differing = 0
        while kills < options.kills:
            folder = new_folder(root, "broken", data, options.epochs)
            mine = 0
            while True:
                child = start(options.kind, folder)
                # After the wanted number of kills the run is left to end.
                if kills < options.kills:
                    time.sleep(draw.uniform(0.02, 0.7) * duration)
                    os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
                if not os.WIFSIGNALED(status):
                    break
                kills, mine = kills + 1, mine + 1
            if os.WEXITSTATUS(status) != 0:
                print(f"run {runs + 1}: failed after {mine} kills")
                return 1
            found = outcome(options.kind, folder)
            different = [part for part in expected if found[part] != expected[part]]
            runs, differing = runs + 1, differing + bool(different)
            print(f"run {runs}: {mine} kills, {'identical' if not different else 'differs in ' + ', '.join(different)}")
        print(f"{options.kind}: {kills} kills, {runs} runs, {differing} differing")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
