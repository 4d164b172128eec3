"""Whole sweeps with Ray, Optuna and MLflow on searches of seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ddarts_analysis.collect import read_table
from ddarts_analysis.mlflow_source import collect_from_mlflow
from ddarts_tuning.driver.events import SweepEvent
from ddarts_tuning.driver.sweep import StudyResult, resume_sweep, run_sweep
from ddarts_tuning.searchers.journal import open_journal
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.store.locks import lock
from ddarts_tuning.store.study import find_study, list_studies
from ddarts_tuning.tracking import study_run as tracking
from ddarts_tuning.tracking import trial_run

from ddarts_cli.commands.sweep import in_words
from ddarts_cli.main import run
from ddarts_cli.sweeping import ATTACHED
from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops import checkpoint
from ddarts_core.loops.confusion import balanced_accuracy, read_confusion
from ddarts_core.loops.records import read_jsonl
from ddarts_core.settings.config import resolve
from ddarts_core.tensors.compiler import check_compiler
from ddarts_core.training.retrain import Retrain

Make = Callable[..., SweepConfig]


pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.filterwarnings("ignore")]


def draw(genotype: Genotype, path: Path) -> None:
    path.write_bytes(b"\x89PNG " + genotype.hash.encode())


@pytest.fixture(scope="module")
def events() -> list[SweepEvent]:
    return []


@pytest.fixture(scope="module")
def done(make_sweep: Make, ray_cluster: None, events: list[SweepEvent]) -> StudyResult:
    return run_sweep(make_sweep("first"), draw=draw, listener=events.append)


def records_of(result: StudyResult, trial: dict[str, Any]) -> list[dict[str, Any]]:
    folder = result.study.path / "trials" / trial["trial_id"]
    return [record.to_dict() for record in read_jsonl(folder / "records.jsonl")]


def test_every_trial_ends_and_is_recorded(done: StudyResult) -> None:
    assert not done.interrupted and done.untracked == 0 and done.message == ""
    assert [trial["state"] for trial in done.trials] == ["COMPLETED"] * 3
    assert done.best is not None
    values = [trial["objectives"]["derived/held_out/accuracy"] for trial in done.trials]
    assert values == sorted(values, reverse=True)
    for trial in done.trials:
        folder = done.study.path / "trials" / trial["trial_id"]
        phases = [(record["phase"], record["epoch"]) for record in records_of(done, trial)]
        assert phases == [("search", 0), ("search", 1), ("retrain", 0), ("retrain", 1)]
        assert Genotype.load(folder / "genotype.json").hash == trial["genotype_hash"]
        assert trial["cost"]["parameters"] > 0 and trial["cost"]["macs"] > 0
        assert ("ablation.weight" in trial["params"]) == (trial["params"]["ablation.loss"] == "centered")
    facts = json.loads((done.study.path / "data.json").read_text())
    assert facts["name"] == "digits" and facts["classes"] == [str(digit) for digit in range(10)]
    assert not list(done.study.path.glob("trials/*/data.json"))  # theirs are the study's
    assert done.study.state == "FINISHED"
    assert [study.name for study in list_studies(done.study.path.parent)] == ["first"]


def test_the_objective_is_the_derived_networks_accuracy_on_images_that_trained_nothing(done: StudyResult) -> None:
    """Done again by hand: weights and alphas splits train, held_out scores."""
    import torch

    trial = done.trials[0]
    config = resolve(trial["config"])
    info, images = load_train(config.data)
    splits = split(images, config.data, config.seed)
    train = type(images)(
        torch.cat([splits.weights.images, splits.alphas.images]),
        torch.cat([splits.weights.labels, splits.alphas.labels]),
    )
    genotype = Genotype.load(done.study.path / "trials" / trial["trial_id"] / "genotype.json")
    retrain = Retrain(config.retrain, genotype, info, train, None, config.seed)
    losses = [record.metrics["train/loss"] for record in retrain.records()]
    stored = [record["metrics"]["train/loss"] for record in records_of(done, trial) if record["phase"] == "retrain"]
    assert losses == pytest.approx(stored, rel=1e-5)
    accuracy = retrain.evaluate(splits.held_out).metrics["accuracy"]
    assert trial["derived"]["held_out/accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert trial["objectives"] == {"derived/held_out/accuracy": trial["derived"]["held_out/accuracy"]}
    [kept] = done.study.path.glob("trials/*/weights.pt")  # of the best trial alone
    assert kept.parent.name == trial["trial_id"]
    weights = checkpoint.load(kept)["weights"]
    assert all(torch.allclose(value, retrain.weights()[name], rtol=1e-3, atol=1e-3) for name, value in weights.items())


def test_mlflow_has_the_whole_study(done: StudyResult, tmp_path: Path) -> None:
    data = done.study.data
    assert data["tracking_uri"] == f"sqlite:///{done.study.path}/mlflow.db"
    client = tracking.make_client(data["tracking_uri"])
    parent = client.get_run(data["parent_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["tune.num_samples"] == "3"
    children = client.search_runs(
        [data["experiment_id"]], f"tags.`mlflow.parentRunId` = '{data['parent_run_id']}'", order_by=["tags.trial_id"]
    )
    trials = done.study.trials()
    assert [child.info.run_id for child in children] == [trial["run_id"] for trial in trials]
    for child, trial in zip(children, trials, strict=True):
        assert child.info.status == "FINISHED"
        for tag in ("ray_trial_id", "trial_id", "config_hash"):
            assert child.data.tags[tag] == trial[tag]
        assert child.data.tags["version.torch"] == data["versions"]["torch"]
        assert child.data.params["search.w_zero_one"] == str(trial["params"]["search.w_zero_one"])
        for name in ("train/loss", "alpha/loss", "held_out/accuracy", "operations/over_0.9", "operations/under_0.1"):
            history = client.get_metric_history(child.info.run_id, name)
            assert sorted(metric.step for metric in history) == [0, 1], name
        if trial["params"]["ablation.loss"] == "centered":
            for cell in range(3):
                history = client.get_metric_history(child.info.run_id, f"contribution/cell_{cell}")
                assert sorted(metric.step for metric in history) == [0, 1]
        assert child.data.metrics["derived/held_out/accuracy"] == trial["derived"]["held_out/accuracy"]
        assert child.data.metrics["parameters"] == trial["cost"]["parameters"]
        names = {item.path for item in client.list_artifacts(child.info.run_id)}
        assert names == {"genotype.json", "genotype.png", "records.jsonl", "confusion.json", "mistakes.json"}
        found = Path(client.download_artifacts(child.info.run_id, "confusion.json", str(tmp_path)))
        ((one,), classes) = read_confusion(found)[::-1]
        assert len(classes) == 10 and one.split == "held_out" and sum(map(sum, one.matrix)) == 30
        assert child.data.metrics["derived/held_out/balanced_accuracy"] == balanced_accuracy(one.matrix)


def test_the_optuna_journal_has_every_trial(done: StudyResult) -> None:
    study = open_journal(done.study.path / "optuna.log", "first", {"directions": ["maximize"]})
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 3
    assert study.best_value == done.trials[0]["objectives"]["derived/held_out/accuracy"]


def test_the_watcher_is_told(done: StudyResult, events: list[SweepEvent]) -> None:
    first = [event for event in events if event.number == 0]
    assert [event.kind for event in first] == ["started"] + ["epoch"] * 4 + ["finished"]
    assert [event.epochs for event in first] == [0, 1, 2, 3, 4, 4]
    assert {event.num_epochs for event in first} == {4}
    assert [event.phase for event in first] == ["search", "search", *["retrain"] * 3, ""]
    assert first[-1].state == "COMPLETED" and first[-1].objectives


def test_an_existing_study_is_refused_with_the_way_to_go_on(done: StudyResult, make_sweep: Make) -> None:
    with pytest.raises(UserError, match=r"'first' exists already.*`ddarts resume "):
        run_sweep(make_sweep("first"))


def test_a_study_has_a_folder_of_its_own(make_sweep: Make, tmp_path: Path) -> None:
    config = make_sweep("search", storage=str(tmp_path))
    config.study_dir.mkdir()
    (config.study_dir / "genotype.json").write_text("of a search")
    with pytest.raises(UserError, match=r"holds genotype\.json and no study: give the study a folder of its own"):
        run_sweep(config)
    assert [file.name for file in config.study_dir.iterdir()] == ["genotype.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: give a study another folder"):
        run_sweep(make_sweep("file", storage=str(tmp_path)))


def test_what_tracking_refuses_leaves_no_folder(make_sweep: Make, tmp_path: Path) -> None:
    config = make_sweep("refused", storage=str(tmp_path), tracking={"uri": "sqlite:////proc/none/mlflow.db"})
    with pytest.raises(UserError, match=r"tracking\.uri .* cannot be used"):
        run_sweep(config)
    assert not config.study_dir.exists()


def test_of_two_processes_that_begin_a_study_one_is_told(make_sweep: Make, tmp_path: Path) -> None:
    config = make_sweep("two", storage=str(tmp_path))
    config.study_dir.mkdir()
    with lock(config.study_dir), pytest.raises(UserError, match="another sweep is creating study 'two'"):
        run_sweep(config)
    assert [file.name for file in config.study_dir.iterdir()] == [".lock"]


def test_a_sweep_whose_trials_fail_alike_stops_and_goes_on_when_told(make_sweep: Make) -> None:
    """Four points contradict themselves in numbers of their own; the fifth is drawn among good ones."""
    points = [{"search.lr": lr, "search.lr_min": lr_min} for lr_min in (0.004, 0.005) for lr in (0.001, 0.002)]
    config = make_sweep(
        "alike",
        space={
            "search.lr": {"type": "categorical", "choices": [0.03, 0.001, 0.002]},
            "search.lr_min": {"type": "categorical", "choices": [0.0, 0.004, 0.005]},
        },
        search={"epochs": 1},
        retrain={"epochs": 1},
        tune={
            "num_samples": 5,
            "max_concurrent": 1,
            "points_to_evaluate": [*points, {"search.lr": 0.03, "search.lr_min": 0.0}],
        },
    )
    with pytest.raises(UserError, match=r"3 trials failed .* lr_min 0\.005 must not .*resume .*alike --failed`"):
        run_sweep(config)
    study = find_study(config.study_dir)
    assert study.state == "INTERRUPTED"
    assert [trial["state"] for trial in study.trials()] == ["FAILED"] * 3
    result = resume_sweep(config.study_dir)
    assert result.study.state == "FINISHED"
    assert [trial["state"] for trial in result.study.trials()] == ["FAILED"] * 4 + ["COMPLETED"]


@pytest.mark.parametrize("group", ["search", "retrain"])
def test_without_a_compiler_nothing_is_begun(make_sweep: Make, group: str) -> None:
    config = make_sweep("compiled", **{group: {"compile": "default"}})
    check_compiler.cache_clear()
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/no/compiler",)}),
        pytest.raises(
            UserError, match=r"torch\.compile does not work .*compiler.*: install .*" + group + r"\.compile=none"
        ),
    ):
        run_sweep(config)
    assert not config.study_dir.exists()


def test_resuming_a_finished_study_runs_nothing(done: StudyResult) -> None:
    before = [trial["ray_trial_id"] for trial in done.study.trials()]
    again = resume_sweep(done.study.path)
    assert not again.interrupted
    assert [trial["ray_trial_id"] for trial in again.study.trials()] == before


def test_failed_and_stopped_trials_leave_the_others_alone(make_sweep: Make) -> None:
    """Point 0 is good; 1 diverges; 2 contradicts itself; 3 is worse than 0 after an epoch, so ASHA stops it."""
    good = {"search.lr": 0.03, "search.lr_min": 0.0, "search.weight_decay": 0.0}
    points = [
        good,
        {**good, "search.lr": 10.0, "search.weight_decay": 1.0},
        {**good, "search.lr": 0.002, "search.lr_min": 0.004},
        {**good, "search.lr": 0.3},
    ]
    result = run_sweep(
        make_sweep(
            "troubles",
            space={
                "search.lr": {"type": "categorical", "choices": [0.03, 0.3, 0.002, 10.0]},
                "search.lr_min": {"type": "categorical", "choices": [0.0, 0.004]},
                "search.weight_decay": {"type": "categorical", "choices": [0.0, 1.0]},
            },
            search={"batch_size": 6},
            ablation={"loss": "none"},
            tune={
                "num_samples": 4,
                "scheduler": "asha",
                "reduction_factor": 2,
                "objective": "supernet",
                "second_objective": "parameters",
                "points_to_evaluate": points,
            },
        )
    )
    trials = result.study.trials()
    assert [trial["params"] for trial in trials] == points
    assert [trial["state"] for trial in trials] == ["COMPLETED", "FAILED", "FAILED", "PRUNED"]
    assert trials[0]["objectives"].keys() == {"held_out/accuracy", "parameters"}
    assert trials[0]["derived"] is None
    assert "nan" in trials[1]["reason"] or "inf" in trials[1]["reason"]
    assert "lr_min 0.004 must not exceed lr 0.002" in trials[2]["reason"]
    assert len(records_of(result, trials[3])) == 1
    journal = open_journal(result.study.path / "optuna.log", "troubles", {"directions": ["maximize", "minimize"]})
    assert [trial.state.name for trial in journal.get_trials()] == ["COMPLETE", "FAIL", "FAIL", "PRUNED"]
    client = tracking.make_client(result.study.data["tracking_uri"])
    status = [client.get_run(trial["run_id"]).info.status for trial in trials]
    assert status == ["FINISHED", "FAILED", "FAILED", "KILLED"]
    assert client.get_run(trials[1]["run_id"]).data.tags["reason"] == trials[1]["reason"]


def test_a_trial_whose_process_cannot_be_set_up_fails_and_counts(
    make_sweep: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's process dies before it has written anything; then what was in its way is gone."""
    tune = {"num_samples": 2, "objective": "supernet", "max_failures": 1}
    config = make_sweep("setup", search={"epochs": 1}, tune=tune)
    barrier = config.study_dir / ".workers"  # where a trial's process notes that it is there

    def clear(event: SweepEvent) -> None:
        if event.kind == "finished" and event.number == 0:
            barrier.rmdir()

    monkeypatch.setattr("ddarts_tuning.store.backend.await_workers", lambda *given: barrier.mkdir())
    result = run_sweep(config, listener=clear)
    assert not result.interrupted and result.study.state == "FINISHED"
    first, second = result.study.trials()
    assert [first["state"], second["state"]] == ["FAILED", "COMPLETED"]
    assert "Is a directory" in first["reason"] and first.keys() == second.keys()
    assert first["config"]["search"]["w_zero_one"] == first["params"]["search.w_zero_one"]
    journal = open_journal(result.study.path / "optuna.log", "setup", {"directions": ["maximize"]})
    assert [trial.state.name for trial in journal.get_trials()] == ["FAIL", "COMPLETE"]
    client = tracking.make_client(result.study.data["tracking_uri"])
    assert [client.get_run(trial["run_id"]).info.status for trial in (first, second)] == ["FAILED", "FINISHED"]


