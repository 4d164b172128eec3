"""When trials fail: why, and for the same reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ddarts_tuning.driver.alike import STOPPED, Alike
from ddarts_tuning.driver.callback import error_of


def note(alike: Alike, reason: str, epochs: int = 0, furthest: int = 0) -> str | None:
    return alike.note(reason, epochs, most=3, furthest=furthest)


def test_the_third_of_a_kind_stops_whatever_else_fails_between() -> None:
    alike = Alike()
    assert note(alike, "train/loss became nan in epoch 3 of the search") is None
    assert note(alike, "cannot read image /data/a/1.jpg: truncated") is None
    assert note(alike, "train/loss became nan in epoch 12 of the search") is None
    assert note(alike, "cannot read image /data/b/2.jpg: truncated") is None
    sentence = note(alike, "train/loss became nan in epoch 0 of the search")
    assert sentence is not None and STOPPED.fullmatch(sentence)
    assert sentence.endswith("(the last: train/loss became nan in epoch 0 of the search)")


def test_another_end_and_a_trial_that_has_come_further_prove_that_it_is_not_everybodys_reason() -> None:
    alike = Alike()
    assert [note(alike, "killed", 2) for _ in range(2)] == [None, None]
    alike.clear()
    assert [note(alike, "killed", 2) for _ in range(2)] == [None, None]
    assert note(alike, "killed", 1, furthest=3) is None
    assert note(alike, "killed", 1, furthest=2) is not None


def test_null_never_stops() -> None:
    alike = Alike()
    assert {alike.note("killed", 0, most=None, furthest=0) for _ in range(9)} == {None}


FRAME = '  File "/tmp/ddarts-plugin-a1/mine/ops.py", line 7, in forward\n    raise ValueError(TEXT)\n    ^^^^^^^^\n'
OTHERS = '  File "/there/torch/nn.py", line 9, in call\n    return self.call()\n           ^^^^^^\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the trial's process died"),
        ("The actor died.\n\tpid: 7\nIts worker was killed.\n", "the trial's process died: Its worker was killed."),
        (f"ray::step()\n{OTHERS}ValueError: later\n  boom\n\n", "ValueError: later boom"),
        (f"ray::step()\n{OTHERS}{FRAME}ValueError: later\n", "ValueError: later (mine/ops.py, line 7)"),
        (f"ray::step()\n{FRAME}{OTHERS}ValueError\n", "ValueError (mine/ops.py, line 7)"),
        (f"ray::step()\n{OTHERS}KeyError: {'x' * 2000}\n", f"KeyError: {'x' * 890}"),
    ],
)
def test_why_a_trial_failed_last(text: str, reason: str, tmp_path: Path) -> None:
    """Its process died, or raised what is told with its type, on one line."""
    file = tmp_path / "error.txt"  # as Ray leaves it for the driver: every failure, one after the other
    file.write_text(f"Failure # 1 (occurred at noon)\n{FRAME}KeyError: 1\nFailure # 2 (occurred at one)\n{text}")
    assert error_of(SimpleNamespace(error_file=str(file))) == reason
