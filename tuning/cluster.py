"""Ray: started on this machine, or joined where it runs."""

from __future__ import annotations

import logging
import os
import socket
from urllib.parse import urlsplit

from ddarts_core.errors import UserError

from .config import TuneConfig

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU must not see one
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
OBJECT_STORE_BYTES = 128 * 2**20

FORWARDED = ("MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
"""What trials on another machine need of this process's environment; on this one they inherit all of it."""


def start_ray(num_cpus: int | None = None, address: str | None = None) -> None:
    """Start Ray on this machine, on loopback and quietly, or join a cluster, unless Ray runs in this process already.

    Args:
        num_cpus: cores of this machine that Ray may use; None is all. A cluster has its own.
        address: `auto` (the cluster that this machine belongs to), `HOST:PORT`, or `ray://HOST:PORT`.

    Raises:
        UserError: no cluster answers at the address.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    import ray

    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return
    if address is None:
        ray.init(
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=True,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        return
    environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    try:
        _knock(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            runtime_env={"env_vars": environment},
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"no Ray cluster answers at {address!r} ({reason}): give auto, HOST:PORT or ray://HOST:PORT, and export "
            "RAY_AUTH_MODE=token with the cluster's token if it asks for one"
        ) from error


def _knock(address: str) -> None:
    """Whether anything listens at an address: Ray itself would try for minutes.

    Raises:
        OSError: nothing does.
        ValueError: the address is none.
    """
    if address != "auto":
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        if parts.hostname is None or parts.port is None:
            raise ValueError("host and port are needed")
        socket.create_connection((parts.hostname, parts.port), timeout=10).close()


def concurrency(config: TuneConfig) -> int:
    """Trials at a time.

    Raises:
        UserError: not even one trial fits.
    """
    import ray

    have = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray
    fits = []
    wanted = config.fixed_resources
    for name, label, need in (("CPU", "cpu", wanted.cpu), ("GPU", "gpu", wanted.gpu)):
        if need > have.get(name, 0):
            raise UserError(f"tune.resources.{label} {need:g} exceeds the {have.get(name, 0):g} {name}s there are")
        if need:
            fits.append(int(have[name] / need + 1e-6))
    return min([*fits, config.max_concurrent or config.num_samples, config.num_samples])
