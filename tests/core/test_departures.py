"""What a file undoes of a method's preset is said, so that a table never compares a method with itself unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from ddarts_tuning.settings.config import load_sweep, resolve_sweep
from ddarts_tuning.settings.space import departures as of_space

from ddarts_cli.commands.config import command
from ddarts_core.methods import METHODS
from ddarts_core.settings.config import load_experiment, resolve
from ddarts_core.settings.departures import departures

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", list(METHODS))
def test_a_preset_departs_from_itself_in_nothing(name: str) -> None:
    start = ["search.start=zoo:ResNet18"] if name == "dartopti" else []
    assert departures(resolve({"method": name}, start)) == []


def test_what_follows_from_a_start_is_no_departure_and_another_weight_is() -> None:
    other = {"method": "dartopti", "search": {"start": "zoo:ResNet50"}}
    assert departures(resolve(other)) == []
    assert departures(resolve(other, ["search.w_zero_one=8"])) == ["search.w_zero_one 8.0 (2.67)"]


def test_the_quickstart_takes_over_what_another_method_is() -> None:
    file = EXPERIMENTS / "quickstart.yaml"
    assert load_experiment(file, ["method=ddarts-lf"]).ablation.loss == "none"
    assert departures(load_experiment(file, ["method=ddarts-lf"])) == []
    assert departures(load_experiment(file, ["method=fairdarts"])) == ["search.w_zero_one 5.0 (10.0)"]
    printed = CliRunner().invoke(command, [str(file), "--set", "method=fairdarts"]).output
    said = (
        "# method fairdarts runs with other settings than its own, which are in brackets: search.w_zero_one 5.0 (10.0)"
    )
    assert said in printed.splitlines()


def test_a_sweep_says_which_methods_are_not_what_they_are_called() -> None:
    space = {"method": {"type": "categorical", "choices": ["ddarts", "ddarts-lf", "fairdarts", "oles"]}}
    groups = {"search": {"w_zero_one": 0.0}, "ablation": {"loss": "centered"}}
    assert of_space(resolve_sweep({"space": space, **groups}).build_space()) == [
        "methods ddarts-lf, oles run with other settings than their own, which are in brackets: "
        "ablation.loss centered (none)",
        "method fairdarts runs with other settings than its own, which are in brackets: search.w_zero_one 0.0 (10.0), "
        "ablation.loss centered (none)",
    ]
    drawn = {**space, "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]}}
    of_drawn = of_space(resolve_sweep({"space": drawn, **groups}).build_space())
    assert len(of_drawn) == 1 and "ablation" not in of_drawn[0]
    assert of_space(load_sweep(EXPERIMENTS / "methods_digits.yaml").build_space()) == []
