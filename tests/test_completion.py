"""Tab: what is offered after each word, and that each shell takes it. A shell that is not installed is left out."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from ddarts_cli.main import COMPLETE, cli

#: A line, and what Tab offers; `""` stands for the shell's own files or folders.
OFFERED = [
    ("sweep --set tune.sear", {"tune.searcher"}),
    ("search --set method=fair", {"method=fairdarts"}),
    ("search --set discretise.rule=s", {"discretise.rule=sparse"}),
    ("search --set retrain.flip=", {"retrain.flip=true", "retrain.flip=false"}),
    ("search --set search.lr=", set()),
    ("search --set no.such=", set()),
    ("settings alpha.l", {"alpha.lr", "alpha.lr_min"}),
    ("cost zoo:DARTS_V", {"zoo:DARTS_V1", "zoo:DARTS_V2", ""}),
    ("zoo DARTS_V", {"DARTS_V1", "DARTS_V2"}),
    ("status mi", {"mine", ""}),
    ("report mine mi", {"mine", ""}),
    ("status --storage elsewhere ", {"other", ""}),
    ("set", {"settings"}),
    ("figure mine pareto", {"pareto", "pareto_macs"}),
    ("figure mine gates --trial ", {"3"}),
    ("figure elsewhere/other gates --trial ", set()),
    ("table mine --metric held", {"held_out/accuracy"}),
    ("export mine --by p", {"parameters", "params", "pareto"}),
    ("export mine --by accuracy,-par", {"accuracy,-parameters", "accuracy,-params"}),
    ("retrain zoo:DD_1 --recipe imagenet-d", {"imagenet-darts"}),
    ("retrain zoo:DD_1 --data fash", {"fashion_mnist"}),
    ("methods fairda", {"fairdarts"}),
    ("space --space S_", {"S_3", "S_o", "S_none"}),
    ("search --set tracking.system_metrics=t", {"tracking.system_metrics=true"}),
    ("search my.yaml --plugin my_", {""}),
    ("check-plugin my_", {""}),
]


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for study in ("runs/mine", "runs/yours", "elsewhere/other"):
        Path(study).mkdir(parents=True)
        Path(study, "study.json").write_text("{}")
    Path("my_plugin.py").write_text("raise SystemExit('pressing Tab runs no code of the user')")
    trial = Path("runs/mine/trials/0003")
    trial.mkdir(parents=True)
    (trial / "records.jsonl").write_text(json.dumps({"metrics": {"train/loss": 1.0, "held_out/accuracy": 0.5}}) + "\n")
    return tmp_path


@pytest.mark.parametrize(("line", "offered"), OFFERED, ids=[line for line, _ in OFFERED])
def test_what_is_offered(line: str, offered: set[str], studies: Path) -> None:
    *words, last = line.split(" ")
    items = ShellComplete(cli, {}, "ddarts", COMPLETE).get_completions(words, last)
    assert {item.value if item.type == "plain" else "" for item in items} == offered


#: A line of each kind, with names beside files, a colon or an equals sign in a word. What Tab makes of each.
TYPED = [
    ("ddarts settin", "ddarts settings"),
    ("ddarts status yo", "ddarts status yours"),
    ("ddarts cost zoo:DARTS_m", "ddarts cost zoo:DARTS_minus"),
    ("ddarts search --set method=fair", "ddarts search --set method=fairdarts"),
    ("ddarts figure mine gates --trial ", "ddarts figure mine gates --trial 3"),
    ("ddarts table mine --metric held", "ddarts table mine --metric held_out/accuracy"),
    ("ddarts methods fairda", "ddarts methods fairdarts"),
    ("ddarts retrain zoo:DD_1 --recipe imagenet-d", "ddarts retrain zoo:DD_1 --recipe imagenet-darts"),
    ("ddarts retrain zoo:DD_1 --data fash", "ddarts retrain zoo:DD_1 --data fashion_mnist"),
    ("ddarts search my.yaml --plugin my_", "ddarts search my.yaml --plugin my_plugin.py"),
]

#: How an interactive shell without its user's files is started, and what readies it.
SHELLS = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        'bind "set enable-bracketed-paste off"; eval "$(ddarts completion bash)"',
    ),
    "zsh": (
        ["-f", "-i"],
        'unset zle_bracketed_paste; autoload -U compinit; compinit -u -D; eval "$(ddarts completion zsh)"',
    ),
}


@pytest.mark.parametrize("shell", [*SHELLS, "fish"])
def test_a_shell_completes(shell: str, studies: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "dumb",
        "PS1": "",
    }
    if shell == "fish":
        lines = " ".join(f"'{line}'" for line, _ in TYPED)
        script = f"ddarts completion fish | source; for line in {lines}; complete -C $line; end"
        done = subprocess.run(
            ["fish", "-N", "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        words = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert words == [whole.split(" ")[-1] for _, whole in TYPED], done.stderr
        return
    options, ready = SHELLS[shell]
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(shell, [shell, *options], environment)
    try:
        os.write(terminal, f"{ready}; echo REA''DY\n".encode())
        _read_until(terminal, b"READY")
        for line, whole in TYPED:
            # Tab, then the start of the line becomes `echo =`, so that the shell itself prints what it made of it.
            os.write(terminal, f"{line}\t".encode())
            time.sleep(0.1)
            os.write(terminal, b"\x01echo '=\x05='\n")
            assert f"={whole}" in _read_until(terminal, b"\n=", b"=\r\n"), line
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def _read_until(terminal: int, *marks: bytes) -> str:
    """What the shell prints until it has printed the marks, each after the one before."""
    printed, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        place = 0
        for mark in marks:
            place = printed.find(mark, place) + 1
            if not place:
                break
        if place:
            break
        if select.select([terminal], [], [], 1)[0]:
            printed += os.read(terminal, 65536)
    return printed.decode(errors="replace")
