"""MLflow gets everything once, now or later, and never a secret."""

from __future__ import annotations

import dataclasses
import getpass
import http.server
import json
import logging
import math
import re
import shlex
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ddarts_analysis.mlflow_runs import read_artifacts, read_runs, study_names
from ddarts_tuning.driver.new_study import create_study, new_study
from ddarts_tuning.settings.config import resolve_sweep
from ddarts_tuning.store.study import Study, trial_dir
from ddarts_tuning.tracking import machine, overview, patience, trial_run
from ddarts_tuning.tracking import study_run as tracking

from ddarts_cli.sweeping import store_sentence
from ddarts_core.datasets.facts import DataInfo, document, write_facts
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.settings.idle import idle
from ddarts_core.studies.study_files import write_json

RECORDS = [
    EpochRecord(
        epoch=epoch,
        phase="warmup" if epoch == 0 else "search",
        metrics={"train/loss": 2.0 - epoch, "held_out/accuracy": 0.1 * epoch, "operations/over_0.9": epoch},
        contributions=(-0.5, float("nan"), -0.1),
        seconds={"weights": 0.1},
    )
    for epoch in range(3)
] + [EpochRecord(epoch, "retrain", {"train/loss": 1.0}) for epoch in range(2)]
GENOTYPE = Genotype((Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), concat=(2,)),))


@pytest.fixture
def study(study_path: Path) -> Study:
    study_path.mkdir(parents=True)
    uri = tracking.tracking_uri(None, study_path)
    experiment, parent = tracking.start_study(uri, "study", "study", {"seed": "1"}, {})
    return create_study(
        study_path,
        {
            "tracking_uri": uri,
            "experiment_id": experiment,
            "parent_run_id": parent,
            "git_commit": "abc",
            "versions": {"python": "3"},
            "state": "RUNNING",
            "config": {"tracking": {"experiment": None}},
            "objectives": [],
        },
    )


@pytest.mark.parametrize("uri", ["ftp://place", "nonsense://"])
def test_an_address_of_no_store_is_one_sentence(uri: str) -> None:
    with pytest.raises(
        UserError, match=r"^tracking\.uri '.*' cannot be used: .*http://HOST:PORT.*sqlite:///FILE"
    ) as said:
        tracking.start_study(uri, "study", "study", {}, {})
    assert "\n" not in str(said.value)


def test_of_two_that_begin_a_study_in_a_store_the_second_leaves_no_run(tmp_path: Path) -> None:
    space = {"search.lr": {"type": "float", "low": 0.01, "high": 0.1}}
    uri = f"sqlite:///{tmp_path}/ml.db"
    config = resolve_sweep({"storage": f"memory://{tmp_path.name}", "space": space, "tracking": {"uri": uri}})
    study = new_study(config)
    with pytest.raises(UserError, match="exists already"):
        new_study(config)
    [run] = tracking.make_client(uri).search_runs([study.data["experiment_id"]])
    assert run.info.run_id == study.data["parent_run_id"]


def write_trial(study: Study, **fields: Any) -> Path:
    folder = trial_dir(study.path, fields.get("number", 0))
    data: dict[str, Any] = {
        "schema": 1,
        "trial_id": "00000",
        "ray_trial_id": "ray1",
        "number": 0,
        "seed": 3,
        "config": {"method": "ddarts", "search": {"lr": 0.1, "hessian": "exact", "reductions": None}},
        "config_hash": "0123",
        "begun": "2026-01-01T00:00:00.000000+00:00",
        "state": "RUNNING",
        "reason": None,
        "objectives": None,
        "derived": None,
        "cost": None,
        "genotype_hash": None,
        "params": {"search.lr": 0.1},
        "seconds": 2.5,
    }
    write_json(folder / "trial.json", data | fields)
    return folder


def runs(study: Study) -> list[Any]:
    client = tracking.make_client(study.data["tracking_uri"])
    query = f"tags.`mlflow.parentRunId` = '{study.data['parent_run_id']}'"
    return list(client.search_runs([study.data["experiment_id"]], query))


def history(study: Study, run_id: str, name: str) -> list[tuple[int, float]]:
    client = tracking.make_client(study.data["tracking_uri"])
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


