"""What a sweep does when the head of its cluster is gone.

Ray's own client tries for a minute to reach the head, in a thread of its own that nobody can interrupt. Then it ends
this process with a line that says nothing of the study. So this module looks for the head itself, and ends the process
before Ray does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from .connection import place_of

LOST_S = 50.0
"""Seconds that a head may give no answer. They are less than the 60 s after which Ray gives up, and enough for a head
that keeps its state in Redis to come back."""

LOST_CLIENT_S = 25.0
"""Seconds that a server of Ray Client may give no answer; Ray Client gives up after 30 s."""

EVERY_S = 2.0
"""Seconds between two looks at the head."""


@contextlib.contextmanager
def watched(address: str | None, lost: Callable[[], str]) -> Iterator[None]:
    """While a cluster's trials run, look whether its head answers; end this process if it has not for too long.

    The exit status is 2, the status of a user's mistake, since the printed sentence says what to do.

    Args:
        address: of the cluster that was joined; None stands for a Ray of this process, which ends with the process.
        lost: a function that does what is still to be done, and returns the sentence to print.
    """
    if address is None:
        yield
        return
    place, over = _place(address), threading.Event()
    limit = LOST_CLIENT_S if address.startswith("ray://") else LOST_S

    def watch() -> None:
        if _is_lost(place, limit, over):
            os.write(2, f"Error: {lost()}\n".encode())
            os._exit(2)  # an exception in the main thread would wait there for Ray, and so would Ray's end

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_lost(place: tuple[str, int], limit: float, over: threading.Event) -> bool:
    """Wait until a place has given no answer for `limit` seconds; False if `over` is set before.

    A head whose process is stopped or busy still answers, since the operating system accepts the connection in its
    place.
    """
    answered = time.monotonic()
    while not over.wait(EVERY_S):
        try:
            socket.create_connection(place, timeout=5.0).close()
        except OSError:
            if time.monotonic() - answered > limit:
                return True
        else:
            answered = time.monotonic()
    return False


def _place(address: str) -> tuple[str, int]:
    """Host and port that this process talks to: the head's store of its state, or its server of Ray Client."""
    import ray

    return place_of(address if address.startswith("ray://") else ray.get_runtime_context().gcs_address)
