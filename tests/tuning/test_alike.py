"""When trials fail for the same reason."""

from __future__ import annotations

from ddarts_tuning.driver.alike import STOPPED, Alike


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
