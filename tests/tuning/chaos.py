"""Kill -9 a sweep's processes again and again, resume, and count what is lost or double.

    python -m tests.tuning.chaos --kills 10 --seed 0
    python -m tests.tuning.chaos --kills 10 --move                       its folder is another one at every resume
    python -m tests.tuning.chaos --kills 10 --store                      it is in an object store, S3 on loopback
    python -m tests.tuning.chaos --kills 10 --other OLD/bin/python       every second process of it runs this Python

The sweep runs on two local Ray nodes and tells a real MLflow server. Who is killed (the driver, a trial's process, the
second node with all that runs there, the server) and when is drawn from a seeded generator; after the last kill it is
left alone. The trials must equal those of a sweep that was left alone, bit for bit, and no kill may cost a running
trial more than one epoch (`epochs redone` counts those; `epochs repeated` those beyond). Sweeps are repeated until
there were enough kills. Prints a table; exits with 1 if anything is lost, double, repeated or different.

The Python of `--other` has another Ray, and the same torch: another one computes other numbers. Then there are no
nodes, since nodes have one version; each driver starts the Ray that it has.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.store.backend import backend_of
from ddarts_tuning.store.locks import await_workers
from ddarts_tuning.store.study import find_study
from tenacity import retry, stop_after_attempt

from ddarts_core.ground.nested import merge
from tests.tuning.conftest import SETTINGS
from tests.tuning.processes import Driver, Server, faults, repeats, results, trials_below

NUM_TRIALS = 4
EPOCHS = (6, 3)
LONGEST_WAIT_S = 6.0
BUCKET = "studies"


def settings(storage: str, name: str, uri: str) -> SweepConfig:
    """A sweep of four trials, two at a time; random, so that the order of their ends does not change the proposals."""
    own = {
        "name": name,
        "storage": storage,
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
        self._second = self._add()
        self.address = str(self._cluster.address)

    def lose_one(self) -> None:
        """Kill the second node, and start another in its place."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = self._add()

    @retry(stop=stop_after_attempt(9), reraise=True)  # Ray gives one half a minute, in which a busy machine starts none
    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1)

    def close(self) -> None:
        """End both."""
        self._cluster.shutdown()


class Bucket:
    """Of a store that speaks S3 on loopback, in this process; those that it starts find it by the usual variables."""

    def __init__(self, folder: Path) -> None:
        import s3fs  # type: ignore[import-untyped]  # it has no types
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        key = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= key | {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "DDARTS_CACHE": str(folder / "cache")}
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)

    def close(self) -> None:
        """End it, and all that it has."""
        self._server.stop()


class Sweep:
    """A sweep that is run under kills.

    Args:
        folder: for all that it leaves; that of a study in a store has its events alone.
        name: of the study.
        server: of MLflow.
        address: of the nodes; None where each driver has a Ray of its own.
        pythons: that run its drivers, one after the other.
        stored: whether the study is in the bucket.
    """

    def __init__(
        self, folder: Path, name: str, server: Server, address: str | None, pythons: Iterator[str], stored: bool
    ) -> None:
        self._home = folder / f"{name}-0"
        self._home.mkdir()
        self._uri = f"s3://{BUCKET}/{name}" if stored else None
        self._server, self._address, self._pythons = server, address, pythons
        self.config = settings(f"s3://{BUCKET}" if stored else str(self._home), name, server.uri)

    @property
    def path(self) -> Path:
        """The study's folder, or where it would be: beside it lie the events."""
        return self._home / self.config.name

    @property
    def location(self) -> str:
        """What a user calls it by."""
        return self._uri or str(self.path)

    def begin(self) -> Driver:
        """Its first driver."""
        return Driver("run", self.path, self.config, self._address, python=next(self._pythons))

    def resume(self) -> Driver:
        """Its next driver."""
        return Driver("resume", self.path, None, self._address, self.location, next(self._pythons))

    def move(self) -> None:
        """Its folder goes to another place once the trials of before have ended."""
        await_workers(self.path, "trials")
        name, _, number = self._home.name.rpartition("-")
        self._home = self._home.rename(self._home.with_name(f"{name}-{int(number) + 1}"))


