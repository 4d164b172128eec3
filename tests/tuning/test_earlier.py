"""Studies that an earlier version made, when Ray's state was half of their truth; their pickles are left out."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from ddarts_tuning.driver.extending import extend_sweep
from ddarts_tuning.driver.sweep import resume_sweep, stored_config
from ddarts_tuning.store.study import find_study, trial_dir
from ddarts_tuning.tracking.study_run import child_runs

from ddarts_cli.main import run
from ddarts_core.loops.records import read_jsonl
from ddarts_core.studies.study_files import write_json
from tests.tuning.processes import faults, results

DATA = Path(__file__).parent / "data" / "version_1.tar.xz"
"""`finished` has two trials. `interrupted` was killed in the third epoch of four of the second of its three trials."""

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    with tarfile.open(DATA) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_an_interrupted_study_goes_on_from_the_checkpoints_that_ray_kept(studies: Path) -> None:
    path = studies / "interrupted"
    before = results(path)
    epochs = read_jsonl(path / "trials" / "00001" / "records.jsonl")
    assert find_study(path).state == "INTERRUPTED" and len(epochs) == 3
    file = path / "trials" / "00001" / "records.jsonl"
    file.write_text(file.read_text()[:-9])  # cut off
    done = resume_sweep(path)
    assert not done.interrupted and not any(faults(path, 3, (2, 2)).values())
    after = results(path)
    assert after[0] == before[0] and after[1][1] == before[1][1]
    assert [record.seconds for record in read_jsonl(path / "trials" / "00001" / "records.jsonl")[:3]] == [
        record.seconds for record in epochs
    ], "none was done again"
    assert not list(path.glob("ray*")), "nothing of it is of use any more"


@pytest.mark.parametrize("more", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["again", "more"])
def test_a_finished_study_opens_reports_exports_and_gets_trials(more: bool, studies: Path, tmp_path: Path) -> None:
    """And a trial of it that failed is run again under its number, with its parameters.

    Its training rounds otherwise than that of the version that began it, so that MLflow has its epochs in a run of
    their own, and the earlier run no more.
    """
    path = studies / "finished"
    before = find_study(path).trials()
    for command in (["status"], ["report", "--out", str(tmp_path)], ["export", "--out", str(tmp_path / "best")]):
        assert run([command[0], str(path), *command[1:]]) == 0
    failure = {"state": "FAILED", "reason": "its process died", "objectives": None}
    write_json(trial_dir(path, 1) / "trial.json", {**before[1], **failure})
    assert run(["resume", str(path), "--failed"]) == 0
    first, second = find_study(path).trials()
    assert first == before[0] and (second["state"], second["reason"]) == ("COMPLETED", None)
    assert [second[key] for key in ("number", "params")] == [before[1][key] for key in ("number", "params")]
    runs = {(first["run_id"], "00000"), (second["run_id"], "00001")}
    assert set(child_runs(find_study(path), "FINISHED")) == runs and second["run_id"] != before[1]["run_id"]
    assert not any(faults(path, 2, (2, 2)).values())
    if not more:
        return
    same = stored_config(find_study(path)).model_copy(update={"storage": str(studies)})
    done = extend_sweep(same, 1)
    assert not done.interrupted and done.study.trials()[:2] == [first, second]
    assert not any(faults(path, 3, (2, 2)).values())
    done.study.update(state="RUNNING")  # it was killed when all had ended, and before it could say so
    again = resume_sweep(path)
    assert (again.interrupted, again.study.state, again.study.trials()) == (False, "FINISHED", done.study.trials())
