"""The tracking URI with its secrets on its way from a sweep to its trials, on whatever machine they run.

Not by Ray's runtime_env, which every machine logs, nor by a trial's settings, which Ray writes to the disk: by the
key-value store in which Ray keeps the cluster's state, in memory, and which asks for the cluster's token. It is there
while the sweep runs, and each trial's process fetches it, also after a restart.

MLflow's own variables for credentials (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN) do not make this needless. They
serve trials on this machine, which inherit them; a machine of a cluster has the environment of its `ray start`, so they
would have to go there by the same way, or every machine would have to keep the password.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..store.study import Study
from .study_run import OWN_VARIABLE, with_secrets


@contextlib.contextmanager
def handed_over(study: Study) -> Iterator[None]:
    """While a study's trials run, they can `receive` its tracking URI, if it has secrets that this process knows."""
    from ray.exceptions import RayError
    from ray.experimental import internal_kv

    stored = str(study.data["tracking_uri"])
    full = with_secrets(stored)
    if full == stored:
        yield
        return
    internal_kv._internal_kv_put(_key(study), full)
    try:
        yield
    finally:
        with contextlib.suppress(RayError, ConnectionError):  # the cluster is gone, and this with it
            internal_kv._internal_kv_del(_key(study))


def receive(study: Study) -> None:
    """Take what the sweep of a study hands over into this process's environment; without it that stays as it is."""
    from ray.experimental import internal_kv

    if internal_kv._internal_kv_initialized():  # type: ignore[no-untyped-call]  # ray
        full = internal_kv._internal_kv_get(_key(study))
        if full is not None:
            os.environ[OWN_VARIABLE] = full.decode()


def _key(study: Study) -> str:
    return f"ddarts:{OWN_VARIABLE}:{study.location}"
