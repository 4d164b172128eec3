"""The first steps, a kill and a resume, report and export: `make test-oldest` takes them under the oldest versions.

    python -m tests.oldest begin FOLDER   one search, and a sweep whose process is killed on its way
    python -m tests.oldest end FOLDER     go on with that sweep, here or under other versions; report, export

Each asserts what must be so, and that what is installed is what constraints-oldest.txt says, unless `--any` is given.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib.metadata import Distribution
from pathlib import Path

from ddarts_tuning.settings.config import SweepConfig, load_sweep

from ddarts_cli.main import run
from tests.tuning.processes import Driver, epochs_of, faults

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints-oldest.txt"
EPOCHS = {"search.warmup_epochs": 1, "search.epochs": 2, "retrain.epochs": 2}
TRIALS = 2


def check_versions() -> None:
    """What is installed is what the constraints say. Ray brings a psutil of its own, and puts it before the others."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))
    assert len(wanted) > 10
    found = {name: next(Distribution.discover(name=name, path=places)).version.partition("+")[0] for name in wanted}
    assert found == wanted, {name: found[name] for name in wanted if found[name] != wanted[name]}


def ddarts(*words: str) -> None:
    """Run a command to its end."""
    print("ddarts", *words, flush=True)
    assert run(words) == 0, words


def begin(folder: Path) -> None:
    """The quickstart, shortened; and a sweep that is killed in its second trial."""
    short = [word for path, value in EPOCHS.items() for word in ("--set", f"{path}={value}")]
    ddarts("search", str(ROOT / "experiments/quickstart.yaml"), *short, "--out", str(folder / "search"))
    config = sweep(folder)
    driver = Driver("run", config.study_dir, config)
    driver.wait_for(lambda: epochs_of(config.study_dir, 1) >= 1)
    driver.kill()


def end(folder: Path) -> None:
    """Go on with the sweep: nothing is lost or double, in the folder, in MLflow and in Optuna's journal."""
    config = sweep(folder)
    print(Driver("resume", config.study_dir).finish())
    epochs = (EPOCHS["search.warmup_epochs"] + EPOCHS["search.epochs"], EPOCHS["retrain.epochs"])
    found = faults(config.study_dir, TRIALS, epochs)
    assert not any(found.values()), found
    for command in ("status", "report", "export"):
        ddarts(command, str(config.study_dir))


def sweep(folder: Path) -> SweepConfig:
    """The quickstart's sweep with few trials and epochs, one trial at a time."""
    tune = {"num_samples": TRIALS, "scheduler": "fifo", "grace_period": 1, "max_concurrent": 1}
    settings = EPOCHS | {f"tune.{name}": value for name, value in tune.items()}
    settings |= {"storage": str(folder.absolute()), "name": "oldest"}
    return load_sweep(
        ROOT / "experiments/quickstart_sweep.yaml", [f"{path}={value}" for path, value in settings.items()]
    )


if __name__ == "__main__":
    what, where, *options = sys.argv[1:]
    if "--any" not in options:
        check_versions()
    {"begin": begin, "end": end}[what](Path(where))
