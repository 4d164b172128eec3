"""The tracking URI with its secrets on its way from a sweep to its trials, see `store.handover`.

Not by Ray's runtime_env, which every machine logs, nor by a trial's settings, which Ray writes to the disk.

MLflow's own variables for credentials (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN) do not make this needless. They
serve trials on this machine, which inherit them; a machine of a cluster has the environment of its `ray start`, so they
would have to go there by the same way, or every machine would have to keep the password.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from ..store.handover import offered, received
from ..store.study import Study
from .study_run import OWN_VARIABLE, with_secrets


def handed_over(study: Study) -> AbstractContextManager[None]:
    """While a study's trials run, they can `receive` its tracking URI, if it has secrets that this process knows."""
    stored = str(study.data["tracking_uri"])
    full = with_secrets(stored)
    return offered(OWN_VARIABLE, study.location, None if full == stored else full)


def receive(study: Study) -> None:
    """Take what the sweep of a study hands over into this process's environment; without it that stays as it is."""
    full = received(OWN_VARIABLE, study.location)
    if full is not None:
        os.environ[OWN_VARIABLE] = full
