"""`ddarts settings`: it explains every setting, by what the configuration models hold."""

from __future__ import annotations

import json
import re

import pytest
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.tune import LatencyConfig, ResourcesConfig
from pydantic import BaseModel, Field

from ddarts_cli.commands.settings import tables
from ddarts_cli.main import run
from ddarts_cli.settings import Group, groups
from ddarts_core.data.sets import DATASETS
from ddarts_core.ground.validation import field_paths
from ddarts_core.settings.search_settings import CostConfig, StopConfig


def all_groups() -> list[Group]:
    return list(groups(SweepConfig, tables()))


def test_every_setting_is_explained() -> None:
    """A setting that is added later must say what it is."""
    settings = [setting for group in all_groups() for setting in group.settings]
    paths = {setting.path for setting in settings}
    assert set(field_paths(SweepConfig)) <= paths
    inner: dict[str, type[BaseModel]] = {  # or null, or a word
        "search.cost": CostConfig,
        "search.stop": StopConfig,
        "tune.resources": ResourcesConfig,
        "tune.latency": LatencyConfig,
    }
    assert paths - set(field_paths(SweepConfig)) == {
        f"{group}.{n}" for group, m in inner.items() for n in m.model_fields
    }
    assert not [setting.path for setting in settings if not setting.meaning or not setting.allowed]
    assert all(group.meaning.endswith(".") for group in all_groups())


def test_the_data_sets_are_those_of_the_table() -> None:
    assert tables()["data.name"] == tuple(DATASETS)


def test_what_is_read_off_a_model() -> None:
    class Inner(BaseModel):
        """Within."""

        flag: bool = Field(True, description="a flag")

    class Outer(BaseModel):
        """Without.

        Not this.
        """

        count: int | None = Field(None, ge=2, lt=9, description="how many")
        rate: float = Field(0.5, gt=0, le=1, description="how fast")
        kind: str = Field("a", description="which")
        inner: Inner = Inner()

    outer, inner = groups(Outer, {"kind": ("a", "b")})
    assert [(s.path, s.default, s.allowed, s.meaning) for s in (*outer.settings, *inner.settings)] == [
        ("count", None, "a whole number at least 2, below 9 or null", "how many"),
        ("rate", 0.5, "a number above 0, at most 1", "how fast"),
        ("kind", "a", "a, b", "which"),
        ("inner.flag", True, "true, false", "a flag"),
    ]
    assert (outer.path, outer.meaning) == ("", "Without.")
    assert (inner.path, inner.meaning) == ("inner", "Within.")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings", "alpha.lr"]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"^alpha: .*\n  alpha\.lr = 0\.003 {4}\(a number above 0, at most 10\)\n {6}The learning rate of Adam",
        shown,
        re.M,
    )
    assert "search.lr" not in shown
    assert run(["settings", "memory", "--json"]) == 0
    assert "search.checkpoint_cells" in json.loads(capsys.readouterr().out)
    assert run(["settings", "nonsense"]) == 2
    assert "no setting has 'nonsense'" in capsys.readouterr().err
