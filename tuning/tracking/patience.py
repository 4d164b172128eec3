"""How long a sweep waits for MLflow once its trials have ended, so that a slow server does not delay it for minutes."""

from __future__ import annotations

import logging
import time
from typing import Any

from ddarts_core.studies.shell import ddarts

TAIL_S = 60.0
"""Seconds that MLflow has to take all that it still lacks; a request that runs when they are over may come to its
end."""

SAY_S = 5.0
"""Seconds after which the user is told what the sweep waits for."""

_log = logging.getLogger(__name__)


class OutOfPatience(Exception):
    """The `TAIL_S` seconds are over: MLflow is asked for nothing more."""


class Patience:
    """Limits how long this process waits for MLflow, with all of its clients together."""

    def __init__(self) -> None:
        self._begun = float("inf")
        self._location = ""
        self._said = ""

    def begin(self, location: str) -> None:
        """Note that the trials of a study, by its folder or URI, have ended."""
        self._begun, self._location, self._said = time.monotonic(), location, ""

    def end(self) -> None:
        """Note that nobody waits any more."""
        self._begun = float("inf")

    def ask(self) -> None:
        """Check before every request that there is time left.

        Raises:
            OutOfPatience: the time is over.
        """
        waited = time.monotonic() - self._begun
        if waited >= TAIL_S:
            self._say(
                f"MLflow did not take all within {TAIL_S:g} s after the last trial: "
                f"`{ddarts('resume', self._location)}` sends it the rest"
            )
            raise OutOfPatience
        if waited >= SAY_S:
            self._say(f"waiting for MLflow, which is slow, for at most {TAIL_S:g} s: the trials have ended")

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            _log.warning("%s", sentence)


PATIENCE = Patience()


class Client:
    """An MLflow client that asks only while there is time left, see `Patience`.

    Args:
        client: MLflow's own client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        PATIENCE.ask()
        return getattr(self._client, name)
