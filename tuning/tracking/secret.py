"""How the tracking URI with its secrets gets from a sweep to the sweep's trials, see `store.handover`.

It does not go through Ray's runtime_env, which every machine logs, nor through a trial's settings, which Ray writes to
the disk.

MLflow's own variables for credentials (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN) do not make this needless. Trials
on this machine inherit these variables. But another machine of a cluster has the environment of its own `ray start`. So
the variables would have to go there in the same way as the URI does, or every machine would have to keep the
password.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from ..store.handover import offered, received
from ..store.study import Study
from .study_run import OWN_VARIABLE, with_secrets


def handed_over(study: Study) -> AbstractContextManager[None]:
    """While a study's trials run, they can `receive` its tracking URI, if this process knows secrets of the URI."""
    stored = str(study.data["tracking_uri"])
    full = with_secrets(stored)
    return offered(OWN_VARIABLE, study.location, None if full == stored else full)


def receive(study: Study) -> None:
    """Put the tracking URI that the sweep of a study hands over into this process's environment.

    If the sweep hands over nothing, the environment stays as it is.
    """
    full = received(OWN_VARIABLE, study.location)
    if full is not None:
        os.environ[OWN_VARIABLE] = full
