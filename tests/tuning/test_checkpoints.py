"""Which checkpoints stay, whatever numbers Ray gives them."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.trainable.metadata import _TrainingRunMetadata

from tests.tuning.processes import Driver, epochs_of, faults, repeats, results
from tests.tuning.test_population import POPULATION
from tuning.callback import ACTIVE, Active, Ends, Session, StudyCallback
from tuning.checkpoints import passed, superseded
from tuning.config import SweepConfig
from tuning.locks import await_workers
from tuning.mirror import Mirror
from tuning.snapshots import kept
from tuning.study import find_study

Make = Callable[..., SweepConfig]


@pytest.mark.parametrize(
    ("written", "newest", "deleted"),
    [
        ({"c_1": 1, "c_2": 2, "c_3": 3}, "c_3", ["c_1"]),
        ({"c_1": 3, "c_7": 1, "c_8": 2}, "c_1", ["c_7"]),  # the numbers begin anew
        ({"c_1": 1, "c_7": 1, "c_8": 2}, "c_1", ["c_7"]),  # the clock was set back
        ({"c_1": 5, "c_2": 5, "c_3": 5, "c_9": 1}, "c_3", ["c_9", "c_1"]),  # a store's clock of whole seconds
        ({"c_1": 1, "c_2": 2}, "c_2", []),
        ({"c_1": 1}, "c_1", []),
    ],
)
def test_the_newest_and_the_one_before_it_stay(written: dict[str, int], newest: str, deleted: list[str]) -> None:
    assert superseded(written, newest, 2) == deleted


class Shelf:
    """The checkpoints of trials in a study's folder, or in a store, and the callback that keeps them.

    Args:
        folder: of the study, or of its copy.
        stored: whether it is in a store.
        num_kept: of a trial; None for a population.
    """

    def __init__(self, folder: Path, stored: bool, num_kept: int | None) -> None:
        self._folder = folder
        self._mirror = Mirror(f"memory://{uuid.uuid4().hex}/study", folder) if stored else None
        self.root = self._mirror.root if self._mirror else str(folder)
        self.location = self._mirror.uri if self._mirror else str(folder)
        self.callback = StudyCallback(self.location, 9, num_kept)
        self._moment = 2_000_000_000
        rounds = [{"folder": "ray"}]
        silent = dict.fromkeys(("pull", "push"), lambda *below: None)
        self._study: Any = SimpleNamespace(mirror=self._mirror, path=folder, rounds=rounds, **silent)

    def write(self, name: str) -> None:
        """A checkpoint, later than those before."""
        self._moment += 1
        if self._mirror:
            self._mirror.write(f"{name}/trial.pt", b"state")
            return
        (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / name / "trial.pt").write_text("state")
        os.utime(self._folder / name / "trial.pt", (self._moment, self._moment))

    def run(self, call: Callable[[], None]) -> set[str]:
        """Do something while the study runs; the checkpoints that there are then."""
        ends = Ends(None)
        ACTIVE[self.location] = Active(self._study, Session(), ends)
        call()
        ends.close()
        del ACTIVE[self.location]
        if self._mirror:
            files = [path.removeprefix(f"{self.root}/") for path in self._mirror.fs.find(self.root)]
        else:
            files = [file.relative_to(self._folder).as_posix() for file in self._folder.glob("ray/*/*/trial.pt")]
        return {file.removesuffix("/trial.pt").removeprefix("ray/") for file in files}


@pytest.mark.parametrize("stored", [False, True])
def test_numbers_that_begin_anew(stored: bool, tmp_path: Path) -> None:
    """Ray counts on from an older state, then over a checkpoint that there is."""
    shelf = Shelf(tmp_path, stored, num_kept=2)
    for number, left in ((6, {6}), (7, {6, 7}), (0, {7, 0}), (1, {0, 1}), (7, {1, 7}), (2, {7, 2})):
        name = f"ray/00000_x/checkpoint_{number:06d}"
        shelf.write(name)
        written: Any = SimpleNamespace(path=f"{shelf.root}/{name}")
        found = shelf.run(lambda written=written: shelf.callback.on_checkpoint(0, [], None, written))  # type: ignore[misc]  # no type for a default
        assert found == {f"00000_x/checkpoint_{each:06d}" for each in left}


@pytest.mark.parametrize("num_kept", [2, None])
@pytest.mark.parametrize("stored", [False, True])
def test_the_end_of_a_trial(
    stored: bool, num_kept: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints go, also those under a name that Ray gave it before; those of a population may be followed."""
    monkeypatch.setattr("tuning.callback.track_end", lambda *trial: True)
    shelf = Shelf(tmp_path, stored, num_kept)
    names = [f"{number}/checkpoint_{each:06d}" for number in ("00000_x", "00000_y", "00001_z") for each in (3, 4)]
    for name in names:
        shelf.write(f"ray/{name}")
    (tmp_path / "trials" / "00000").mkdir(parents=True)
    file = tmp_path / "trials" / "00000" / "trial.json"
    file.write_text(json.dumps({"seconds": 1.0, "objectives": None}))
    trial: Any = SimpleNamespace(config={"number": 0, "params": {}}, last_result={"epochs": 4})
    left = shelf.run(lambda: shelf.callback.on_trial_complete(0, [], trial))
    assert json.loads(file.read_text())["state"] == "PRUNED"
    assert left == set(names[4:] if num_kept else names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_kills_around_the_end_of_a_trial(make_sweep: Make) -> None:
    """Ray goes on with a trial that ended, whose checkpoints are gone: the results are those without a kill."""
    groups: dict[str, Any] = {"search": {"epochs": 12}, "retrain": {"epochs": 1}, "tune": {"num_samples": 2}}
    config = make_sweep("calm", **groups)
    assert Driver("run", config.study_dir, config).finish().startswith("finished 0")
    calm = results(config.study_dir)
    config = make_sweep("ending", **groups)
    path = config.study_dir

    def checkpoints() -> list[Path]:
        return list(path.glob("ray/00000_*/checkpoint_*/trial.pt"))

    driver = Driver("run", path, config)
    driver.wait_for(lambda: epochs_of(path, 0) > 0 and find_study(path).trials()[0]["state"] == "COMPLETED")
    driver.kill()
    for _ in range(2):
        driver = Driver("resume", path)
        driver.wait_for(lambda: find_study(path).trials()[0]["state"] == "COMPLETED" and not checkpoints())
        driver.kill()
        await_workers(path)
        assert latest(path)[0] is not None, "Ray has noted a checkpoint that is gone"
    driver = Driver("resume", path)
    driver.wait_for(lambda: epochs_of(path, 1) >= 1)
    driver.kill()
    assert Driver("resume", path).finish().startswith("finished 0")
    assert not any(faults(path, 2, (12, 1)).values())
    assert results(path) == calm
    assert not list(path.glob("ray/*/checkpoint_*"))


# --- a population -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "named", "deleted"),
    [
        ({"a/1": 1, "a/2": 2, "a/3": 3, "a/4": 4}, {"a/3"}, ["a/1"]),
        ({"a/1": 1, "a/2": 2, "a/3": 3, "b/1": 1, "b/2": 2, "b/3": 3}, {"a/3", "b/3"}, ["a/1", "b/1"]),
        ({"a/1": 1, "a/2": 2, "a/3": 3, "a/4": 4, "b/1": 1}, {"a/4", "a/2"}, []),  # b goes on from a's second
        ({"a/1": 1, "a/2": 2, "a/3": 3}, {"b/1"}, []),
        ({"a/1": 5, "a/2": 6, "a/7": 1, "a/8": 2, "a/9": 3}, {"a/1"}, ["a/7", "a/8"]),  # the numbers begin anew
        ({"a/1": 5, "a/2": 5, "a/3": 5}, {"a/3"}, []),  # a store's clock of whole seconds
    ],
)
def test_of_a_population_all_stay_that_a_member_may_go_on_from(
    written: dict[str, int], named: set[str], deleted: list[str]
) -> None:
    assert sorted(passed(written, named)) == deleted


