"""What a sweep does when the head of its cluster is gone.

Ray's own client tries for a minute to reach it, in a thread of its own that nobody can interrupt, and then ends this
process with a line that says nothing of the study. So it is looked for from here, and the process is ended before.
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
"""How long a head may give no answer: less than the 60 s after which Ray gives up, so that one that keeps its state in
Redis has time to come back."""

LOST_CLIENT_S = 25.0
"""The same of a server of Ray Client, which gives up after 30 s."""

EVERY_S = 2.0
"""Between two looks."""


@contextlib.contextmanager
def watched(address: str | None, lost: Callable[[], str]) -> Iterator[None]:
    """While a cluster's trials run, look whether its head answers; if it does not for too long, end this process.

    Its exit status is 2, that of a mistake, since what is printed says what to do.

    Args:
        address: of the cluster that was joined; None is a Ray of this process, which ends with it.
        lost: does what is still to be done, and tells the sentence to print.
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
    """Wait until a place has given no answer for `limit` seconds; False if it is over before.

    A head that is stopped, or busy, still answers: the system takes the connection for it.
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
    """Host and port of what the process talks to: the head's state of the cluster, or its server of Ray Client."""
    import ray

    return place_of(address if address.startswith("ray://") else ray.get_runtime_context().gcs_address)
