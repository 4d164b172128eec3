"""Ray is started on this machine, or a cluster of Ray that runs already is joined."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from tenacity import retry, retry_if_exception, stop_after_attempt

import ddarts_core
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import short_temp
from ddarts_core.ground.own_folder import own_folder
from ddarts_core.ground.redact import command_line, hide_secrets, one_line

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU must not see one
    "RAY_task_events_report_interval_ms": "0",  # the head would remember every call of a trial: 7 KB an epoch
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
OBJECT_STORE_BYTES = 128 * 2**20

NEEDLESS = ("start_monitor", "start_log_monitor", "start_api_server")
"""Processes of Ray that a sweep on one machine has no use for: one starts further machines, one brings the trials'
output to the driver, and one is the server of a dashboard that is off. They take as long to start as all others."""

TOKEN = ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
"""The environment variables that say which token Ray takes in the place of that in the user's home."""

ATTEMPTS = 3
UNSTARTED = (
    "Starting Ray client server failed",
    "Proxy failed to Connect to backend",
    "GetOrCreateRuntimeEnv request failed after",
)
"""The answers of a cluster's head that could not serve a new client of Ray Client: the server for this client ended at
once, was not ready in 30 s, or could not be made because the head itself is still starting."""

VERSIONS = re.compile(
    r"cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)\s+"
    r"This process .*was started with:\s+Ray: (\S+)\s+Python: (\S+)"
)
"""What Ray says of a head that has another version of Ray or Python: the head's version first, then ours."""

FORWARDED = ("OMP_NUM_THREADS", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
"""The environment variables of this process that trials on another machine need; on this machine they inherit all.

Ray logs these variables on every machine, so none of them may be a secret (see secret.py)."""


def start_ray(num_cpus: int | None = None, address: str | None = None) -> None:
    """Start Ray on this machine, on loopback and quietly, or join a cluster, unless Ray runs in this process already.

    A Ray that is started here ends with this process, and takes the trials' working folders with it.

    Args:
        num_cpus: how many cores of this machine Ray may use; None means all. A cluster knows its own cores.
        address: of a cluster to join: `auto` (the one that this machine belongs to), `HOST:PORT`, or
            `ray://HOST:PORT`. None starts Ray on this machine.

    Raises:
        UserError: Ray does not start, no cluster answers at the address, or the cluster refuses the token or has
            another version of Ray.
        FileNotFoundError: the folder that this process works in is gone.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    import ray

    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("ray.util.client.logsclient").disabled = True  # each connection sets its level anew
    if ray.is_initialized():
        return
    os.getcwd()  # Ray's processes would end without one, and say nothing that is of use
    if address is None:
        # Ray would replace 127.0.0.1 by an address of this machine, and listen on all its interfaces. Its variable
        # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 says the same, but is read when Ray is imported, which it is by now, and
        # would hold for a cluster that this process joins too.
        with _instead(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False), _without(NEEDLESS):
            context = _start(num_cpus)
        atexit.register(_stop, Path(context.address_info["session_dir"]))
        return
    runtime: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in FORWARDED if name in os.environ}}
    if packages := sent_code():  # Ray fails at every trial when the list is empty
        runtime["py_modules"] = packages
    if address.startswith("ray://") and find_spec("grpc") is None:
        raise UserError(f"Ray Client, which {address!r} asks for, needs a package: pip install ddarts[cluster]")
    advice = "give auto, HOST:PORT or ray://HOST:PORT"
    try:
        _knock(address)
    except (OSError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at {address!r} ({error}): {advice}") from error
    try:
        _join(address, runtime)
    except (OSError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        if _unstarted(error):
            raise UserError(
                f"the Ray cluster at {address!r} started no server for this process in {ATTEMPTS} attempts; its "
                "head may be busy: try again, or see ray_client_server_*.err in its logs"
            ) from error
        if apart := VERSIONS.search(str(error)):
            theirs, ours = (f"Ray {apart[k]} under Python {apart[k + 1]}" for k in (1, 3))
            raise UserError(
                f"the Ray cluster at {address!r} has another version: install the same version (ours {ours}, theirs "
                f"{theirs})"
            ) from error
        reason = one_line(hide_secrets(str(error)))[:200]
        raise UserError(
            f"the Ray cluster at {address!r} does not let this process in ({reason}): {advice}, and export "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, the file with the token that its head was started with"
        ) from error


def _start(num_cpus: int | None) -> Any:
    """Start Ray on this machine.

    Raises:
        UserError: Ray did not come up.
    """
    folder = _temp_dir()
    _have_token()
    try:
        return _init(
            address="local",  # not a cluster that happens to run on this machine
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=True,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
    except OSError:
        raise  # a full disk, or no right to write
    except Exception as error:  # Ray raises plain ones
        reason = one_line(hide_secrets(str(error)))[:300] or type(error).__name__
        raise UserError(
            f"Ray did not start on this machine ({reason}): the machine may be busy or short of memory, or {folder} "
            "full: try again, or set RAY_TMPDIR to another folder"
        ) from error


def _unstarted(error: BaseException) -> bool:
    return any(words in str(error) for words in UNSTARTED)


@retry(retry=retry_if_exception(_unstarted), stop=stop_after_attempt(ATTEMPTS), reraise=True)
def _join(address: str, runtime: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's, of what is said in a sentence
        _init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, runtime_env=runtime)


#: What Ray adds to the name of the folder for temporary files.
SOCKET = "/ray/session_2026-11-27_23-19-03_123456_4194304/sockets/plasma_store"


def _temp_dir() -> str:
    """Ray's folder, in the folder for temporary files unless Ray cannot use that one's name."""
    return f"{short_temp(len(SOCKET), os.environ.get('RAY_TMPDIR'))}/ray"


def _have_token() -> None:
    """Give Ray a token of this process's own, if Ray can neither find one in the user's home nor make one there."""
    home = Path(os.path.expanduser("~/.ray"))
    kept = home if home.is_dir() else home.parent
    if (home / "auth_token").is_file() or os.access(kept, os.W_OK | os.X_OK) or {*TOKEN} & {*os.environ}:
        return
    file = own_folder("ddarts-token-") / "token"
    file.write_text(secrets.token_hex(32))
    os.environ[TOKEN[0]] = str(file)


def _stop(session: Path) -> None:
    import ray

    ray.shutdown()  # before Ray does it: nobody works in the folders any more
    shutil.rmtree(session / "artifacts", ignore_errors=True)


def _init(**options: Any) -> Any:
    """Call `ray.init` so that it does not write the command line, which may hold a password, into the cluster's state.

    Ray's own processes get a session of their own. Otherwise a signal to this process's group, as `timeout` and a
    terminal send it, would end them while the sweep is still coming to its end. The kernel ends them with this process.
    """
    import ray

    before = signal.getsignal(signal.SIGTERM)
    with (
        _instead(ray._private.utils, "get_entrypoint_name", command_line),
        _instead(ray._private.services, "ConsolePopen", partial(subprocess.Popen, start_new_session=True)),
    ):
        context = ray.init(**options)
    if callable(before) and _in_main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own prints the stack and aborts
    return context


@contextlib.contextmanager
def _instead(module: ModuleType | type, name: str, value: object) -> Iterator[None]:
    """Within the block, a name in a module or a class of Ray has another value."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def _without(starts: Iterable[str]) -> Iterator[None]:
    """Within the block, Ray's node does not start the processes that these of its methods start."""
    from ray._private.node import Node

    with contextlib.ExitStack() as stack:
        for name in starts:
            stack.enter_context(_instead(Node, name, lambda *given, **named: None))
        yield


@contextlib.contextmanager
def polite_stops(heard: Callable[[], object] | None = None) -> Iterator[None]:
    """While Ray runs trials, the first SIGINT asks Ray Tune to end well, and `heard` is called in a thread at once.

    SIGTERM, which Slurm, Kubernetes and systemd send, does the same. So does SIGHUP, which a terminal sends that is
    closed, unless the process ignores that signal. A second signal goes to the handler that SIGINT had before.
    """
    if not _in_main_thread():
        yield
        return
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in (*stops, signal.SIGUSR1)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    asked = False

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        handler = before[signal.SIGINT]
        if asked and callable(handler):
            handler(signal.SIGINT, frame)
        elif not asked:
            asked = True
            signal.raise_signal(signal.SIGUSR1)  # to Ray Tune the same as SIGINT
            if heard is not None:  # what prints may hold a lock in this thread
                threading.Thread(target=heard, name="stopping", daemon=True).start()

    kept = os.environ.get(NO_HANDLER)
    os.environ[NO_HANDLER] = "1"
    for number in stops:
        if number in before:
            signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, signal.default_int_handler)  # until Ray Tune has set its own
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if kept is None:
            del os.environ[NO_HANDLER]
        else:
            os.environ[NO_HANDLER] = kept