def test_a_trial_from_start_to_end(study: Study) -> None:
    folder = write_trial(study)
    run = trial_run.TrialRun(study, folder)
    assert run.sync([])
    assert run.sync(RECORDS[:2])
    write_jsonl(folder / "records.jsonl", RECORDS)
    (folder / "genotype.json").write_text(GENOTYPE.to_json())
    write_trial(
        study,
        state="COMPLETED",
        derived={"held_out/accuracy": 0.7},
        cost={"parameters": 10, "macs": 20},
        objectives={"derived/held_out/accuracy": 0.7},
        genotype_hash=GENOTYPE.hash,
    )
    assert trial_run.TrialRun(study, folder).finish(lambda genotype, path: path.write_bytes(b"png"), artifacts=True)

    (found,) = runs(study)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"method": "ddarts", "search.lr": "0.1", "search.reductions": "None"}
    tags = found.data.tags
    expected = {
        "ray_trial_id": "ray1",
        "seed": "3",
        "config_hash": "0123",
        "git_commit": "abc",
        "version.python": "3",
        "state": "COMPLETED",
        "genotype_hash": GENOTYPE.hash,
    }
    assert {key: tags[key] for key in expected} == expected
    metrics = found.data.metrics
    assert (metrics["derived/held_out/accuracy"], metrics["parameters"], metrics["macs"]) == (0.7, 10, 20)
    assert history(study, found.info.run_id, "train/loss") == [(0, 2.0), (1, 1.0), (2, 0.0)]
    assert history(study, found.info.run_id, "retrain/train/loss") == [(0, 1.0), (1, 1.0)]
    assert [step for step, _ in history(study, found.info.run_id, "contribution/cell_2")] == [0, 1, 2]
    assert all(math.isnan(value) for _, value in history(study, found.info.run_id, "contribution/cell_1"))
    client = tracking.make_client(study.data["tracking_uri"])
    names = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert names == {"records.jsonl", "genotype.json", "genotype.png"}
    assert (study.path / "mlartifacts").is_dir()


def test_a_studys_run_tells_what_is_sought_the_best_so_far_and_its_data(tmp_path: Path) -> None:
    space = {"search.lr": {"type": "float", "low": 0.01, "high": 0.1, "log": True}}
    tune = {"objective": "supernet", "num_samples": 4}
    study = new_study(resolve_sweep({"storage": str(tmp_path), "name": "all", "space": space, "tune": tune}))
    write_facts(study.path, document(DataInfo("toy", 2, 1, 8, (0.5,), (0.2,)), [30, 20]))
    for number, (state, accuracy, second) in enumerate(
        [("COMPLETED", 0.5, 30), ("PRUNED", None, 10), ("COMPLETED", 0.4, 40), ("RUNNING", None, 0)]
    ):
        found = None if accuracy is None else {"held_out/accuracy": accuracy}
        ended = {} if state == "RUNNING" else {"ended": f"2026-01-01T00:00:{second}.000000+00:00"}
        folder = trial_dir(study.path, number)
        config = study.data["base"]
        write_trial(study, number=number, trial_id=folder.name, state=state, objectives=found, config=config, **ended)
        if number == 0:
            assert overview.tell(study)
    assert overview.show_study(study, "KILLED")

    parent = tracking.make_client(study.data["tracking_uri"]).get_run(study.data["parent_run_id"])
    text = parent.data.tags["mlflow.note.content"]
    assert "`search.lr` | 0.01 to 0.1, log" in text and "4 trials are planned: 1 stopped, 2 completed, 1 pruned" in text
    assert "**trial 00000**, held_out/accuracy 0.5; `search.lr` = 0.1" in text and "ddarts resume" in text
    assert history(study, parent.info.run_id, "best/held_out/accuracy") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert history(study, parent.info.run_id, "trials/pruned") == [(1, 0), (2, 1), (3, 1)]
    tags = parent.data.tags
    assert tags["mlflow.user"] == getpass.getuser() and tags["mlflow.source.name"] == study.data["command"]
    [data] = [entry.dataset for entry in parent.inputs.dataset_inputs]
    assert (data.name, len(data.digest), json.loads(data.profile)["num_rows"]) == ("toy", 8, 50)
    [config_file] = read_artifacts(
        study.data["tracking_uri"], read_runs(study.data["tracking_uri"], "all"), "config.yaml"
    ).values()
    assert yaml.safe_load(config_file) == study.data["config"]


def test_settings_that_a_trial_did_not_use_are_told_from_those_that_it_did() -> None:
    off = {"ablation": {"loss": "none", "removal": "zero", "shapley_permutations": 0}, "search": {"order": "second"}}
    unused = {f"ablation.{name}" for name in ("weight", "eps", "every", "sample_cells", "num_draws", "removal")}
    assert idle(off) == unused
    sampled = {**off, "ablation": {**off["ablation"], "shapley_permutations": 4}}
    assert idle(sampled) == unused - {"ablation.removal"}
    used = {"ablation": {"loss": "paper", "removal": "random"}, "search": {"order": "first"}}
    assert idle(used) == {"search.hessian"}


