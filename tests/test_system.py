"""What the system refuses is one sentence: a full disk, a folder that may only be read, a file in the way."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ddarts_cli import main
from ddarts_cli.main import run
from ddarts_cli.system import refusal
from ddarts_core.ground import files
from tests.analysis.conftest import write_study, write_trial


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("runs") / "one")
    write_trial(folder, 0, "COMPLETED")
    return folder


def refused(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    status = run([str(argument) for argument in arguments])
    err = capfd.readouterr().err
    assert status == 2 and err.startswith("Error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("arguments", "file", "code"),
    [
        (["report"], "report.html", errno.ENOSPC),
        (["export"], "genotype.json", errno.EROFS),
        (["collect"], "part-0.parquet", errno.EDQUOT),
        (["figure", "accuracy"], "accuracy.png", errno.EACCES),
        (["table", "--by", "search.w_zero_one", "--out", "table.md"], "table.md", errno.EIO),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_written_is_named(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    file: str,
    code: int,
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(code, os.strerror(code), "/some/.temporary")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    err = refused(capfd, arguments[0], study, *arguments[1:])
    assert f"{file}: {os.strerror(code)}; " in err and "temporary" not in err


def test_a_path_that_is_taken(study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    arguments = ["table", study, "--by", "search.w_zero_one", "--out"]
    assert f"{tmp_path} is a folder: give the name of a file" in refused(capfd, *arguments, tmp_path)
    for command, name in ((arguments, "table.md"), (["report", study, "--out"], "page.html")):
        assert "file is where a folder is needed" in refused(capfd, *command, tmp_path / "file" / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_device_is_not_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    assert "/dev/null is a device" in refused(capfd, "table", "--published", "1", "--out", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_full_output() -> None:
    command = [sys.executable, "-m", "ddarts_cli", "methods"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=Path(__file__).parent.parent, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("(sqlite3.OperationalError) database or disk is full [SQL: ...]"), "No space left"),
        (RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database"), "Read-only file system"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28]"), "No space left on device"),
    ],
)
def test_errors_of_libraries(error: Exception, words: str) -> None:
    assert words in (refusal(error) or "")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone", "x"), OSError("bug"), ValueError("bug")])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: broken)
    with pytest.raises(type(error)):
        run(["zoo"])


def test_a_home_that_keeps_nothing_is_not_worth_a_word() -> None:
    said = ["from ddarts_cli import main", "main.run = lambda _: 0 if __import__('matplotlib') else 1"]
    env = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*said, "main.main()"])],
        env={**env, "HOME": "/dev/null"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8"])
def test_a_character_that_the_output_lacks_has_a_plain_stand_in(encoding: str) -> None:
    said = [
        "import click",
        "from ddarts_cli import main",
        "main.run = lambda _: click.echo('– β ◇ é ₅ 語 ' + chr(0xDCFF))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*said, "main.main()"])],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
    )
    plain = {"latin-1": "- beta <> é 5 ? ?", "cp1252": "– beta <> é 5 ? ?", "utf-8": "– β ◇ é ₅ 語 ?"}[encoding]
    assert (done.stdout.decode(encoding).rstrip("\n"), done.stderr) == (plain, b"")


def test_what_ddarts_warns_of_is_one_sentence_and_what_a_library_does_is_its_own() -> None:
    said = ["import warnings", "from ddarts_cli import main", "from ddarts_core.ground.errors import Advice"]
    said += ["def run(_): warnings.warn('lower\\nit', Advice); warnings.warn('a library')", "main.run = run"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*said, "main.main()"])], capture_output=True, text=True, timeout=60
    )
    first, *others = done.stderr.splitlines()
    assert first == "warning: lower it" and "UserWarning: a library" in others[0], done.stderr


def test_every_warning_of_ddarts_is_such_a_sentence() -> None:
    found = [
        call
        for package in ("ddarts_core", "tuning", "analysis", "ddarts_cli")
        for file in (Path(__file__).parent.parent / package).rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "warnings.warn"
    ]
    assert found and all("Advice" in map(ast.unparse, call.args) for call in found)
