"""The profile of a search names the paper's parts and leaves a trace."""

from __future__ import annotations

import json

import pytest

from ddarts_core.profiling import profile_search, table


@pytest.mark.parametrize("loss", ["centered", "none"])
def test_parts_of_a_step(digits, tiny_config, tmp_path, loss):
    parts = profile_search(digits(tiny_config(f"ablation.loss={loss}")), tmp_path / "trace.json", num_steps=2)
    wanted = {"data", "alpha step", "weights step", "logging"} | ({"ablations"} if loss == "centered" else set())
    assert {part.name for part in parts} == wanted
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert all(part.milliseconds > 0 for part in parts)
    assert len(table(parts).splitlines()) == len(parts) + 1
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert wanted <= names