def test_mlflow_down_costs_no_trial_and_loses_nothing(make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is unreachable from the beginning of a trial to its end; a resume delivers everything."""
    real = tracking.start_study

    def start_and_stop(uri: str, *arguments: Any) -> tuple[str, str]:
        found = real(uri, *arguments)
        path = uri.removeprefix("sqlite:///")
        tracking.make_client(uri)._tracking_client.store.engine.dispose()  # an open file outlives its name
        os.rename(path, path + ".kept")
        os.mkdir(path)
        return found

    monkeypatch.setattr(tracking, "start_study", start_and_stop)
    monkeypatch.setattr(trial_run, "PATIENCE_S", 0.0)
    result = run_sweep(make_sweep("outage", tune={"num_samples": 1}))
    assert [trial["state"] for trial in result.trials] == ["COMPLETED"]
    database = result.study.path / "mlflow.db"
    assert database.is_dir() and result.untracked == 1

    database.rmdir()
    (result.study.path / "mlflow.db.kept").rename(database)
    again = resume_sweep(result.study.path, draw=draw)
    assert again.untracked == 0
    client = tracking.make_client(result.study.data["tracking_uri"])
    for trial in find_study(result.study.path).trials():
        history = client.get_metric_history(trial["run_id"], "train/loss")
        assert [metric.step for metric in history] == [0, 1]
        assert client.get_run(trial["run_id"]).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("cpu", "gpu", "words"),
    [(1.0, 0.0, "1 core"), (0.5, 0.25, "0.5 cores, 0.25 of a GPU"), (2.0, 1.0, "2 cores, 1 GPU")],
)
def test_what_a_trial_takes_in_words(cpu: float, gpu: float, words: str) -> None:
    assert in_words(cpu, gpu) == words


def test_the_command_attaches_the_report_and_figures_to_the_studys_run(
    make_sweep: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tune = {"num_samples": 2, "resources": "auto", "metric": "balanced_accuracy", "scheduler": "asha"}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(make_sweep("command", tune=tune).model_dump(mode="json")))
    assert run(["sweep", str(file)]) == 0
    study = find_study(make_sweep("command").study_dir)
    said = capfd.readouterr().out
    assert f"wrote {study.path}/report.html" in said
    taken = study.data["config"]["tune"]["resources"]
    assert f"each trial: {in_words(taken['cpu'], taken['gpu'])}" in said
    balanced = "derived/held_out/balanced_accuracy"
    assert study.objectives == [(balanced, "max")]
    values = [trial["objectives"][balanced] for trial in study.ranked()]
    assert values == sorted(values, reverse=True) and balanced in said
    page = (study.path / "report.html").read_text()
    assert "held-out balanced accuracy of the best" in page and "Confusion matrix" in page
    stored = open_journal(study.path / "optuna.log", study.name, {}).get_trials()
    assert [trial.values[0] for trial in stored] == [trial["objectives"][balanced] for trial in study.trials()]
    collect_from_mlflow(str(study.data["tracking_uri"]), study.name, tmp_path / "dataset")
    collected = read_table(tmp_path / "dataset", "trials")
    assert [json.loads(text) for text in collected["objectives_json"]] == [t["objectives"] for t in study.trials()]
    assert collected["derived_balanced_accuracy"].tolist() == [t["objectives"][balanced] for t in study.trials()]
    client = tracking.make_client(study.data["tracking_uri"])
    parent = study.data["parent_run_id"]
    names = [item.path for folder in (None, "figures") for item in client.list_artifacts(parent, folder)]
    assert names == ["config.yaml", "figures", "report.html", *(f"figures/{name}.png" for name in sorted(ATTACHED))]
    for name in ("report.html", "figures/pareto.png"):
        kept = Path(client.download_artifacts(parent, name, str(tmp_path)))
        assert kept.read_bytes() == (study.path / name).read_bytes()


def test_ray_has_few_processes_and_does_not_remember_every_call() -> None:
    """Of a long study the head would: its process has the setting when it starts."""
    import ray

    processes = ray._private.worker._global_node.all_processes
    assert processes.keys() == {"gcs_server", "raylet"}
    [head] = processes["gcs_server"]
    environment = Path(f"/proc/{head.process.pid}/environ").read_bytes().split(b"\0")
    assert b"RAY_task_events_report_interval_ms=0" in environment
