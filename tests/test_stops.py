"""Output that nobody reads, closed terminals and deleted folders: a sentence, or nothing; never a traceback."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ddarts_tuning.cluster import connection as cluster
from ddarts_tuning.store.backend import Folder
from ddarts_tuning.store.locks import lock

from ddarts_cli import console
from ddarts_cli.main import main
from ddarts_cli.sweeping import REASON, print_ranking
from ddarts_core.ground.errors import UserError

READS_NOBODY = """
from ddarts_cli.console import say
from ddarts_cli.sweeping import print_ranking
trial = {"trial_id": "00000", "state": "PRUNED", "objectives": None, "cost": None, "reason": "stopped", "params": {}}
for _ in range(3):
    say("x" * 100_000)  # more than a pipe holds
print_ranking([trial], [("accuracy", "max")])
open("done", "w").close()
"""


def test_what_nobody_reads_ends_nothing(tmp_path: Path) -> None:
    """As after `| head -1`: what prints goes on to its end, and leaves no word on standard error."""
    with subprocess.Popen(
        [sys.executable, "-c", READS_NOBODY], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0 and (tmp_path / "done").exists()


def test_a_list_that_nobody_reads_to_its_end_is_no_mistake() -> None:
    """click itself ends the program with status 1 then."""
    with subprocess.Popen(
        [sys.executable, "-m", "ddarts_cli", "settings"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_after_its_work_a_signal_ends_the_program_as_it_ends_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that raises would print the traceback of whatever the interpreter does at its end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    during = []
    monkeypatch.setattr("ddarts_cli.main.run", lambda _: during.append(signal.getsignal(signal.SIGTERM)) or 7)
    try:
        with pytest.raises(SystemExit, match="7"):
            main([])
        assert callable(during[0]) and during[0] is not signal.SIG_DFL
        after = [signal.getsignal(number) for number in numbers]
        assert after == [signal.SIG_DFL, signal.SIG_DFL, signal.SIG_IGN]
    finally:
        gc.unfreeze()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_full_disk_is_still_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left"):
        console.say("x")


def test_without_standard_output_and_from_a_folder_that_is_gone(tmp_path: Path) -> None:
    command = f"{sys.executable} -m ddarts_cli"
    env = {**os.environ, "PYTHONPATH": str(Path(console.__file__).parents[1])}
    closed = subprocess.run(["sh", "-c", f"{command} status nothing >&-"], env=env, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr.count("\n")) == (2, 1) and "no study 'nothing'" in closed.stderr
    script = f"mkdir gone && cd gone && rmdir ../gone && {command} status nothing"
    gone = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert gone.returncode == 2
    assert (
        gone.stderr
        == "Error: the folder that this was started in is gone: change into one that exists, and start again\n"
    )


def test_a_terminal_that_is_closed_is_the_polite_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """While trials run and before, as is Ctrl-C; where SIGHUP is ignored, as by nohup, it stays so."""
    of_ctrl_c = signal.default_int_handler  # ignored where tests run in the background
    for number, before, expected in (
        (signal.SIGHUP, signal.SIG_DFL, True),
        (signal.SIGHUP, signal.SIG_IGN, False),
        (signal.SIGINT, of_ctrl_c, True),
    ):
        kept = {other: signal.signal(other, of_ctrl_c) for other in (signal.SIGINT, number)}
        signal.signal(number, before)
        try:
            with cluster.polite_stops():
                if expected:
                    with pytest.raises(KeyboardInterrupt):
                        signal.raise_signal(number)
                else:
                    signal.raise_signal(number)
            assert signal.getsignal(number) is before
        finally:
            for other, handler in kept.items():
                signal.signal(other, handler)


def test_a_ray_that_does_not_come_up_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen.")  # Ray's own words

    monkeypatch.setattr(cluster, "_init", init)
    said = r"Ray did not start on this machine \(The current node timed out .*/ray full: try again, or set RAY_TMPDIR"
    with pytest.raises(UserError, match=said):
        cluster._start(1)


@pytest.mark.parametrize(
    ("variable", "given", "used"),
    [
        ("TMPDIR", "/var/tmp", "/var/tmp/ray"),
        ("TMPDIR", "tmp", "/var/tmp/ray"),
        ("TMPDIR", "/nowhere", "/tmp/ray"),
        ("RAY_TMPDIR", "tmp", "/var/tmp/ray"),
        ("RAY_TMPDIR", "/var/tmp/ü", "/tmp/ray"),
        ("RAY_TMPDIR", "/var/tmp/" + 60 * "u", "/tmp/ray"),
    ],
)
def test_ray_has_a_folder_that_it_can_use(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str, used: str
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir("/var")
    monkeypatch.setenv(variable, given)
    assert cluster._temp_dir() == used


def test_ray_has_a_token_where_no_home_can_keep_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in cluster.TOKEN:
        monkeypatch.setenv(name, "")  # and as it was after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster._have_token()
    assert not {*cluster.TOKEN} & {*os.environ}, "Ray makes one"
    monkeypatch.setenv("HOME", "/dev/null")
    cluster._have_token()
    file = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert len(file.read_text()) == 64 and file.parent.stat().st_mode & 0o077 == 0
    cluster._have_token()
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(file)


def test_a_study_that_is_being_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db-journal").touch()
    Folder(tmp_path).check_free()  # left by a kill
    with lock(tmp_path), pytest.raises(UserError, match=rf"another sweep is creating study '{tmp_path.name}' at this"):
        Folder(tmp_path).check_free()


def test_a_long_reason_is_cut_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    trial = {
        "trial_id": "00000",
        "state": "FAILED",
        "objectives": None,
        "cost": None,
        "reason": "x" * 1000,
        "params": {},
    }
    print_ranking([trial], [("accuracy", "max")])
    assert capsys.readouterr().out.count("x") == REASON - 3
