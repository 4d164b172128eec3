"""docs/cluster/sweep.slurm in a real Slurm: its daemons, with two nodes on this machine, where they are installed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.study import find_study

from tests.tuning.processes import epochs_of, free_port, has_slurm

Make = Callable[..., SweepConfig]

PATH = f"{os.environ['PATH']}:/usr/sbin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not has_slurm(), reason="Slurm is not installed, or this is not root: test_slurm.py stands in"),
]

BIN = Path(sys.executable).parent
SCRIPT = Path(__file__).parents[2] / "docs" / "cluster" / "sweep.slurm"

# Two nodes whose names do not resolve. What the script asks for is there: a GPU is a file that stands for one.
CONF = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
SchedulerParameters=sched_interval=2
KillWait=5
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 CoresPerSocket=2 Gres=gpu:1
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 CoresPerSocket=2 Gres=gpu:1
PartitionName=all Nodes=one,two Default=YES State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """The daemons' folder, and the environment of who submits."""

    folder: Path
    env: dict[str, str]

    def ask(self, *command: str | Path) -> str:
        """Run one of Slurm's commands; what it prints."""
        ended = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def submit(self, file: Path) -> str:
        """Submit the script as its first line says, with two CPUs of each node; the job's number."""
        output = f"--output={self.folder}/%j.out"
        return self.ask("sbatch", "--parsable", "--cpus-per-task=2", output, SCRIPT, file)

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job."""
        pairs = (word.partition("=") for word in self.ask("scontrol", "--oneliner", "show", "job", number).split())
        return {name: value for name, _, value in pairs}

    def output(self, number: str) -> str:
        """What a job has printed."""
        return (self.folder / f"{number}.out").read_text()

    def wait(self, number: str, condition: Callable[[], bool]) -> None:
        """Wait while a job runs."""
        until = time.monotonic() + 240
        while not condition():
            assert self.job(number)["JobState"] in ("PENDING", "RUNNING", "COMPLETING"), self.output(number)
            assert time.monotonic() < until, self.output(number)
            time.sleep(0.5)

    def ended(self, number: str) -> dict[str, str]:
        """Wait for a job's end."""
        self.wait(number, lambda: self.job(number)["JobState"] in ("COMPLETED", "FAILED"))
        return self.job(number)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # paths of sockets must be short
    folder.chmod(0o755)  # munged asks for it
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "gpu").touch()
    (folder / "gres.conf").write_text(f"NodeName=one,two Name=gpu File={folder}/gpu\n")
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, ports=[free_port() for _ in range(3)]))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_", "SBATCH_"))}
    env |= {"PATH": PATH, "SLURM_CONF": str(conf), "HOME": str(folder), "RAY_TMPDIR": str(folder)}
    env |= {"DDARTS": str(BIN), "PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    munge = ["munged", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge"]
    munge += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    slurmd = ["slurmd", "-D", "-f", str(conf), "-N"]
    processes = []
    found = Slurm(folder, env)
    try:
        for command in (munge, ["slurmctld", "-D", "-f", str(conf)], [*slurmd, "one"], [*slurmd, "two"]):
            with (folder / "daemons.log").open("a") as log:
                processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))
            time.sleep(1)
        until = time.monotonic() + 30
        while subprocess.run(["sinfo", "-h", "-o", "%T %D"], env=env, capture_output=True).stdout != b"idle 2\n":
            assert time.monotonic() < until, (folder / "daemons.log").read_text()[-3000:]
            time.sleep(0.2)
        yield found
        found.ask("scancel", "--user=root")
        until = time.monotonic() + 30
        while found.ask("squeue", "-h") and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_job_that_is_stopped_and_submitted_again(slurm: Slurm, make_sweep: Make) -> None:
    """Two nodes with a trial each; Slurm sends the signal that it sends before the limit, to the script alone."""
    tune = {"num_samples": 2, "max_concurrent": None, "objective": "supernet", "resources": {"cpu": 2}}
    config = make_sweep("job", search={"epochs": 4}, tune=tune, tracking={"log_artifacts": False})
    path = config.study_dir
    file = path.parent / "job.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    slurm.env["STORAGE"] = str(path.parent)

    job = slurm.submit(file)
    slurm.wait(job, lambda: all((path / "trials" / f"{n:05d}").exists() and epochs_of(path, n) for n in range(2)))
    for step in range(2):
        assert "TresPerTask=cpu:2" in slurm.ask("scontrol", "show", "step", f"{job}.{step}"), (
            "Ray has all CPUs of a node"
        )
    token = slurm.folder / ".ray" / f"ddarts-{job}"
    assert token.stat().st_mode & 0o077 == 0
    slurm.ask("scancel", "--signal=INT", "--batch", job)
    assert slurm.ended(job)["ExitCode"] == "130:0", slurm.output(job)
    assert find_study(path).state == "INTERRUPTED"
    assert not token.exists()

    job = slurm.submit(file)
    assert slurm.ended(job)["JobState"] == "COMPLETED", slurm.output(job)
    study = find_study(path)
    assert study.state == "FINISHED"
    assert [trial["state"] for trial in study.trials()] == ["COMPLETED"] * 2
    assert [epochs_of(path, number) for number in range(2)] == [4, 4]
