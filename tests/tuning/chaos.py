"""Kill -9 a sweep's driver or a trial's process again and again, resume, and count what is lost or double.

    python -m tests.tuning.chaos --kills 10 --seed 0

Who is killed and when is drawn from a seeded generator. The trials must equal those of a sweep that was left alone, bit
for bit. Prints a table; exits with 1 if anything is lost, double or different.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from ddarts_core.config import merge
from tests.tuning.conftest import SETTINGS
from tests.tuning.processes import Driver, events_of, faults, results
from tuning.config import SweepConfig, resolve_sweep
from tuning.study import find_study

NUM_TRIALS = 4
EPOCHS = (3, 2)


def settings(folder: Path, name: str) -> SweepConfig:
    """A sweep of four trials, two at a time; random, so that the order of their ends does not change the proposals."""
    own = {
        "name": name,
        "storage": str(folder),
        "search": {"epochs": EPOCHS[0]},
        "retrain": {"epochs": EPOCHS[1]},
        "tune": {"num_samples": NUM_TRIALS, "max_concurrent": 2, "searcher": "random", "max_failures": 20},
    }
    return resolve_sweep(merge(SETTINGS, own))


def torment(folder: Path, kills: int, draw: random.Random) -> dict[str, int]:
    """Run a sweep under `kills` kills to its end; how many hit whom, and the faults."""
    config = settings(folder, "chaos")
    path = config.study_dir
    driver = Driver("run", path, config)
    done = {"driver kills": 0, "worker kills": 0, "resumes": 0}
    while sum(done[f"{who} kills"] for who in ("driver", "worker")) < kills:
        victim = draw.choice(("driver", "worker"))
        until = time.monotonic() + draw.uniform(0, 15)
        while time.monotonic() < until or not driver.workers():
            if driver.process.poll() is not None:
                break
            time.sleep(0.05)
        if driver.process.poll() is not None:
            break  # it was over sooner
        if victim == "worker":
            for worker in driver.workers()[:1]:
                os.kill(worker, signal.SIGKILL)
                done["worker kills"] += 1
            continue
        driver.kill()
        done["driver kills"] += 1
        done["resumes"] += 1
        driver = Driver("resume", path)
    driver.finish()
    return {**done, **faults(path, NUM_TRIALS, EPOCHS)}


def main() -> int:
    """Parse the arguments, torment, print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="at most, in each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ddarts-chaos-"))
    calm = settings(folder, "calm")
    Driver("run", calm.study_dir, calm).finish()
    bad = False
    for number in range(arguments.rounds):
        counted = torment(folder, arguments.kills, random.Random(arguments.seed + number))
        path = folder / "chaos"
        counted["trials different"] = sum(a != b for a, b in zip(results(calm.study_dir), results(path), strict=True))
        reported = sum(event["kind"] == "epoch" for event in events_of(path))
        counted["epochs repeated"] = reported - NUM_TRIALS * sum(EPOCHS)
        harmless = ("driver kills", "worker kills", "resumes", "epochs repeated")
        bad |= any(value for name, value in counted.items() if name not in harmless)
        print(f"round {number}, seed {arguments.seed + number}, study {find_study(path).state}")
        print("\n".join(f"  {name:<17} {value}" for name, value in counted.items()), flush=True)
        shutil.rmtree(path)
        (folder / "chaos.events").unlink()
    if not bad:
        shutil.rmtree(folder)
    print("something was lost: " + str(folder) if bad else "nothing was lost, double or different")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
