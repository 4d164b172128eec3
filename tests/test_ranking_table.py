"""The table at the end of a sweep."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click
import pytest
from ddarts_tuning.driver.sweep import StudyResult
from ddarts_tuning.store.backend import Folder
from ddarts_tuning.store.study import Study

from ddarts_cli.commands.sweep import conclude
from ddarts_cli.sweeping import print_ranking

ACCURACY, PARAMETERS = ("derived/held_out/accuracy", "max"), ("parameters", "min")


def trial(number: int, state: str, accuracy: float = 0.0, parameters: int = 0) -> dict[str, Any]:
    done = state == "COMPLETED"
    return {
        "trial_id": f"{number:05d}",
        "number": number,
        "state": state,
        "reason": None if done else "stopped",
        "objectives": {ACCURACY[0]: accuracy, PARAMETERS[0]: parameters} if done else None,
        "cost": {"parameters": parameters, "macs": 1} if done else None,
        "params": {"search.lr": 0.1},
    }


#: By accuracy. Trial 2 is as accurate as 1 and larger, 3 is beaten by 1 in both, 4 is the smallest.
TRIALS = [
    trial(0, "COMPLETED", 0.9, 4000),
    trial(1, "COMPLETED", 0.8, 2000),
    trial(2, "COMPLETED", 0.8, 3000),
    trial(3, "COMPLETED", 0.7, 2500),
    trial(4, "COMPLETED", 0.6, 1000),
    trial(5, "PRUNED"),
]


def places(shown: str) -> list[tuple[str, str]]:
    """Place and trial of each row."""
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line]
    return [(row[0], row[1]) for row in rows if row[1].isdigit()]


def test_one_objective_ranks_all_that_completed(capsys: pytest.CaptureFixture[str]) -> None:
    print_ranking(TRIALS, [ACCURACY])
    shown = capsys.readouterr().out
    assert places(shown) == [(str(k + 1), f"{k:05d}") for k in range(5)] + [("", "00005")]
    assert "Pareto" not in shown and "4,000" in shown


def test_trials_beyond_a_limit_come_last_without_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    over = [{**each, "beyond": ["parameters"] if each["number"] < 3 else []} for each in TRIALS]
    print_ranking([*over[3:5], *over[:3], over[5]], [ACCURACY], {"parameters": 2500, "macs": None})
    shown = capsys.readouterr().out
    assert places(shown) == [("1", "00003"), ("2", "00004")] + [("", f"{k:05d}") for k in (0, 1, 2, 5)]
    assert "3 of 5 completed trials are beyond tune.limits (parameters 2,500): they come last, without a" in shown
    print_ranking(over, [ACCURACY, PARAMETERS], {"parameters": 2500, "macs": None})
    shown = capsys.readouterr().out
    assert places(shown)[:2] == [("1", "00003"), ("2", "00004")], "trial 1 would beat 3"
    print_ranking(over[:3], [ACCURACY], {"parameters": 100})
    shown = capsys.readouterr().out
    assert places(shown) == [(str(k + 1), f"{k:05d}") for k in range(3)] and "nothing else to rank" in shown


def test_two_objectives_end_in_the_pareto_front(capsys: pytest.CaptureFixture[str]) -> None:
    print_ranking(TRIALS, [ACCURACY, PARAMETERS])
    shown = capsys.readouterr().out
    front, others = [("1", "00000"), ("2", "00001"), ("3", "00004")], [("", "00002"), ("", "00003"), ("", "00005")]
    assert places(shown) == front + others
    assert "no trial beats one of these 3 in derived/held_out/accuracy and parameters" in " ".join(shown.split())
    assert shown.count("4,000") == 1  # parameters are an objective: one column


def test_what_is_exported_of_a_study_beyond_its_limits_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    config = {"space": {}, "tune": {"limits": {"parameters": 3000}}, "tracking": {"log_artifacts": False}}
    study = Study(
        Folder(Path("runs/toy")),
        {"name": "toy", "config": config, "objectives": [{"metric": ACCURACY[0], "mode": "max"}]},
    )
    over = [{**each, "beyond": ["parameters"]} for each in TRIALS[:2]]
    for trials, expected in (([*over, TRIALS[5]], True), ([TRIALS[2], *over], False)):
        conclude(StudyResult(study, trials, False, 0))
        shown = capsys.readouterr().out
        assert ("no completed trial is within tune.limits: what is exported is beyond them" in shown) is expected
        assert "ddarts export" in shown


def test_a_sweep_with_failed_trials_says_how_they_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where none completed; a population goes on without those that failed."""
    for scheduler, trials, expected in (
        ("asha", TRIALS, False),
        ("asha", [*TRIALS, trial(6, "FAILED")], True),
        ("asha", [trial(6, "FAILED")], True),
        ("pbt", [*TRIALS, trial(6, "FAILED")], False),
    ):
        config = {"space": {}, "tune": {"scheduler": scheduler}, "tracking": {"log_artifacts": False}}
        objectives = [{"metric": ACCURACY[0], "mode": "max"}]
        study = Study(Folder(Path("runs/toy")), {"name": "toy", "config": config, "objectives": objectives})
        with contextlib.suppress(click.exceptions.Exit):
            conclude(StudyResult(study, trials, False, 0))
        following = capsys.readouterr().out.partition("next:")[2]
        assert following and ("runs/toy --failed" in following) == expected
