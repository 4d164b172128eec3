"""`ddarts retrain --num-workers 2` with two real workers: one process's files; a death, an interruption, sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
import yaml
from ddarts_tuning.training import distributed, worker
from ddarts_tuning.training.distributed import DistributedRetrain, Workers, cpus_per_worker, uses_gpu
from ddarts_tuning.training.process_group import interface_of
from ddarts_tuning.training.worker import train_worker

from ddarts_cli import loop
from ddarts_cli.main import run
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import resolve
from ddarts_core.training.parallel import ALONE
from tests.core.two import float64

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("ray_cluster")]

CELL = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3"), Edge(3, 2, "max_pool_3x3")), (2, 3))
#: Batches of 31: shares of 15 and 16.
SETTINGS = {
    "seed": 4,
    "data": {"name": "digits", "num_train": 200},
    "retrain": {
        "epochs": 3,
        "channels": 2,
        "batch_size": 31,
        "validation_fraction": 0.2,
        "drop_path": 0.4,
        "auxiliary_weight": 0.4,
        "flip": True,
        "device": "cpu",
    },
}

Hook = Callable[[EpochRecord], None]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`ddarts retrain` in float64, in a folder of the name; `hook` sees every epoch, in the driver."""
    base = tmp_path_factory.mktemp("distributed")
    (base / "genotype.json").write_text(Genotype((CELL,) * 3, (1, 2)).to_json())
    (base / "config.yaml").write_text(yaml.safe_dump(SETTINGS))

    def in_float64(arguments: dict[str, Any]) -> None:
        with float64():
            train_worker(arguments)

    def retrain(name: str, *arguments: str, hook: Hook | None = None, status: int = 0) -> Path:
        def follow(records: Iterable[EpochRecord], *rest: Any) -> Iterator[EpochRecord]:
            for record in records:
                if hook is not None:
                    hook(record)
                yield record

        given = ["retrain", str(base / "genotype.json"), "--config", str(base / "config.yaml")]
        with pytest.MonkeyPatch.context() as patch, float64():
            patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
            patch.setattr(distributed, "train_worker", in_float64)
            patch.setattr(loop, "follow", follow)
            assert run([*given, "--out", str(base / name), *arguments]) == status
        return base / name

    return retrain


@pytest.fixture(scope="module")
def one(command: Callable[..., Path]) -> Path:
    return command("one")


@pytest.fixture(scope="module")
def two(command: Callable[..., Path]) -> tuple[Path, set[str]]:
    """Folder, and the addresses that listened during the training."""
    addresses: set[str] = set()
    folder = command("two", "--num-workers", "2", hook=lambda _: addresses.update(listening()))
    return folder, addresses


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def workers() -> list[psutil.Process]:
    """Processes of Ray Train's workers."""
    found = []
    for process in family():
        try:
            if "TrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def listening() -> set[str]:
    """Addresses at which Ray and the workers wait for connections."""
    addresses = set()
    for process in family():
        try:
            addresses |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        except psutil.NoSuchProcess:
            continue
    return addresses


def weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.load(folder / "genotype-seed-4" / "weights.pt")["weights"]
    return found


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def same(found: Path, expected: Path) -> None:
    """Weights, records and result are equal but for rounding."""
    mine, theirs = weights(found), weights(expected)
    assert list(mine) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-9, atol=1e-10)
    tables = [pd.read_parquet(folder / "genotype-seed-4" / "records.parquet") for folder in (found, expected)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
    results = [json.loads((folder / "result.json").read_text())["test"] for folder in (found, expected)]
    assert results[0] == results[1]
    assert len({(folder / "confusion.json").read_text() for folder in (found, expected)}) == 1


def job(base: Path, **settings: Any) -> distributed._Job:
    """Two epochs on 60 digits."""
    config = resolve({"data": {"num_train": 60}, "retrain": {"channels": 2, "epochs": 2, "batch_size": 30} | settings})
    return distributed._Job(base, (), config, Genotype((CELL,) * 3, (1, 2)), 4)


def test_two_workers_leave_what_one_process_leaves(one: Path, two: tuple[Path, set[str]]) -> None:
    folder, _ = two
    same(folder, one)
    assert files(folder) == files(one)
    assert any(not (value == weights(one)[name]).all() for name, value in weights(folder).items())  # two did train


def test_workers_listen_on_loopback_only(two: tuple[Path, set[str]]) -> None:
    assert two[1] and two[1] <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nothing_changes(
    command: Callable[..., Path], two: tuple[Path, set[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """The weights are those of the workers that nobody killed, to the bit."""
    seen: list[int] = []

    def kill(record: EpochRecord) -> None:
        if not seen:
            workers()[0].kill()
        seen.append(record.epoch)

    folder = command("killed", "--num-workers", "2", hook=kill)
    assert "started again 1 times" in capfd.readouterr().out
    assert seen.count(0) == 1, "the epoch that was saved is not repeated"
    assert seen[-1] == 2 and set(seen) == set(range(3))
    for name, value in weights(folder).items():
        assert value.equal(weights(two[0])[name]), name
    columns = [pd.read_parquet(each / "genotype-seed-4" / "records.parquet") for each in (folder, two[0])]
    pd.testing.assert_frame_equal(*columns)


@pytest.mark.parametrize(("kind", "error"), [("mistake", UserError), ("diverged", Diverged)])
def test_what_stops_the_workers_is_raised_in_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: type[Exception]
) -> None:
    def trainer(_: Any, queue: Any, scratch: Path) -> Any:
        return SimpleNamespace(fit=lambda: queue.put((kind, "the reason")))

    monkeypatch.setattr(DistributedRetrain, "_trainer", trainer)
    given = job(tmp_path)
    run = DistributedRetrain(given.config, given.genotype, 4, tmp_path, Workers(2, 1, False, True))
    with pytest.raises(error, match="the reason"):
        list(run.records())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_interrupted_training_ends_its_workers_and_can_go_on(
    command: Callable[..., Path], one: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ends Ray, so it is the last test with workers. One process goes on for two."""
    import ray

    pids: list[psutil.Process] = []

    def interrupt(_: EpochRecord) -> None:
        pids.extend(workers())
        raise KeyboardInterrupt

    folder = command("stopped", "--num-workers", "2", hook=interrupt, status=130)
    assert "go on: ddarts retrain " in capfd.readouterr().out
    assert len(pids) == 2 and not ray.is_initialized()
    assert not psutil.wait_procs(pids, timeout=30)[1]
    assert not (folder / "result.json").exists() and not (folder / "genotype-seed-4" / "ray").exists()
    same(command("stopped", "--resume"), one)


# --- one worker, without Ray -----------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[distributed._Job], list[tuple[str, Any]]]:
    """Runs a job alone and returns what is told to the driver."""

    def run_alone(given: distributed._Job) -> list[tuple[str, Any]]:
        news: list[tuple[str, Any]] = []
        (given.folder / worker.SCRATCH).mkdir(parents=True, exist_ok=True)
        train_worker({"job": given, "queue": SimpleNamespace(put=news.append)})
        return news

    monkeypatch.setattr(worker.Group, "joined", lambda: ALONE)
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    return run_alone


def test_what_a_worker_tells(tmp_path: Path, told: Callable[..., list[tuple[str, Any]]]) -> None:
    """The epochs and the test; a mistake and a divergence, after which it ends as if all were well."""
    news = told(job(tmp_path))
    assert [kind for kind, _ in news] == ["start", "epoch", "epoch", "test"]
    assert news[0][1] == 0 and sum(map(sum, news[3][1].matrix)) == 359  # all test images of digits
    assert [kind for kind, _ in told(job(tmp_path))] == ["start", "test"]  # all epochs are in the checkpoint
    ((kind, sentence),) = told(job(tmp_path, lr=0.02))
    assert kind == "mistake" and "another configuration" in sentence
    news = told(job(tmp_path / "fast", lr=10, grad_clip=1e30, epochs=9))
    assert news[-1][0] == "diverged" and "the training diverged" in news[-1][1]


def test_checkpoints_as_often_as_asked(tmp_path: Path, told: Callable[..., list[tuple[str, Any]]]) -> None:
    found = []
    given = job(tmp_path, epochs=3, checkpoint_every=2)
    original = checkpoint.save

    def save(path: Path, state: dict[str, Any], **options: bool) -> None:
        found.append((path.name, len(state.get("records", ()))))
        original(path, state, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        told(given)
    assert found == [("checkpoint.pt", 2), ("checkpoint.pt", 3), ("weights.pt", 0)]


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "number", "gpu", "expected"),
    [
        ([{"CPU": 8}], 2, False, 4),
        ([{"CPU": 8}, {"CPU": 2}], 2, False, 4),
        ([{"CPU": 8}, {"CPU": 8}], 3, False, 4),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 1}], 3, True, 3),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 2, "GPU": 1}], 3, True, 2),
    ],
)
def test_cpus_of_each_worker(nodes: list[dict[str, float]], number: int, gpu: bool, expected: int) -> None:
    assert cpus_per_worker(nodes, number, gpu, 3) == expected


@pytest.mark.parametrize(
    ("nodes", "gpu", "words"),
    [
        ([{"CPU": 2}, {}], False, "exceeds the 2 CPUs that Ray has: use at most 2$"),
        ([{"CPU": 9, "GPU": 2.0}], True, "exceeds the 2 GPUs that Ray has: use at most 2, or --set retrain.device=cpu"),
        ([{"CPU": 9}], True, "exceeds the 0 GPUs that Ray has: leave --num-workers out, or --set retrain.device=cpu"),
    ],
)
def test_too_many_workers(nodes: list[dict[str, float]], gpu: bool, words: str) -> None:
    with pytest.raises(UserError, match=f"--num-workers 3 {words}"):
        cpus_per_worker(nodes, 3, gpu, 1)


def test_when_workers_get_a_gpu() -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert uses_gpu("auto", nodes) and uses_gpu("cuda", nodes[:1])
    assert not uses_gpu("auto", nodes[:1]) and not uses_gpu("cpu", nodes)
    with pytest.raises(UserError, match="cuda:1"):
        uses_gpu("cuda:1", nodes)


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None  # of no machine: for documentation
