"""A cluster whose head is gone while a sweep runs on it."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from ddarts_tuning.cluster import head


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    monkeypatch.setattr(head, "LOST_CLIENT_S", 0.3)
    monkeypatch.setattr(head, "EVERY_S", 0.05)
    return socket.create_server(("127.0.0.1", 0))


def test_a_head_that_is_gone_ends_the_process_with_a_sentence(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended, statuses = threading.Event(), []
    monkeypatch.setattr(os, "_exit", lambda status: (statuses.append(status), ended.set()))
    with head.watched(f"ray://127.0.0.1:{listening.getsockname()[1]}", lambda: "the head is gone"):
        time.sleep(0.6)  # it answers, although nobody takes the connections
        assert not statuses
        listening.close()
        assert ended.wait(10)
    assert statuses == [2] and capfd.readouterr().err == "Error: the head is gone\n"


def test_a_sweep_that_ends_is_not_watched_any_more(listening: socket.socket) -> None:
    before = threading.active_count()
    with head.watched(f"ray://127.0.0.1:{listening.getsockname()[1]}", lambda: "never"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with head.watched(None, lambda: "never"):
        assert threading.active_count() == before
