"""Sweeps whose storage is S3, as a server on loopback speaks it: the same results, kills, and other machines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ddarts_tuning.driver.new_study import create_study
from ddarts_tuning.driver.sweep import resume_sweep, run_sweep
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store import lease
from ddarts_tuning.store.backend import ObjectStore
from ddarts_tuning.store.checkpoints import is_checkpoint
from ddarts_tuning.store.mirror import Mirror
from ddarts_tuning.store.study import find_study, list_studies, trial_name

from ddarts_cli.main import run
from ddarts_core.datasets.facts import DataInfo, read_info, write_facts
from ddarts_core.ground.errors import UserError
from tests.tuning.conftest import Make
from tests.tuning.outage import Wire
from tests.tuning.processes import Driver, by_hand, faults, results
from tests.tuning.test_mirror import spy
from tests.tuning.test_population import POPULATION

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

TUNE = {"num_samples": 2}

MakeStored = Callable[..., SweepConfig]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket's URI; this process and those it starts find the server by the variables that all S3 tools read."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("DDARTS_CACHE", str(tmp_path_factory.mktemp("cache")))
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("studies")
        yield "s3://studies/runs"
    server.stop()


@pytest.fixture(scope="module")
def stored(bucket: str, make_sweep: Make, tmp_path_factory: pytest.TempPathFactory) -> MakeStored:
    """A sweep in the bucket, tracked in a database of its own."""
    folder = tmp_path_factory.mktemp("mlflow")

    def make(name: str, **groups: Any) -> SweepConfig:
        tracking = {"uri": f"sqlite:///{folder}/{name}.db"}
        return make_sweep(name, storage=bucket, tracking=tracking, **{"tune": TUNE, **groups})

    return make


@pytest.fixture(scope="module")
def calm(make_sweep: Make, ray_cluster: None) -> list[Any]:
    """What the same sweep comes to in a folder."""
    return results(run_sweep(make_sweep("calm", tune=TUNE)).study.path)


def objects(uri: str) -> list[str]:
    return [path.removeprefix("studies/runs/") for path in Mirror(uri, Path("unused")).fs.find(uri)]


@pytest.mark.slow
def test_after_kills_another_machine_goes_on(
    stored: MakeStored, calm: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a trial's process is killed, then the driver; a machine that has nothing but the URI goes on.

    It waits until the lease of the one that died has lapsed; the results are those of a sweep that was left alone.
    """
    config = stored("killed")
    place = tmp_path / "killed"
    driver = Driver("run", place, config)
    driver.wait_for(lambda: driver.told("epoch") >= 2)
    driver.strike()
    driver.wait_for(lambda: driver.told("finished") >= 1)
    driver.kill()
    assert find_study(config.study_location).state == "INTERRUPTED"
    monkeypatch.setenv("DDARTS_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=r"is running on .* if it was killed, try again in"):
        resume_sweep(config.study_location)
    monkeypatch.setattr(lease, "LAPSE_S", 0.0)
    assert not resume_sweep(config.study_location).interrupted
    found = find_study(config.study_location)
    assert results(found.path) == calm
    assert not any(faults(found.path, 2, (2, 2)).values())


@pytest.mark.slow
def test_kills_after_the_end_of_a_trial(stored: MakeStored, make_sweep: Make, tmp_path: Path) -> None:
    """Ray goes on with a trial that ended, whose checkpoints are gone: the results are those without a kill."""
    groups = {"search": {"epochs": 12}, "retrain": {"epochs": 1}}
    whole = run_sweep(make_sweep("whole", tune=TUNE, **groups)).study.path
    config = stored("ending", **groups)
    place, uri = tmp_path / "ending", config.study_location
    driver = Driver("run", place, config)
    driver.wait_for(lambda: driver.told("epoch") >= 13)
    for _ in range(2):
        driver.wait_for(lambda: not any("/00000/checkpoint-" in name for name in objects(uri)))
        driver.kill()
        driver = Driver("resume", place, location=uri)
    assert driver.finish().startswith("finished 0")
    found = find_study(uri)
    assert results(found.path) == results(whole)
    assert not any(faults(found.path, 2, (12, 1)).values())


@pytest.fixture
def wire(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Between the processes that are started and the store."""
    between = Wire(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{between.port}")
    return between


@pytest.mark.slow
def test_a_short_outage_of_the_store_is_waited_for(
    stored: MakeStored, calm: list[Any], tmp_path: Path, wire: Wire
) -> None:
    config = stored("short")
    driver = Driver("run", tmp_path / "short", config)
    driver.wait_for(lambda: driver.told("epoch") >= 1)
    wire.cut()
    time.sleep(5)  # the outage
    wire.mend()
    assert driver.finish().startswith("finished 0")
    assert driver.told("restarted") == 0
    found = find_study(config.study_location)
    assert results(found.path) == calm
    assert not any(faults(found.path, 2, (2, 2)).values())


@pytest.mark.slow
def test_a_long_outage_of_the_store_stops_the_sweep_and_nothing_is_lost(
    stored: MakeStored, calm: list[Any], tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stored("long")
    monkeypatch.setenv("DDARTS_STORE_PATIENCE", "2")
    driver = Driver("run", tmp_path / "long", config)
    driver.wait_for(lambda: driver.told("epoch") >= 3)
    wire.cut()
    said = driver.finish(status=1)
    wire.mend()
    assert said.startswith(f"Error: the store of {config.study_location} cannot be used: ")
    assert f"go on with `ddarts resume {config.study_location}` when it is back" in said
    found = find_study(config.study_location)
    assert found.state == "INTERRUPTED" and {trial["state"] for trial in found.trials()} <= {"RUNNING", "COMPLETED"}
    assert not resume_sweep(config.study_location).interrupted
    found = find_study(config.study_location)
    assert results(found.path) == calm
    assert not any(faults(found.path, 2, (2, 2)).values())


@pytest.mark.slow
def test_a_population_in_a_store(stored: MakeStored, make_sweep: Make, tmp_path: Path) -> None:
    """As in a folder, with the driver killed before and after an exchange, and a member's checkpoint damaged."""
    in_folder = run_sweep(make_sweep("population", **POPULATION)).study
    config = stored("population", **POPULATION)
    place, location = tmp_path / "population", config.study_location
    driver = Driver("run", place, config)
    driver.wait_for(lambda: driver.told("epoch") >= 2)
    driver.kill()
    driver = Driver("resume", place, location=location)
    driver.wait_for(lambda: any(trial.get("lineage") for trial in find_study(location).trials()))
    driver.kill()
    ahead = next(trial for trial in find_study(location).trials() if trial["lineage"])
    mirror = Mirror(location, tmp_path / "unused")
    names = mirror.found(f"trials/{ahead['trial_id']}", is_checkpoint)
    if len(names) > 1:  # of its own
        mirror.write(max(names), b"damaged")
    assert Driver("resume", place, location=location).finish().startswith("finished 0")
    found = find_study(location)
    assert results(found.path) == results(in_folder.path)
    assert [t["lineage"] for t in found.trials()] == [t["lineage"] for t in in_folder.trials()]


def test_a_study_is_run_looked_at_and_extended_by_its_uri(
    stored: MakeStored,
    make_sweep: Make,
    ray_cluster: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands, each as on a machine that has never seen the study; the results are those of a folder."""
    config = stored("command", tune={"num_samples": 1})
    file, uri = tmp_path / "command.yaml", config.study_location
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False))
    assert run(["sweep", str(file)]) == 0
    assert f"ddarts export {uri} --top 3" in capsys.readouterr().out
    names = objects(uri)
    assert "command/report.html" in names and "command/lease.json" not in names
    assert not any("/checkpoint-" in name for name in names), "the trials have ended"

    monkeypatch.setenv("DDARTS_CACHE", str(tmp_path / "fresh"))
    found = find_study(uri)
    calm = by_hand(make_sweep("by-hand", tune=TUNE), found.path)
    assert results(found.path) == calm and found.state == "FINISHED"
    assert not any(faults(found.path, 1, (2, 2)).values())
    assert "command" in [study.name for study in list_studies(config.storage)]
    at = ["--storage", config.storage]
    for command in (["status", uri], ["status", "command", *at], ["studies", *at]):
        assert run(command) == 0
        assert uri in capsys.readouterr().out
    for command in (["collect"], ["report"], ["export"]):
        assert run([*command, uri, "--out", str(tmp_path / command[0])]) == 0
    assert list((tmp_path / "collect").rglob("*.parquet"))
    assert (tmp_path / "report" / "report.html").exists() and list((tmp_path / "export").rglob("*.json"))

    monkeypatch.setenv("DDARTS_CACHE", str(tmp_path / "fresher"))
    capsys.readouterr()
    assert run(["sweep", str(file), "--num-samples", "1"]) == 0
    assert "FINISHED with 1 trials begun: 1 more" in capsys.readouterr().out
    found = find_study(uri)
    assert [trial["state"] for trial in found.trials()] == ["COMPLETED"] * 2
    assert results(found.path)[:1] == calm
    assert run(["sweep", str(file), "--new", "--address", "ray://127.0.0.1:1"]) == 2
    assert "this one is command-2" in capsys.readouterr().out


def test_bad_stores(stored: MakeStored, make_sweep: Make, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each, and nothing begun."""
    with pytest.raises(UserError, match=r"name an MLflow server in tracking\.uri"):
        make_sweep("untracked", storage=bucket)
    with pytest.raises(UserError, match="start it there, with auto"):
        run_sweep(stored("client"), address="ray://127.0.0.1:1")
    assert run(["status", f"{bucket}/missing"]) == 2
    err = capsys.readouterr().err
    assert "no study 'missing'" in err and bucket in err
    absent = "s3://nobodys-bucket/studies"
    for command in (["status", f"{absent}/missing"], ["studies", "--storage", absent]):
        assert run(command) == 2
        assert "bucket does not exist" in capsys.readouterr().err
    with pytest.raises(UserError, match="bucket does not exist"):
        run_sweep(stored("nowhere").model_copy(update={"storage": absent}))


def test_a_trial_writes_in_its_own_place_only(
    stored: MakeStored, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a trial of a run that lost the study still does is not sent. A trial knows the study's images."""
    from ddarts_tuning.store.study import trial_study

    config = stored("fenced")
    sent: list[str] = []
    spy(monkeypatch, "write", sent)
    with config.place.begin() as place:
        write_facts(place.folder, DataInfo("toy", 2, 1, 8, (0.5,), (0.2,)).to_dict())
        of_one = {"tune": {"num_samples": 1, "objective": "derived"}}
        study = create_study(place, {"objectives": [], "config": of_one, "base": {}, "state": "RUNNING"})
    assert sent == ["data.json", "study.json"], "a sweep that is killed once there is a study knows its images"
    assert isinstance(study.backend, ObjectStore)
    with lease.hold(study.backend.mirror):
        mine = trial_study(config.study_location, 0, tmp_path)
        assert read_info(mine.path) == DataInfo("toy", 2, 1, 8, (0.5,), (0.2,))
        (mine.path / "trials" / trial_name(0)).mkdir(parents=True)
        (mine.path / "trials" / trial_name(0) / "trial.json").write_text("{}")
        mine.push(f"trials/{trial_name(0)}")
        assert "fenced/trials/00000/trial.json" in objects(config.study_location)
    (mine.path / "trials" / trial_name(0) / "records.jsonl").write_text("{}")
    with pytest.raises(lease.LostLease):
        mine.push(f"trials/{trial_name(0)}")
    assert "fenced/trials/00000/records.jsonl" not in objects(config.study_location)


def test_what_is_removed_is_gone_in_the_store_and_in_the_copy(stored: MakeStored) -> None:
    """Whole folders and single files, and nothing whose name only begins alike."""
    uri = stored("removed").study_location
    study = create_study(uri, {"objectives": [], "config": {}, "state": "RUNNING"})
    assert isinstance(study.backend, ObjectStore)
    gone = ("ray/run/checkpoint_0/trial.pt", "ray/state.json", "trials/00000/checkpoint-000001.pt")
    kept = ("ray-2/state.json", "trials/00000/checkpoint-000002.pt", "trials/00000/trial.json")
    for name in (*gone, *kept):
        study.backend.mirror.write(name, b"{}")
        (study.path / name).parent.mkdir(parents=True, exist_ok=True)
        (study.path / name).write_text("{}")
    study.backend.remove(["ray", gone[2], "nothing"])
    assert objects(uri) == sorted(f"removed/{name}" for name in (*kept, "study.json"))
    assert [(study.path / name).exists() for name in (*gone, *kept)] == [False] * 3 + [True] * 3
    assert not (study.path / "ray").exists()
    study.push()
    study.pull()
    assert objects(uri) == sorted(f"removed/{name}" for name in (*kept, "study.json"))
