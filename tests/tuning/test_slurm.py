"""docs/cluster/sweep.slurm where Slurm is not installed: its two commands are scripts that act on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.study import find_study

from tests.tuning.processes import epochs_of, free_port, has_slurm, left_behind

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")

BIN = Path(sys.executable).parent
SCRIPT = Path(__file__).parents[2] / "docs" / "cluster" / "sweep.slurm"

SRUN = """#!/bin/bash
[[ " $* " == *" --cpus-per-task=$SLURM_CPUS_PER_TASK "* && " $* " == *" --nodelist=node"[12]" "* ]] || exit 2
while [[ $1 == --* ]]; do shift; done
exec "$@" --node-ip-address=127.0.0.1 --object-store-memory=100000000 --disable-usage-stats >/dev/null 2>&1
"""
SCONTROL = """#!/bin/bash
case "$*" in
"show hostnames node[1-2]") printf 'node1\\nnode2\\n' ;;
"--oneliner show node node1") echo "NodeName=node1 Gres=gpu:1 NodeAddr=127.0.0.1 NodeHostName=node1 Version=22.05.8" ;;
*) exit 2 ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job with two nodes of one core each."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    state = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # of this cluster alone; paths of sockets must be short
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))}
    env |= {"PATH": f"{commands}:{env['PATH']}", "HOME": str(tmp_path), "RAY_TMPDIR": state, "OMP_NUM_THREADS": "1"}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "1"}
    yield env | {"SLURM_SUBMIT_DIR": str(tmp_path), "DDARTS": str(BIN), "PORT": str(free_port())}
    shutil.rmtree(state, ignore_errors=True)


def submit(env: dict[str, str], file: Path) -> subprocess.Popen[str]:
    """Run the script as Slurm runs a job's."""
    return subprocess.Popen(
        ["bash", SCRIPT, file], env=env, cwd=file.parent, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_script_is_clean() -> None:
    subprocess.run([BIN / "shellcheck", SCRIPT], check=True)


@pytest.mark.slow
@pytest.mark.skipif(has_slurm(), reason="test_real_slurm.py does the same in a real Slurm")
def test_a_job_that_is_stopped_before_its_limit_and_submitted_again(slurm: dict[str, str], make_sweep: Make) -> None:
    """Head and worker with a token of the job; Slurm's signal goes to the script alone, and nothing is left behind."""
    tune = {"num_samples": 2, "max_concurrent": None, "objective": "supernet"}
    config = make_sweep("job", search={"epochs": 4}, tune=tune, tracking={"log_artifacts": False})
    path = config.study_dir
    file = path.parent / "job.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    slurm["STORAGE"] = str(path.parent)
    token = Path(slurm["HOME"]) / ".ray" / "ddarts-7"

    job = submit(slurm, file)
    until = time.monotonic() + 240
    while not all((path / "trials" / f"{n:05d}").exists() and epochs_of(path, n) for n in range(2)):
        assert job.poll() is None and time.monotonic() < until, job.communicate()[0]
        time.sleep(0.05)
    assert token.stat().st_mode & 0o077 == 0
    job.send_signal(signal.SIGINT)
    output, _ = job.communicate(timeout=120)
    assert "go on with `ddarts resume" in output, output
    assert find_study(path).state == "INTERRUPTED"
    assert not token.exists()

    job = submit(slurm, file)
    output, _ = job.communicate(timeout=240)
    assert job.returncode == 0, output
    study = find_study(path)
    assert study.state == "FINISHED"
    assert [trial["state"] for trial in study.trials()] == ["COMPLETED"] * 2
    assert [epochs_of(path, number) for number in range(2)] == [4, 4]
    assert not token.exists()
    assert not left_behind(slurm["RAY_TMPDIR"])