def test_another_process_goes_on_in_the_same_run_without_duplicates(study: Study) -> None:
    folder = write_trial(study)
    assert trial_run.TrialRun(study, folder).sync(RECORDS[:2])
    write_trial(study, ray_trial_id="ray2")
    assert trial_run.TrialRun(study, folder).sync(RECORDS)
    (found,) = runs(study)
    assert found.data.tags["ray_trial_id"] == "ray2"
    assert [step for step, _ in history(study, found.info.run_id, "held_out/accuracy")] == [0, 1, 2]


def test_mlflow_is_asked_only_for_what_it_may_have(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Heard:
        def __init__(self, uri: str) -> None:
            self._client = tracking.make_client(uri)

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(self._client, name)

    monkeypatch.setattr(trial_run, "make_client", Heard)
    folder = write_trial(study)
    first = trial_run.TrialRun(study, folder, new=True)
    assert first.sync(RECORDS[:1])
    assert asked == ["create_run", "log_batch", "log_batch"]
    asked.clear()
    assert trial_run.TrialRun(study, folder).sync(RECORDS)
    assert asked == ["search_runs", "get_metric_history", "log_batch"]
    asked.clear()
    assert trial_run.TrialRun(study, folder).sync(RECORDS)
    assert asked == ["search_runs", "get_metric_history", "get_metric_history"], "of the search and of the training"
    assert len(history(study, runs(study)[0].info.run_id, "retrain/train/loss")) == 2
    asked.clear()
    write_jsonl(folder / "records.jsonl", RECORDS)
    assert first.finish(None, artifacts=False)
    assert asked[:3] == ["get_metric_history"] * 3, "others may have told it more since it was opened"


@pytest.mark.parametrize(
    "before",
    [
        [RECORDS[0], dataclasses.replace(RECORDS[1], metrics={"train/loss": 1.1, "held_out/accuracy": 0.2})],
        [*RECORDS[:3], dataclasses.replace(RECORDS[2], epoch=3)],
    ],
    ids=["another loss", "an epoch more"],
)
def test_epochs_that_came_out_otherwise_are_not_kept(study: Study, before: list[EpochRecord]) -> None:
    """A checkpoint was lost after its epochs were sent; a GPU repeats nothing bit for bit."""
    folder = write_trial(study)
    first = trial_run.TrialRun(study, folder)
    assert first.sync(before)
    write_jsonl(folder / "records.jsonl", RECORDS)
    write_trial(study, state="COMPLETED")
    last = trial_run.TrialRun(study, folder)
    assert last.finish(None, artifacts=False)
    (found,) = runs(study)
    assert found.info.run_id == last.run_id != first.run_id and found.info.status == "FINISHED"
    assert history(study, found.info.run_id, "train/loss") == [(0, 2.0), (1, 1.0), (2, 0.0)]
    assert history(study, found.info.run_id, "held_out/accuracy") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    again = trial_run.TrialRun(study, folder)
    assert again.finish(None, artifacts=False) and again.run_id == last.run_id


def test_an_outage_costs_nothing_but_a_delay(
    study: Study, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_run, "PATIENCE_S", 0.05)
    folder = write_trial(study)
    run = trial_run.TrialRun(study, folder)
    sender = trial_run.Sender(run)
    sender.send(RECORDS[:1])
    wait_for(lambda: run.run_id is not None and history(study, run.run_id, "train/loss") == [(0, 2.0)])
    up, run._study = run._study, _unreachable(study)
    run._client = None
    with caplog.at_level(logging.WARNING):
        sender.send(RECORDS[:2])
        sender.send(RECORDS[:3])  # replaces the one before, if that still waits
        wait_for(lambda: "MLflow did not take" in caplog.text)
    run._study = up
    wait_for(lambda: len(history(study, str(run.run_id), "train/loss")) == 3)
    sender.close()
    assert [step for step, _ in history(study, str(run.run_id), "train/loss")] == [0, 1, 2]


@pytest.mark.parametrize("status", [500, 429, 200, 0], ids=["error", "too many", "a page", "no answer"])
def test_a_server_that_answers_anything_else_raises_nothing(
    study: Study, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A trial and a sweep go on, it is said in one line, and a store that cannot be asked has lost nothing."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status:
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<html>\nsecond line</html>")

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    folder = write_trial(study, state="COMPLETED")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = dataclasses.replace(
            study, data={**study.data, "tracking_uri": f"http://127.0.0.1:{server.server_port}"}
        )
        with caplog.at_level(logging.WARNING, logger="ddarts_tuning"):
            run = trial_run.TrialRun(there, folder)
            assert not run.sync(RECORDS) and not run.finish(None, artifacts=False)
            assert not tracking.end_run(there, "run", "KILLED")
            assert tracking.is_there(there)
        server.shutdown()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and all(line.startswith("MLflow did not take the") and "\n" not in line for line in said)


def test_a_server_that_hangs_does_not_hold_up_a_trial(study: Study) -> None:
    """It gets everything before the trial ends."""
    answer = threading.Event()

    class Hanging(trial_run.TrialRun):
        def sync(self, records: Any = None) -> bool:
            answer.wait()
            return super().sync(records)

    run = Hanging(study, write_trial(study))
    sender = trial_run.Sender(run)
    for end in range(1, len(RECORDS) + 1):
        sender.send(RECORDS[:end])
    assert run.run_id is None  # all were handed over, none was sent
    answer.set()
    sender.close()
    assert [step for step, _ in history(study, str(run.run_id), "retrain/train/loss")] == [0, 1]


def test_a_slow_server_does_not_keep_the_place_of_a_trial_that_ended(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_run, "CLOSE_S", 0.2)
    answer, done = threading.Event(), threading.Event()

    class Slow(trial_run.TrialRun):
        def sync(self, records: Any = None) -> bool:
            answer.wait(20)
            done.set()
            return True

    sender = trial_run.Sender(Slow(study, write_trial(study)))
    sender.send(RECORDS)
    began = time.monotonic()
    sender.close()
    sender.close()  # Ray asks again
    assert 0.2 <= time.monotonic() - began < 0.4 and not done.is_set()
    answer.set()
    assert done.wait(10), "what was begun is let end"


def test_after_the_last_trial_a_slow_server_is_waited_for_only_so_long(
    study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moments = iter([100.0, 104.0, 106.0, 107.0, 161.0, 162.0])
    monkeypatch.setattr(patience.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(patience, "PATIENCE", waiting := patience.Patience())
    client = patience.Client(types.SimpleNamespace(get_run=lambda run_id: run_id))
    waiting.begin("runs/toy")
    assert client.get_run("a") == "a" and not caplog.text
    assert client.get_run("a") == client.get_run("a") == "a"
    assert caplog.text.count("waiting for MLflow, which is slow, for at most 60 s") == 1
    assert not tracking.attempt(lambda: client.get_run("a"), "status")
    assert not tracking.attempt(lambda: client.get_run("a"), "status")
    assert (
        caplog.text.count("`ddarts resume runs/toy` sends it the rest") == 1 and "did not take the" not in caplog.text
    )
    waiting.end()
    monkeypatch.undo()
    assert client.get_run("a") == "a"


def test_the_machine_is_measured_while_a_trial_runs_and_by_who_goes_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    folder = write_trial(study)

    def measured(wanted: bool, at_least: int) -> int:
        run = trial_run.TrialRun(study, folder)
        sender = trial_run.Sender(run, machine.Machine(study.data["tracking_uri"], wanted))
        sender.send(RECORDS)
        wait_for(lambda: run.run_id is not None)
        wait_for(lambda: len(history(study, str(run.run_id), "system/cpu_utilization_percentage")) >= at_least)
        sender.close()
        found = history(study, str(run.run_id), "system/cpu_utilization_percentage")
        assert [step for step, _ in found] == list(range(len(found)))
        assert all(0 <= value <= 100 for _, value in found)
        return len(found)

    assert measured(False, 0) == 0
    once = measured(True, 2)
    assert measured(True, once + 2) >= once + 2  # another process


def test_what_two_send_at_the_same_time_is_there_once(study: Study) -> None:
    """The driver ends a trial that was stopped while the trial's own thread still sends."""
    folder = write_trial(study)
    first, second = trial_run.TrialRun(study, folder), trial_run.TrialRun(study, folder)
    assert first.sync(RECORDS[:1]) and second.sync(RECORDS[:1])
    assert first.sync(RECORDS) and second.sync(RECORDS)  # neither knows of the other's
    for name in ("train/loss", "seconds/weights", "contribution/cell_0"):
        assert [step for step, _ in history(study, str(first.run_id), name)] == [0, 1, 2], name


def test_parameters_that_a_killed_process_did_not_log_follow(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_trial(study)
    with monkeypatch.context() as patch:
        patch.setattr(trial_run, "log_params", lambda *arguments: None)
        assert trial_run.TrialRun(study, folder).sync([])
    assert trial_run.TrialRun(study, folder).sync([])
    (found,) = runs(study)
    assert found.data.params["search.lr"] == "0.1"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def _unreachable(study: Study) -> Study:
    return dataclasses.replace(study, data={**study.data, "tracking_uri": "http://127.0.0.1:9"})


def test_a_store_that_cannot_be_used_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tracking.uri 'http://127.0.0.1:9' cannot be used") as caught:
        tracking.start_study("http://me:secret@127.0.0.1:9", "e", "s", {}, {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["foo://me:se/cret@host", "postgresql://me:se/cret@host:port/db", "http://me:se/cret@[h"]
)
def test_a_store_of_no_known_kind_is_a_users_error_without_the_secret(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri .* cannot be used") as caught:
        tracking.start_study(uri, "e", "s", {}, {})
    assert "cret" not in str(caught.value)


def test_secrets_come_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/path")
    assert tracking.with_secrets("https://host/path") == "https://me:secret@host/path"
    assert tracking.with_secrets("https://other/path") == "https://other/path"


@pytest.mark.parametrize("name", ["what?", "what?uri=true", "50%", "50%41", "#1"])
def test_a_database_and_its_artifacts_lie_in_the_studys_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    uri = tracking.tracking_uri(None, folder)
    assert tracking.tracking_uri(uri, tmp_path) == uri
    _, run = tracking.start_study(uri, "study", "study", {"study": "one"}, {})
    note = folder / "note"
    note.write_text("kept")
    tracking.make_client(uri).log_artifact(run, str(note))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert study_names(uri) == ["one"]
    assert read_artifacts(uri, read_runs(uri, "one"), "note") == {run: "kept"}


@pytest.mark.parametrize("what", ["experiment", "run"])
def test_a_study_that_was_deleted_in_mlflow_says_how_to_restore_it(study: Study, what: str) -> None:
    assert tracking.is_there(study)
    client = tracking.make_client(study.data["tracking_uri"])
    identifier = study.data["experiment_id" if what == "experiment" else "parent_run_id"]
    getattr(client, f"delete_{what}")(identifier)
    with pytest.raises(UserError, match=rf"the MLflow {what} of study 'study' was deleted") as caught:
        tracking.is_there(study)
    command = re.findall("`(.*)`", str(caught.value))[0]
    assert command.startswith(f"env MLFLOW_TRACKING_URI={study.data['tracking_uri']} mlflow {what}s restore")
    *_, group, restore, option, named = shlex.split(command)
    assert (group, restore, option, named) == (f"{what}s", "restore", f"--{what}-id", identifier)
    getattr(client, f"restore_{what}")(identifier)
    assert tracking.is_there(study)


def test_mlflows_own_variable_names_the_store_unless_the_file_does(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"space": {"search.lr": {"type": "float", "low": 0.1, "high": 0.2}}}
    own = resolve_sweep(settings)
    assert own.tracking.uri is None and "neither tracking.uri nor MLFLOW" in store_sentence(own, None)
    full = "https://me:secret@host/path"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", full)
    config = resolve_sweep(settings)
    assert config.tracking.uri == full
    assert store_sentence(config, None) == "MLflow: https://host/path, which MLFLOW_TRACKING_URI names"
    config = resolve_sweep(settings, ["tracking.uri=http://other"])
    assert store_sentence(config, None) == "MLflow: http://other, which tracking.uri names"
    assert resolve_sweep(settings, ["tracking.uri=null"]).tracking.uri is None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "12")
    assert [resolve_sweep(settings, of).tracking.experiment for of in ((), ["tracking.experiment=own"])] == [
        "12",
        "own",
    ]
    with pytest.raises(UserError, match=r"'nonsense://here' \(of MLFLOW_TRACKING_URI\) cannot be used"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://here")
        tracking.start_study("nonsense://here", "study", "study", {}, {})


def test_a_relative_database_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri("sqlite:///m.db", tmp_path) == f"sqlite:///{tmp_path}/m.db"
    assert tracking.tracking_uri("http://host", tmp_path) == "http://host"
    assert tracking.tracking_uri("mlruns", tmp_path) == f"file://{tmp_path}/mlruns"