@pytest.mark.parametrize("stored", [False, True])
def test_a_population_forgets_what_ray_has_passed(stored: bool, tmp_path: Path) -> None:
    """The second member follows the first in its third state, after both have come to their fourth."""
    shelf = Shelf(tmp_path, stored, num_kept=None)

    def keep(*latest: str) -> set[str]:
        trials = [SimpleNamespace(checkpoint=SimpleNamespace(path=f"{shelf.root}/ray/{name}")) for name in latest]
        return shelf.run(lambda: shelf.callback._forget(tmp_path / "ray", trials))

    both = [f"{member}/checkpoint_{number}" for number in range(1, 6) for member in "ab"]
    for name in both[:8]:
        shelf.write(f"ray/{name}")
    assert keep("a/checkpoint_3", "b/checkpoint_3") == set(both[:8]), "an earlier state may name the first ones"
    assert keep("a/checkpoint_4", "a/checkpoint_3") == set(both[2:8])
    for name in both[8:]:
        shelf.write(f"ray/{name}")
    assert keep("a/checkpoint_5", "b/checkpoint_5") == set(both[2:]), "a's third was named"
    assert keep("a/checkpoint_5", "b/checkpoint_5") == set(both[6:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_the_kept_state_of_a_population_names_is_there(make_sweep: Make) -> None:
    """Killed when the first checkpoints of both members are forgotten, after an exchange."""
    tune = {**POPULATION["tune"], "num_samples": 2, "exchanged": 0.5, "exchange_every": 5}
    config = make_sweep("many", **{**POPULATION, "search": {"epochs": 100}, "tune": tune})
    path = config.study_dir
    driver = Driver("run", path, config)
    driver.wait_for(lambda: all(epochs_of(path, number) >= 7 for number in range(2)))
    driver.wait_for(lambda: not any(path.glob("ray/*/checkpoint_000000")))
    driver.kill()
    await_workers(path)
    for checkpoint in latest(path):
        assert checkpoint is not None and (checkpoint / "trial.pt").exists()


def latest(path: Path) -> list[Path | None]:
    """The checkpoint from which each trial goes on, by the state of Ray that is kept."""
    [state] = kept(path / "ray")
    [*_, newest] = sorted(state.glob("experiment_state-*.json"))
    runs = [_TrainingRunMetadata.from_json_state(run) for _, run in json.loads(newest.read_text())["trial_data"]]
    found = [run.checkpoint_manager.latest_checkpoint_result for run in runs]
    return [Path(result.checkpoint.path) if result else None for result in found]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_kill_after_a_resume_costs_more_than_an_epoch(make_sweep: Make) -> None:
    """Ray's last state is up to ten checkpoints old: killed before, at and past the numbers that it began anew at."""
    tune = {"num_samples": 1, "searcher": "random", "max_failures": 9}
    config = make_sweep("again", search={"epochs": 20}, retrain={"epochs": 1}, tune=tune)
    path = config.study_dir
    driver = Driver("run", path, config)
    for epochs in (9, 15):
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs)  # type: ignore[misc]  # no type for a default
        driver.kill()
        driver = Driver("resume", path)
        driver.wait_for(lambda epochs=epochs: epochs_of(path, 0) >= epochs + 2)  # type: ignore[misc]  # no type for a default
        for worker in driver.workers():
            os.kill(worker, signal.SIGKILL)
    assert driver.finish().startswith("finished 0")
    assert max(repeats(path)) <= 1
    assert not any(faults(path, 1, (20, 1)).values())
