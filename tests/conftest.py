"""The order of the tests."""

from __future__ import annotations

import os

import pytest

for variable in ("MLFLOW_TRACKING_URI", "DDARTS_TRACKING_URI"):  # of whoever runs the tests
    os.environ.pop(variable, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first, so that no process is left alone with one at the end: sweeps, commands, then the rest."""
    items.sort(key=lambda item: 0 if "tests/tuning/" in item.nodeid else item.nodeid.count("/"))
