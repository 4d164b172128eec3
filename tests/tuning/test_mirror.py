"""A folder that is a copy of an object store, and the lease on a study there; the store is fsspec's in memory."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ddarts_tuning.store import lease
from ddarts_tuning.store.locks import is_locked
from ddarts_tuning.store.mirror import (
    CACHE_VARIABLE,
    Mirror,
    StoreError,
    check_storage,
    copy_folder,
    is_shared,
)
from ddarts_tuning.store.study import find_study

from ddarts_core.ground.errors import UserError, cause
from ddarts_core.ground.nested import set_path
from ddarts_core.studies.study_files import STUDY_FIELDS


@pytest.fixture
def uri() -> str:
    return f"memory://{uuid.uuid4().hex}/study"


@pytest.fixture
def two(uri: str, tmp_path: Path) -> tuple[Mirror, Mirror]:
    """Two machines' copies of the same study."""
    return Mirror(uri, tmp_path / "a"), Mirror(uri, tmp_path / "b")


def put(mirror: Mirror, name: str, text: str) -> None:
    file = mirror.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def spy(monkeypatch: pytest.MonkeyPatch, method: str, names: list[str]) -> None:
    """Note the objects that a method is called for."""
    call = getattr(Mirror, method)

    def noted(self: Mirror, name: str, *rest: object, **more: object) -> object:
        names.append(name)
        return call(self, name, *rest, **more)

    monkeypatch.setattr(Mirror, method, noted)


def content(mirror: Mirror) -> dict[str, str]:
    files = (file for file in mirror.folder.rglob("*") if file.is_file())
    names = {file.relative_to(mirror.folder).as_posix(): file for file in files}
    return {name: file.read_text() for name, file in names.items() if is_shared(name)}


def test_what_one_sends_the_other_fetches(two: tuple[Mirror, Mirror]) -> None:
    a, b = two
    put(a, "study.json", "1")
    put(a, "trials/00000/trial.json", "x")
    a.push()
    b.pull()
    assert content(a) == content(b) == {"study.json": "1", "trials/00000/trial.json": "x"}
    put(b, "trials/00000/trial.json", "y")  # the same size
    put(b, "trials/00001/trial.json", "z")
    b.push("trials/00000")
    a.pull()
    assert content(a)["trials/00000/trial.json"] == "y" and "trials/00001/trial.json" not in content(a)


def test_only_what_changed_is_sent_and_fetched(two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two
    for number in range(3):
        put(a, f"trials/{number}/trial.json", "x")
    a.push()
    b.pull()
    sent: list[str] = []
    fetched: list[str] = []
    spy(monkeypatch, "write", sent)
    spy(monkeypatch, "read", fetched)
    put(a, "trials/1/trial.json", "changed")
    a.push()
    b.pull()
    assert (sent, fetched) == (["trials/1/trial.json"], ["trials/1/trial.json"])
    Mirror(b.uri, b.folder).pull()  # another process, which has the note of this one
    assert fetched == ["trials/1/trial.json"]


def test_what_one_deletes_is_gone_for_the_other(two: tuple[Mirror, Mirror]) -> None:
    a, b = two
    put(a, "trials/00000/records.jsonl", "x")
    put(a, "trials/00000/trial.json", "x")
    a.push()
    b.pull()
    (a.folder / "trials/00000/records.jsonl").unlink()
    a.push("trials/00000")
    put(b, "report.html", "own")  # never sent: it stays
    b.pull()
    assert content(b) == {"trials/00000/trial.json": "x", "report.html": "own"}


def test_the_store_is_the_truth(two: tuple[Mirror, Mirror]) -> None:
    a, b = two
    put(a, "study.json", "sent")
    a.push()
    b.pull()
    put(b, "study.json", "written by a process that was killed before it sent it")
    b.pull()
    assert content(b) == {"study.json": "sent"}


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("study.json", True),
        ("trials/00000/records.jsonl", True),
        ("trials/00000/checkpoint-000001.pt", True),
        (".ray/run/tuner.pkl", False),
        ("ray-12/kept.zip", False),
        ("ray/tuner.pkl", False),
        ("ray/00000_x/checkpoint_000001/trial.pt", False),
        ("rays/x", True),
        (".lock", False),
        ("trials/00000/.lock", False),
        ("lease.json", False),
    ],
)
def test_files_that_are_sent_as_they_are(name: str, shared: bool) -> None:
    assert is_shared(name) is shared


def test_a_checkpoint_is_fetched_by_those_who_go_on_with_it_only(two: tuple[Mirror, Mirror], tmp_path: Path) -> None:
    """And it is sent before the records that say that its epoch is done."""
    a, b = two
    names = ["trials/00000/checkpoint-000002.pt", "trials/00000/records.jsonl", "trials/00000/trial.json"]
    order: list[str] = []
    for name in names:
        put(a, name, "x")
    with pytest.MonkeyPatch.context() as patch:
        spy(patch, "write", order)
        a.push("trials/00000")
    assert order == names
    b.pull()
    assert sorted(content(b)) == names[1:]
    trial = Mirror(b.uri, tmp_path / "trial", checkpoints=True)
    trial.pull("trials/00000")
    assert sorted(content(trial)) == names
    (trial.folder / names[0]).unlink()
    trial.push("trials/00000")
    assert sorted(b.found("trials")) == names[1:]


