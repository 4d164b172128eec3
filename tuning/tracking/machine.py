"""What a trial's machine does while the trial runs, as MLflow measures it: the system metrics, `system/...` of the run.

These metrics are measured for the whole machine, every ten seconds (MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL). They are
only in MLflow: what MLflow does not take is lost. MLflow's thread ends by itself when the server refuses it, or when
the run ends.
"""

from __future__ import annotations

import logging
from typing import Any

from .study_run import attempt, quiet_mlflow, with_secrets


class Machine:
    """Measures one trial's machine, from when the trial's run exists, and again after MLflow's thread has ended.

    Args:
        uri: the URI of the tracking store.
        wanted: whether to measure at all (`tracking.system_metrics`).
    """

    def __init__(self, uri: str, wanted: bool) -> None:
        self._uri = uri
        self._wanted = wanted
        self._monitor: Any = None

    def watch(self, run_id: str | None) -> None:
        """Measure for this run, unless a thread does so already."""
        if self._wanted and run_id is not None and not self._is_alive():
            attempt(lambda: self._start(run_id), "system metrics")

    def end(self) -> None:
        """Send what was measured, and stop measuring."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            attempt(monitor.finish, "system metrics")

    def _is_alive(self) -> bool:
        return self._monitor is not None and self._monitor._process is not None and self._monitor._process.is_alive()

    def _start(self, run_id: str) -> None:
        quiet_mlflow()
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # What its thread says of a store that refuses has the store's whole address.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        monitor: Any = SystemMetricsMonitor
        self._monitor = monitor(run_id, resume_logging=True, tracking_uri=with_secrets(self._uri))
        self._monitor.start()