def torment(
    sweep: Sweep, nodes: Nodes | None, server: Server, kills: int, draw: random.Random, moved: bool
) -> Counter[str]:
    """Run a sweep under at most `kills` kills to its end; how many hit whom, and how often it was resumed."""
    victims = ["driver", "worker", *(["raylet"] if nodes else []), "server"]
    driver = sweep.begin()
    done: Counter[str] = Counter()
    while done["kills"] < kills:
        victim = draw.choice(victims)
        wait = draw.uniform(0, LONGEST_WAIT_S)
        # A driver may die before its first trial began; the others only where there is something to lose.
        while not backend_of(sweep.location).exists() or (victim != "driver" and not trials_below(os.getpid())):
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
            if moved:
                sweep.move()
            driver = sweep.resume()
            done["resumes"] += 1
        elif victim == "worker":
            workers = trials_below(os.getpid())
            if not workers:
                continue
            os.kill(draw.choice(workers), signal.SIGKILL)
        elif victim == "raylet":
            assert nodes is not None
            nodes.lose_one()
        else:
            server.kill()
            server.start()
        done[f"{victim} kills"] += 1
        done["kills"] += 1
    driver.finish()
    again = sweep.resume()
    if not again.finish().startswith("finished 0") or find_study(sweep.location).state != "FINISHED":
        raise RuntimeError(f"{sweep.location} did not come to its end:\n{driver.output}\n{again.output}")
    return done


def lost_by(sweep: Sweep, calm: list[Any]) -> Counter[str]:
    """What is missing, double, repeated or different in a sweep that is over."""
    path = find_study(sweep.location).path
    lost = Counter(faults(path, NUM_TRIALS, EPOCHS))
    lost["epochs repeated"] = sum(again - 1 for again in repeats(sweep.path))
    lost["trials different"] = sum(a != b for a, b in zip(calm, results(path), strict=True))
    return lost


def main() -> int:
    """Parse the arguments, torment, print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="in all sweeps together")
    parser.add_argument("--seed", type=int, default=0)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--move", action="store_true", help="move the study's folder before every resume")
    place.add_argument("--store", action="store_true", help="keep the studies in an object store")
    parser.add_argument("--other", metavar="PYTHON", help="runs the second driver of a study, the fourth, ...")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    draw = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="ddarts-chaos-"))
    bucket = Bucket(folder) if arguments.store else None  # before the nodes, which have this environment
    server, nodes = Server(folder), None if arguments.other else Nodes()
    address = nodes and nodes.address
    table: Counter[str] = Counter()
    try:
        alone = Sweep(folder, "calm", server, None, itertools.repeat(sys.executable), stored=False)
        alone.begin().finish()
        calm = results(alone.path)
        while table["kills"] < arguments.kills:
            pythons = itertools.cycle([sys.executable, arguments.other or sys.executable])
            sweep = Sweep(folder, f"chaos-{table['sweeps']}", server, address, pythons, arguments.store)
            found = torment(sweep, nodes, server, arguments.kills - table["kills"], draw, arguments.move)
            found["sweeps"] += 1
            lost = lost_by(sweep, calm)
            found["epochs redone"] = sum(repeats(sweep.path))
            for counted in (found, lost):
                table.update(counted)
            print(f"{table['kills']} of {arguments.kills} kills", flush=True)
            if any(lost.values()):
                print(f"something was lost: {sweep.location}: {dict(lost)}", flush=True)
    finally:
        if nodes is not None:
            nodes.close()
        server.kill()
        if bucket is not None:
            bucket.close()
    harmless = ("sweeps", "kills", *sorted(name for name in table if name.endswith(" kills")), "resumes")
    harmless += ("epochs redone",)
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
