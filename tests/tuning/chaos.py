"""Kill -9 a sweep's processes again and again, resume, and count what is lost or double.

    python -m tests.tuning.chaos --kills 10 --seed 0

The sweep runs on two local Ray nodes and tells a real MLflow server. Who is killed (the driver, a trial's process, the
second node with all that runs there, the server) and when is drawn from a seeded generator; after the last kill it is
left alone. The trials must equal those of a sweep that was left alone, bit for bit, and no kill may cost a running
trial more than one epoch (`epochs redone` counts those; `epochs repeated` those beyond). Sweeps are repeated until
there were enough kills. Prints a table; exits with 1 if anything is lost, double, repeated or different.
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
from collections import Counter
from pathlib import Path
from typing import Any

from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.store.study import find_study

from ddarts_core.ground.nested import merge
from tests.tuning.conftest import SETTINGS
from tests.tuning.processes import Driver, Server, faults, repeats, results, trials_below

NUM_TRIALS = 4
EPOCHS = (6, 3)
LONGEST_WAIT_S = 6.0
VICTIMS = ("driver", "worker", "raylet", "server")


def settings(folder: Path, name: str, uri: str) -> SweepConfig:
    """A sweep of four trials, two at a time; random, so that the order of their ends does not change the proposals."""
    own = {
        "name": name,
        "storage": str(folder),
        "search": {"epochs": EPOCHS[0]},
        "retrain": {"epochs": EPOCHS[1]},
        "tune": {"num_samples": NUM_TRIALS, "max_concurrent": 2, "searcher": "random", "max_failures": 100},
        "tracking": {"uri": uri},
    }
    return resolve_sweep(merge(SETTINGS, own))


class Nodes:
    """Two Ray nodes on this machine, with room for a trial each; the second can be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self._second = self._cluster.add_node(num_cpus=1)
        self.address = str(self._cluster.address)

    def lose_one(self) -> None:
        """Kill the second node, and start another in its place."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = self._cluster.add_node(num_cpus=1)

    def close(self) -> None:
        """End both."""
        self._cluster.shutdown()


def torment(config: SweepConfig, nodes: Nodes, server: Server, kills: int, draw: random.Random) -> Counter[str]:
    """Run a sweep under at most `kills` kills to its end; how many hit whom, and how often it was resumed."""
    path = config.study_dir
    driver = Driver("run", path, config, nodes.address)
    done: Counter[str] = Counter()
    while sum(done[f"{victim} kills"] for victim in VICTIMS) < kills:
        victim = draw.choice(VICTIMS)
        wait = draw.uniform(0, LONGEST_WAIT_S)
        # A driver may die before its first trial began; the others only where there is something to lose.
        while not (path / "study.json").exists() or (victim != "driver" and not trials_below(os.getpid())):
            if driver.process.poll() is not None:
                break
            time.sleep(0.05)
        until = time.monotonic() + wait
        while time.monotonic() < until and driver.process.poll() is None:
            time.sleep(0.05)
        if driver.process.poll() is not None:
            break  # it was over sooner
        if victim == "driver":
            driver.kill()
            driver = Driver("resume", path, address=nodes.address)
            done["resumes"] += 1
        elif victim == "worker":
            workers = trials_below(os.getpid())
            if not workers:
                continue
            os.kill(draw.choice(workers), signal.SIGKILL)
        elif victim == "raylet":
            nodes.lose_one()
        else:
            server.kill()
            server.start()
        done[f"{victim} kills"] += 1
    driver.finish()
    if find_study(path).state != "FINISHED" or not Driver("resume", path).finish().startswith("finished 0"):
        raise RuntimeError(f"{path} did not come to its end")
    return done


def main() -> int:
    """Parse the arguments, torment, print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="in all sweeps together")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    draw = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="ddarts-chaos-"))
    server, nodes = Server(folder), Nodes()
    table: Counter[str] = Counter()
    try:
        calm = settings(folder, "calm", server.uri)
        Driver("run", calm.study_dir, calm).finish()
        while (hits := sum(table[f"{victim} kills"] for victim in VICTIMS)) < arguments.kills:
            config = settings(folder, f"chaos-{table['sweeps']}", server.uri)
            found = torment(config, nodes, server, arguments.kills - hits, draw)
            found["sweeps"] += 1
            lost = Counter(faults(config.study_dir, NUM_TRIALS, EPOCHS))
            lost["trials different"] = sum(
                a != b for a, b in zip(results(calm.study_dir), results(config.study_dir), strict=True)
            )
            found["epochs redone"] = sum(repeats(config.study_dir))
            for counted in (found, lost):
                table.update(counted)
            if any(lost.values()):
                print(f"something was lost: {config.study_dir}: {dict(lost)}", flush=True)
    finally:
        nodes.close()
        server.kill()
    harmless = ("sweeps", *(f"{victim} kills" for victim in VICTIMS), "resumes", "epochs redone")
    bad = any(count for name, count in table.items() if name not in harmless)
    print(f"seed {arguments.seed}")
    for name in (*harmless, *(name for name in table if name not in harmless)):
        print(f"  {name:<17} {table[name]}")
    if not bad:
        shutil.rmtree(folder)
        print("nothing was lost, double, repeated or different")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
