"""The profile of a search names the paper's parts and leaves a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddarts_core.estimates.profiling import profile, profile_search, table
from ddarts_core.ground.errors import UserError


@pytest.mark.parametrize("loss", ["centered", "none"])
def test_parts_of_a_step(digits, tiny_config, tmp_path, loss):
    parts = profile_search(digits(tiny_config(f"ablation.loss={loss}")), tmp_path / "trace.json", num_steps=1)
    wanted = {"data", "alpha step", "weights step", "logging"} | ({"ablations"} if loss == "centered" else set())
    assert {part.name for part in parts} == wanted
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert all(part.milliseconds > 0 for part in parts)
    assert len(table(parts).splitlines()) == len(parts) + 1
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert wanted <= names


def test_a_trace_that_is_cut_off_is_none(digits, tiny_config, tmp_path, monkeypatch):
    """On a full disk the profiler logs a line and goes on."""
    monkeypatch.setattr(profile, "export_chrome_trace", lambda self, name: Path(name).write_text('{"a": 1'))
    with pytest.raises(UserError, match=r"trace\.json: the profiler wrote only a part of it; make room"):
        profile_search(digits(tiny_config()), tmp_path / "trace.json", num_steps=1)
    assert list(tmp_path.iterdir()) == []
