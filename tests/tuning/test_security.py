"""What a sweep must not do to the machine it runs on, or with what a user hands in."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.settings.config import SweepConfig, resolve_sweep
from ddarts_tuning.store.study import find_study

from ddarts_cli.main import run
from ddarts_core.ground.errors import UserError
from tests.tuning.processes import Driver, Guard, Server, epochs_of, leaks, told

Make = Callable[..., SweepConfig]

ROOT = Path(__file__).parents[2]
SPACE = {"search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0}}

LISTENING = """
import json, os, sys
from pathlib import Path
from ddarts_tuning.cluster.connection import start_ray
start_ray(num_cpus=1)
parents = {}
for folder in Path("/proc").glob("[0-9]*"):
    try:
        parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        pass
family = {str(os.getpid())}
while more := {pid for pid, parent in parents.items() if parent in family} - family:
    family |= more
sockets = set()
for pid in family:
    try:
        sockets |= {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        pass
found = []
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            found.append(fields[1].split(":")[0])
print(json.dumps({"addresses": found, "mode": os.environ.get("RAY_AUTH_MODE")}))
"""


def test_ray_listens_on_loopback_only_and_wants_a_token() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["addresses"]) > 3  # the driver, the store of the cluster's state, the node
    # 127.0.0.1, in the kernel's order of bytes, as it is and as an IPv6 address.
    assert set(found["addresses"]) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert found["mode"] == "token"


def test_the_mlflow_ui_is_served_on_loopback() -> None:
    from ddarts_cli import server

    assert server.HOST == "127.0.0.1"
    command = ast.unparse(ast.parse(Path(server.__file__).read_text()))
    assert "'--host', HOST" in command


@pytest.mark.parametrize("name", ["../up", "/etc", "a/b", "..", ".hidden", "a\nb", "a b", "", "x" * 101, "~root"])
def test_a_studys_name_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name"):
        resolve_sweep({"name": name, "storage": str(tmp_path), "space": SPACE})


@pytest.mark.parametrize("argument", ["../study", "nothing", "/etc"])
def test_only_a_studys_folder_is_one(argument: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study"):
        find_study(argument, tmp_path)


def test_nothing_evaluates_or_unpickles_what_a_user_hands_in() -> None:
    """In all of the sources: no eval, no exec, no pickle.load, no unsafe YAML, no torch.load but of plain data."""
    for package in ("ddarts_core", "tuning", "analysis", "ddarts_cli"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    assert not _forbidden(node), f"{file}:{node.lineno}: {ast.unparse(node)}"


def _forbidden(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    if called == "torch.load":
        return not any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords)
    loads = ("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "pd.read_pickle", "joblib.load")
    return called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", *loads)


# --- the password of a tracking server ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    server = Server(tmp_path_factory.mktemp("server"))
    with Guard(server) as found:
        yield found
    server.kill()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node that does not have the password in its environment."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    found.shutdown()


def kept_by_ray(cluster: Any) -> tuple[list[str], list[bytes]]:
    """What Ray's state says of all jobs, and the names of what this project has there."""
    from ray._raylet import GcsClient

    client = GcsClient(address=cluster.address)
    return [str(job) for job in client.get_all_job_info().values()], client.internal_kv_keys(b"ddarts", None)


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["calm", "killed"])
def test_the_password_of_a_tracking_server_reaches_the_trials_and_nothing_else(
    killed: bool,
    make_sweep: Make,
    guard: Guard,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also when the sweep was killed and goes on, which a password of the environment is enough for."""
    tune = {"num_samples": 1, "objective": "supernet"}
    name = f"guarded-{killed}"
    config = make_sweep(name, search={"epochs": 2}, tracking={"uri": guard.uri}, tune=tune)
    before = guard.passed
    driver = Driver("run", config.study_dir, config, str(cluster.address))
    if killed:
        driver.wait_for(lambda: epochs_of(config.study_dir, 0) >= 1)
        driver.kill()
        before = guard.passed
        monkeypatch.setenv("MLFLOW_TRACKING_URI", guard.uri)
        driver = Driver("resume", config.study_dir, address=str(cluster.address))
    output, _ = driver.process.communicate(timeout=300)
    assert output.splitlines()[-1].startswith("finished 0"), output
    assert guard.passed > before and not guard.refused, "the driver and every trial have the password"
    assert not told(output)
    study = str(config.study_dir)
    for command in ("status", "report", "collect", "export"):
        assert run([command, study]) == 0
    assert run(["status", study, "--json"]) == 0
    assert run(["studies", "--json", "--storage", str(config.study_dir.parent)]) == 0
    assert run(["collect", name, "--tracking-uri", guard.uri, "--out", f"{study}/again"]) == 0
    assert run(["ui", study]) == 0
    said = capfd.readouterr()
    assert not told(said.out + said.err)
    assert leaks(config.study_dir, guard.folder, cluster.head_node.get_session_dir_path()) == []
    jobs, kept = kept_by_ray(cluster)
    assert jobs and not any(told(job) for job in jobs)
    assert kept == []