def test_many_may_look_at_a_study_at_once(
    uri: str, two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They share a copy, and leave what only a run needs in the store."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    a, _ = two
    data: dict[str, object] = {"schema": 1}
    for name, kind in STUDY_FIELDS.items():
        data = set_path(data, name, kind())
    put(a, "study.json", json.dumps(data))
    put(a, "trials/00000/checkpoint-000001.pt", "state")
    a.push()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(find_study, [uri] * 40))
    assert {study.location for study in found} == {uri}
    assert not list((tmp_path / "cache").rglob("*.pt"))


def test_what_is_deleted_while_it_is_fetched_is_not_there(
    two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    put(a, "study.json", "1")
    put(a, "trials/00000/trial.json", "x")
    a.push()
    listed = b.found("")
    monkeypatch.setattr(b, "found", lambda *_: listed)
    a.delete("trials/00000/trial.json")
    b.pull()
    assert content(b) == {"study.json": "1"}


def test_one_process_at_a_time(two: tuple[Mirror, Mirror]) -> None:
    a, b = two
    with lease.hold(a):
        with pytest.raises(UserError, match=r"is running on .* wait for it or stop it"), lease.hold(b):
            pass
        assert lease.is_held(b, b.folder, is_locked)
    assert not lease.is_held(b, b.folder, is_locked)
    with lease.hold(b):
        pass


def test_a_dead_process_is_followed_at_once_here_and_after_a_while_elsewhere(
    two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    with lease.hold(a):
        dead = a.read(lease.LEASE)
    a.write(lease.LEASE, dead)
    assert not lease.is_held(b, a.folder, is_locked), "the folder's lock says that it is dead"
    assert lease.is_held(b, b.folder, is_locked), "of another machine one cannot tell"
    with lease.hold(a):
        pass
    a.write(lease.LEASE, dead)
    with pytest.raises(UserError, match=r"if it was killed, try again in \d+ s"), lease.hold(b):
        pass
    monkeypatch.setattr(lease, "LAPSE_S", 0.0)
    with lease.hold(b):
        pass


def test_who_lost_the_lease_sends_nothing(two: tuple[Mirror, Mirror]) -> None:
    a, b = two
    with lease.hold(a):
        put(a, "study.json", "mine")
        a.push()
        b.write(lease.LEASE, json.dumps({"token": "another", "host": "b", "pid": 1, "time": time.time()}).encode())
        put(a, "study.json", "late")
        with pytest.raises(lease.LostLease, match="another process"):
            a.push()
    b.pull()
    assert content(b) == {"study.json": "mine"}
    assert json.loads(b.read(lease.LEASE))["token"] == "another", "it is not ours to give back"


def test_a_lease_is_renewed(two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    a, _ = two
    with lease.hold(a):
        before = json.loads(a.read(lease.LEASE))
        until = time.monotonic() + 20
        while json.loads(a.read(lease.LEASE))["time"] == before["time"]:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("file:///srv/studies", "as a path: /srv/studies"),
        ("s3://key:secret@bucket/studies", "without password"),
        ("s3://bucket/studies?endpoint=x", "without password"),
        ("s3:///studies", "names no place"),
    ],
)
def test_storage_that_is_refused(storage: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        check_storage(storage)
    assert "secret" not in str(error.value)


def test_storage_that_is_taken() -> None:
    assert check_storage("s3://bucket/studies/") == "s3://bucket/studies"
    assert check_storage("abfs://container@account.dfs.core.windows.net/x").startswith("abfs://container@")
    assert check_storage("/srv/runs") == "/srv/runs"


def test_a_store_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="storage 'nowhere://x/y' cannot be used"):
        Mirror("nowhere://x/y", tmp_path)


def test_a_store_that_does_not_answer(two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDARTS_STORE_PATIENCE", "0.2")
    a, _ = two
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise ConnectionError("no route to host")

    with pytest.raises(StoreError, match="no route to host") as error:
        a.ask(refuse)
    assert len(calls) > 1
    wrapped = RuntimeError("Ray's")
    wrapped.__cause__ = error.value
    assert cause(wrapped, StoreError) is error.value and cause(RuntimeError("other"), StoreError) is None


def test_bad_patience(two: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDARTS_STORE_PATIENCE", "long")
    with pytest.raises(UserError, match="'long': give seconds"):
        two[0].read("study.json")


def test_copies_of_two_studies_and_two_uses_are_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDARTS_CACHE", str(tmp_path))
    folders = {copy_folder(uri, use) for uri in ("s3://a/x/s", "s3://b/x/s") for use in ("run", "view")}
    assert len(folders) == 4 and all(folder.is_relative_to(tmp_path) and folder.name == "s" for folder in folders)


@pytest.mark.parametrize("password", ["secret", "se/cret", "se?cret"])
def test_a_password_in_a_storage_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(UserError, match="without password") as caught:
        check_storage(f"s3://me:{password}@bucket/studies")
    assert "cret" not in str(caught.value)
