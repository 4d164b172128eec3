"""Who may hold, share and look at a study at the same time, on a file system of its own kind too."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import IO

import pytest
from ddarts_tuning.store import locks
from ddarts_tuning.store.locks import alone, await_workers, is_locked, join_workers, lock

from ddarts_core.ground.errors import UserError


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """flock as Linux has it on NFS: refused with EBADF where a file is not open for what a byte-range lock needs."""
    real, refusing = fcntl.flock, {fcntl.LOCK_SH: os.O_WRONLY, fcntl.LOCK_EX: os.O_RDONLY}

    def flock(file: IO[str], operation: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if refusing.get(operation & ~fcntl.LOCK_NB) == mode:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_every_lock_comes_on_nfs(nfs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_locked(tmp_path)
    with lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with join_workers(tmp_path), join_workers(tmp_path):
        monkeypatch.setattr(locks, "WORKERS_S", 0.0)
        with pytest.raises(UserError, match="still run"):
            await_workers(tmp_path, "trials")
    await_workers(tmp_path, "trials")
    with alone(tmp_path):
        pass


def test_those_who_look_do_not_see_each_other(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with glance(tmp_path), glance(tmp_path):
        assert not is_locked(tmp_path)


def glance(path: Path) -> IO[str]:
    """The lock as `is_locked` has it for an instant, until the file is closed."""
    file = (path / ".lock").open()
    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file


def test_those_who_look_keep_nobody_out(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    file = glance(tmp_path)
    end = threading.Timer(0.2, file.close)
    end.start()
    with lock(tmp_path):
        assert file.closed
    end.join()


def test_a_study_that_is_held_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "GLANCE_S", 0.1)
    with lock(tmp_path), pytest.raises(UserError, match="running in another process"), lock(tmp_path):
        pass
