"""What a sweep hands over to the processes of its trials, on whatever machine they run: never by a file or a log.

A value goes through the key-value store in which Ray keeps the cluster's state in memory, and which asks for the
cluster's token. The value is there while the sweep runs, and each trial's process fetches it, also after a restart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def offered(what: str, location: str, value: str | None) -> Iterator[None]:
    """While the trials of a study run, their processes get a value from `received`, unless the value is None.

    Args:
        what: what the value is, for its key.
        location: the study's folder or URI.
        value: the value to hand over.
    """
    from ray.exceptions import RayError
    from ray.experimental import internal_kv

    if value is None:
        yield
        return
    internal_kv._internal_kv_put(_key(what, location), value)
    try:
        yield
    finally:
        with contextlib.suppress(RayError, ConnectionError):  # the cluster is gone, and this with it
            internal_kv._internal_kv_del(_key(what, location))


def received(what: str, location: str) -> str | None:
    """The value that the sweep of a study offers; None if it offers none, or if this process is not one of Ray's."""
    from ray.experimental import internal_kv

    if not internal_kv._internal_kv_initialized():  # type: ignore[no-untyped-call]  # ray
        return None
    value = internal_kv._internal_kv_get(_key(what, location))
    return None if value is None else value.decode()


def _key(what: str, location: str) -> str:
    return f"ddarts:{what}:{location}"