NO_HANDLER = "TUNE_DISABLE_SIGINT_HANDLER"
"""A variable of Ray Tune: Ray Tune's own handler of SIGINT says nothing that a user sees."""


def _in_main_thread() -> bool:
    """Whether this is the main thread, the only one in which a handler of signals may be set."""
    return threading.current_thread() is threading.main_thread()


def sent_code() -> list[str]:
    """The packages that trials on other machines get from this one: those of a checkout.

    If ddarts is installed as a wheel here, it is expected to be installed there too, and no package is sent.
    """
    packages = [Path(__file__).parents[1], Path(ddarts_core.__file__).parent]
    if "site-packages" in packages[0].parts:
        return []
    names = Path(tempfile.mkdtemp(prefix="ddarts-"))  # Ray takes a folder's name for the package's
    atexit.register(shutil.rmtree, names, ignore_errors=True)
    for name, package in zip(("ddarts_tuning", "ddarts_core"), packages, strict=True):
        (names / name).symlink_to(package, target_is_directory=True)
    return [str(names / "ddarts_tuning"), str(names / "ddarts_core")]


def _knock(address: str) -> None:
    """Check that something listens at an address, since Ray itself would try for minutes.

    Raises:
        OSError: nothing listens there.
        ValueError: the text is not an address.
    """
    if address != "auto":
        socket.create_connection(place_of(address), timeout=10).close()


def place_of(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `ray://HOST:PORT`.

    Raises:
        ValueError: the text is not an address.
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if parts.hostname is None or parts.port is None:
        raise ValueError("host and port are needed")
    return parts.hostname, parts.port
